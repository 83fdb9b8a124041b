"""Whether this installation can do what fairtrial does: each part looked at, nothing changed but a probe file."""

import importlib.metadata
import importlib.util
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import fairtrial
from fairtrial.errors import DataError, FairtrialError, StoreMissingError
from fairtrial.executors.slots import usable_cores
from fairtrial.store.sql import SQLStore

#: Packages whose versions people are asked for.
PACKAGES = ("torch", "numpy", "scipy", "sqlalchemy", "safetensors", "altair", "vl-convert-python")

#: Gigabytes of memory that a worker may need, and of free disk below which a warning is due.
WORKER_GB, FREE_GB = 1.0, 1.0


class CheckStatus(StrEnum):
    """How a part is."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class CheckResult:
    """What was found of one part.

    Attributes:
        part: its name.
        state: good, a note (works, but could be better, or is not there and not needed), or bad (a study would fail).
        detail: what was found, and what to do where that is not good.
    """

    part: str
    state: CheckStatus
    detail: str


def check_installation(store: str, address: str | None = None) -> Iterator[CheckResult]:
    """Look at each part of an installation, one after another.

    Args:
        store: the database that studies would go to.
        address: of a Ray cluster, if one is to be used; by default what ``RAY_ADDRESS`` says.

    Yields:
        A finding a part. What goes wrong while one is looked at is a finding, not an error.
    """
    parts: tuple[tuple[str, Callable[[], CheckResult]], ...] = (
        ("versions", _versions),
        ("processor", _processor),
        ("memory", _memory),
        ("disk", lambda: _disk(store)),
        ("layers", _layers),
        ("data", _data),
        ("store", lambda: _store(store)),
        ("Ray", lambda: _ray(address or os.environ.get("RAY_ADDRESS"))),
        ("PostgreSQL", lambda: _postgres(store)),
    )
    for part, look in parts:
        try:
            yield look()
        except (FairtrialError, ImportError, OSError) as error:
            yield CheckResult(part, CheckStatus.BAD, str(error))


def _versions() -> CheckResult:
    versions = [f"fairtrial {fairtrial.__version__}", f"SQLite {sqlite3.sqlite_version}"]
    missing = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        return CheckResult(
            "versions", CheckStatus.BAD, f"not installed: {', '.join(missing)}; pip install --upgrade fairtrial"
        )
    return CheckResult("versions", CheckStatus.GOOD, ", ".join(versions))


def _processor() -> CheckResult:
    from fairtrial.training.machine import describe_process, gpus  # noqa: PLC0415

    machine = describe_process()
    cores = usable_cores()
    found = f"{machine.processor}, {cores} {'core' if cores == 1 else 'cores'} to use"
    return CheckResult(
        "processor", CheckStatus.GOOD, f"{found}, {gpus()} x {machine.device}" if gpus() else f"{found}, no GPU"
    )


def _memory() -> CheckResult:
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # free pages leave out what the system only caches
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024 / 1e9
    wanted = WORKER_GB * usable_cores()
    found = f"{available:.1f} GB available"
    if available < wanted:
        return CheckResult(
            "memory", CheckStatus.NOTE, f"{found}; a worker a core can take {wanted:.0f} GB: use fewer --workers"
        )
    return CheckResult("memory", CheckStatus.GOOD, found)


def _disk(store: str) -> CheckResult:
    from fairtrial.training.datasets import cache  # noqa: PLC0415

    places = {"the cache": cache.folder("cifar10"), "here" if "://" in store else "the store": Path(store).resolve()}
    free = {name: shutil.disk_usage(_there(path)).free / 1e9 for name, path in places.items()}
    found = ", ".join(f"{gigabytes:.1f} GB free beside {name}" for name, gigabytes in free.items())
    if min(free.values()) < FREE_GB:
        return CheckResult(
            "disk", CheckStatus.NOTE, f"{found}: data, checkpoints and records want at least {FREE_GB:.0f} GB"
        )
    return CheckResult("disk", CheckStatus.GOOD, found)


def _layers() -> CheckResult:
    from fairtrial.training.kernels import compiler  # noqa: PLC0415

    try:
        label = compiler.find_compiler().label
    except compiler.KernelsUnavailableError as reason:
        return CheckResult(
            "layers", CheckStatus.NOTE, f"torch's own, several times slower: {reason}; install g++ or clang++"
        )
    ready = "compiled already" if compiler.is_cached("float") else "compiled when a study first needs them"
    return CheckResult("layers", CheckStatus.GOOD, f"kernels by {label}, {ready}")


def _data() -> CheckResult:
    from fairtrial.training import datasets  # noqa: PLC0415

    try:
        found = datasets.cached("cifar10")
    except DataError as error:
        return CheckResult("data", CheckStatus.BAD, str(error))
    if found is None:
        return CheckResult(
            "data", CheckStatus.NOTE, "cifar10 is not here yet: the first study fetches it, or `fairtrial data cifar10`"
        )
    return CheckResult("data", CheckStatus.GOOD, f"cifar10 is whole, in {found.path}")


def _store(store: str) -> CheckResult:
    """Open the store as a reader, or see whether one could be made; it is not made."""
    try:
        with SQLStore(store, create=False) as opened:
            studies = len(opened.studies())
            problem = opened.check()
            name = opened.name
    except StoreMissingError:
        if "://" in store:
            return CheckResult("store", CheckStatus.GOOD, "can be reached, and holds no studies yet")
        folder = Path(store).resolve().parent
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fairtrial-"):
            return CheckResult("store", CheckStatus.GOOD, f"none at {store} yet; {folder} can be written to")
    if problem:
        return CheckResult("store", CheckStatus.BAD, f"{name} is damaged: {problem}")
    if "://" not in store and not os.access(store, os.W_OK):
        return CheckResult("store", CheckStatus.BAD, f"{store} can be read but not written to")
    return CheckResult(
        "store", CheckStatus.GOOD, f"{name} is sound, with {studies} {'study' if studies == 1 else 'studies'}"
    )


def _ray(address: str | None) -> CheckResult:
    if importlib.util.find_spec("ray") is None:
        if address:
            return CheckResult(
                "Ray", CheckStatus.BAD, f'not installed, but needed for {address}: pip install "fairtrial[ray]"'
            )
        return CheckResult("Ray", CheckStatus.NOTE, 'not installed; to use a cluster: pip install "fairtrial[ray]"')
    version = importlib.metadata.version("ray")
    if not address:
        return CheckResult("Ray", CheckStatus.GOOD, f"{version}; no cluster named by --address or RAY_ADDRESS")
    from fairtrial.executors.ray.executor import describe_cluster  # noqa: PLC0415

    return CheckResult("Ray", CheckStatus.GOOD, f"{version}; {describe_cluster(address)}")


def _postgres(store: str) -> CheckResult:
    if importlib.util.find_spec("psycopg") is None:
        state = CheckStatus.BAD if store.startswith("postgres") else CheckStatus.NOTE
        return CheckResult("PostgreSQL", state, 'no driver; to use one as the store: pip install "fairtrial[postgres]"')
    return CheckResult("PostgreSQL", CheckStatus.GOOD, f"psycopg {importlib.metadata.version('psycopg')}")


def _there(path: Path) -> Path:
    """Find the first folder above a path that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
