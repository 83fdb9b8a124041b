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
from fairtrial.store.sqlite import wal_is_safe

#: Packages whose versions people are asked for.
PACKAGES = ("torch", "numpy", "scipy", "sqlalchemy", "alembic", "safetensors", "altair", "vl-convert-python")

#: Gigabytes of memory that a worker may need, and of free disk below which a warning is due.
WORKER_GB, FREE_GB = 1.0, 1.0


class State(StrEnum):
    """How a part is."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """What was found of one part.

    Attributes:
        part: its name.
        state: good, a note (works, but could be better, or is not there and not needed), or bad (a study would fail).
        detail: what was found, and what to do where that is not good.
    """

    part: str
    state: State
    detail: str


def examine(store: str, address: str | None = None) -> Iterator[Finding]:
    """Look at each part of an installation, one after another.

    Args:
        store: the database that studies would go to.
        address: of a Ray cluster, if one is to be used; by default what ``RAY_ADDRESS`` says.

    Yields:
        A finding a part. What goes wrong while one is looked at is a finding, not an error.
    """
    parts: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("versions", _versions),
        ("processor", _processor),
        ("memory", _memory),
        ("disk", lambda: _disk(store)),
        ("layers", _layers),
        ("data", _data),
        ("store", lambda: _store(store)),
        ("SQLite", _sqlite),
        ("Ray", lambda: _ray(address or os.environ.get("RAY_ADDRESS"))),
        ("PostgreSQL", lambda: _postgres(store)),
    )
    for part, look in parts:
        try:
            yield look()
        except (FairtrialError, ImportError, OSError) as error:
            yield Finding(part, State.BAD, str(error))


def _versions() -> Finding:
    versions = [f"fairtrial {fairtrial.__version__}"]
    missing = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        return Finding("versions", State.BAD, f"not installed: {', '.join(missing)}; pip install --upgrade fairtrial")
    return Finding("versions", State.GOOD, ", ".join(versions))


def _processor() -> Finding:
    from fairtrial.training.machine import describe_process, gpus  # noqa: PLC0415

    machine = describe_process()
    cores = usable_cores()
    found = f"{machine.processor}, {cores} {'core' if cores == 1 else 'cores'} to use"
    return Finding("processor", State.GOOD, f"{found}, {gpus()} x {machine.device}" if gpus() else f"{found}, no GPU")


def _memory() -> Finding:
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # free pages leave out what the system only caches
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024 / 1e9
    wanted = WORKER_GB * usable_cores()
    found = f"{available:.1f} GB available"
    if available < wanted:
        return Finding("memory", State.NOTE, f"{found}; a worker a core can take {wanted:.0f} GB: use fewer --workers")
    return Finding("memory", State.GOOD, found)


def _disk(store: str) -> Finding:
    from fairtrial.training.datasets import cache  # noqa: PLC0415

    places = {"the cache": cache.folder("cifar10"), "here" if "://" in store else "the store": Path(store).resolve()}
    free = {name: shutil.disk_usage(_there(path)).free / 1e9 for name, path in places.items()}
    found = ", ".join(f"{gigabytes:.1f} GB free beside {name}" for name, gigabytes in free.items())
    if min(free.values()) < FREE_GB:
        return Finding("disk", State.NOTE, f"{found}: data, checkpoints and records want at least {FREE_GB:.0f} GB")
    return Finding("disk", State.GOOD, found)


def _layers() -> Finding:
    from fairtrial.training.kernels import compiler  # noqa: PLC0415

    try:
        label = compiler.find_compiler().label
    except compiler.KernelsUnavailableError as reason:
        return Finding("layers", State.NOTE, f"torch's own, several times slower: {reason}; install g++ or clang++")
    ready = "compiled already" if compiler.is_cached("float") else "compiled when a study first needs them"
    return Finding("layers", State.GOOD, f"kernels by {label}, {ready}")


def _data() -> Finding:
    from fairtrial.training import datasets  # noqa: PLC0415

    try:
        found = datasets.cached("cifar10")
    except DataError as error:
        return Finding("data", State.BAD, str(error))
    if found is None:
        return Finding(
            "data", State.NOTE, "cifar10 is not here yet: the first study fetches it, or `fairtrial data cifar10`"
        )
    return Finding("data", State.GOOD, f"cifar10 is whole, in {found.path}")


def _store(store: str) -> Finding:
    """Open the store as a reader, or see whether one could be made; it is not made."""
    try:
        with SQLStore(store, create=False) as opened:
            studies = len(opened.studies())
            problem = opened.check()
            name = opened.name
    except StoreMissingError:
        if "://" in store:
            return Finding("store", State.GOOD, "can be reached, and holds no studies yet")
        folder = Path(store).resolve().parent
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fairtrial-"):
            return Finding("store", State.GOOD, f"none at {store} yet; {folder} can be written to")
    if problem:
        return Finding("store", State.BAD, f"{name} is damaged: {problem}")
    if "://" not in store and not os.access(store, os.W_OK):
        return Finding("store", State.BAD, f"{store} can be read but not written to")
    return Finding("store", State.GOOD, f"{name} is sound, with {studies} {'study' if studies == 1 else 'studies'}")


def _sqlite() -> Finding:
    release = sqlite3.sqlite_version
    if wal_is_safe(sqlite3.sqlite_version_info):
        return Finding("SQLite", State.GOOD, f"{release}, with a write-ahead log")
    return Finding(
        "SQLite",
        State.NOTE,
        f"{release} can lose a transaction where its write-ahead log is reset, so that the slower rollback journal is "
        "used; 3.51.3, 3.50.7, 3.44.6 and later ones can not",
    )


def _ray(address: str | None) -> Finding:
    if importlib.util.find_spec("ray") is None:
        if address:
            return Finding("Ray", State.BAD, f'not installed, but needed for {address}: pip install "fairtrial[ray]"')
        return Finding("Ray", State.NOTE, 'not installed; to use a cluster: pip install "fairtrial[ray]"')
    version = importlib.metadata.version("ray")
    if not address:
        return Finding("Ray", State.GOOD, f"{version}; no cluster named by --address or RAY_ADDRESS")
    from fairtrial.executors.ray.executor import describe_cluster  # noqa: PLC0415

    return Finding("Ray", State.GOOD, f"{version}; {describe_cluster(address)}")


def _postgres(store: str) -> Finding:
    if importlib.util.find_spec("psycopg") is None:
        state = State.BAD if store.startswith("postgres") else State.NOTE
        return Finding("PostgreSQL", state, 'no driver; to use one as the store: pip install "fairtrial[postgres]"')
    return Finding("PostgreSQL", State.GOOD, f"psycopg {importlib.metadata.version('psycopg')}")


def _there(path: Path) -> Path:
    """Find the first folder above a path that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
