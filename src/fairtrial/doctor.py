"""Checks the installation part by part, and changes nothing."""

import importlib.metadata
import importlib.util
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

import fairtrial
from fairtrial.errors import FairtrialError, StoreMissingError
from fairtrial.executors.slots import usable_cores
from fairtrial.store.sql import SQLStore

#: Packages whose versions are reported.
PACKAGES = ("torch", "numpy", "scipy", "sqlalchemy", "safetensors", "altair", "vl-convert-python")

#: Memory that a worker may need, and free disk below which a note is made.
WORKER_GB, FREE_GB = 1.0, 1.0

#: Memory of this machine, not of a GPU, that the process of one may need: CUDA's libraries take most of it.
GPU_PROCESS_GB = 4.0

#: Where Linux shows the GPUs of NVIDIA's.
DEVICES = Path("/dev")


class CheckStatus(StrEnum):
    """Whether a part works, works but could be better or is optional and missing, or would make a study fail."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


GOOD, NOTE, BAD = CheckStatus
_Finding: TypeAlias = tuple[CheckStatus, str]  # the status and the detail of a result


@dataclass(frozen=True)
class CheckResult:
    """The result of checking one part; its detail says what was found, and what to do unless it is good."""

    part: str
    state: CheckStatus
    detail: str


def check_installation(store: str = "fairtrial.db", address: str | None = None) -> Iterator[CheckResult]:
    """Check each part of the installation, and yield a result for it; an error during a check is a result, too.

    Args:
        store: the file or URL of the store.
        address: of a Ray cluster, if one will be used; by default ``RAY_ADDRESS``.

    Example:
        >>> [result.part for result in check_installation() if result.state == "bad"]  # doctest: +SKIP
        []
    """
    checks: Mapping[str, Callable[[], _Finding]] = {
        "versions": _versions,
        "processor": _processor,
        "GPU": _gpu,
        "memory": _memory,
        "disk": lambda: _disk(store),
        "layers": _layers,
        "data": _data,
        "store": lambda: _store(store),
        "Ray": lambda: _ray(address or os.environ.get("RAY_ADDRESS")),
        "PostgreSQL": lambda: _postgres(store),
    }
    for part, check in checks.items():
        try:
            yield CheckResult(part, *check())
        except (FairtrialError, ImportError, OSError) as error:
            yield CheckResult(part, BAD, str(error))


def _versions() -> _Finding:
    versions, missing = [f"fairtrial {fairtrial.__version__}", f"SQLite {sqlite3.sqlite_version}"], []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        return BAD, f"not installed: {', '.join(missing)}; pip install --upgrade fairtrial"
    return GOOD, ", ".join(versions)


def _processor() -> _Finding:
    from fairtrial.training.devices import gpus  # noqa: PLC0415
    from fairtrial.training.machine import describe_process  # noqa: PLC0415

    machine, cores = describe_process(), usable_cores()
    gpu = f"{gpus()} x {machine.device}" if gpus() else "no GPU"
    return GOOD, f"{machine.processor}, {cores} usable {'core' if cores == 1 else 'cores'}, {gpu}"


def _gpu() -> _Finding:
    from fairtrial.training import devices, gpus  # noqa: PLC0415

    chosen, found = devices.choose_device(), gpus.find_gpus()
    if not found:
        return _no_gpu(gpus.cuda_version(), has_mps=gpus.has_mps())
    each = (
        f"{one.name} (compute capability {'.'.join(map(str, one.capability))}, {one.free_bytes / 2**30:.1f} of "
        f"{one.total_bytes / 2**30:.1f} GiB free)"
        for one in found
    )
    named = "; ".join(f"cuda:{number} {text}" for number, text in enumerate(each))
    detail = f"{named}; torch has CUDA {gpus.cuda_version()}"
    if chosen.type != "cuda":
        return GOOD, f"{detail}; not used, as device {chosen.type} is chosen"
    used = "all are used" if 1 < len(found) == devices.gpus() else f"{chosen} is used"
    state, layers = _gpu_layers()
    return state, f"{detail}; {used}, with {layers}"


def _no_gpu(cuda: str | None, *, has_mps: bool) -> _Finding:
    """Say why no GPU of NVIDIA's is used, and what to do if there is one."""
    if has_mps:
        return GOOD, "one of Apple's, used with --device mps"
    if not any(DEVICES.glob("nvidia[0-9]*")):
        return GOOD, "none; trials are trained on the CPU"
    if cuda is None:
        advice = "to train on it, install a build of torch with CUDA"
        return NOTE, f"this machine has one of NVIDIA's, but torch is built without CUDA: {advice}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    where = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
    advice = f"check its driver, which must know CUDA {cuda}, with nvidia-smi"
    return NOTE, f"this machine has one of NVIDIA's, but torch can't use it{where}: {advice}"


def _gpu_layers() -> _Finding:
    """Say with which layers a GPU trains, and why not with the fast ones."""
    from fairtrial.training.kernels import compiler, fused  # noqa: PLC0415

    if fused.is_available():
        return GOOD, fused.path()
    if os.environ.get(compiler.SWITCH, "").lower() == "off":
        return GOOD, f"torch's own layers, as {compiler.SWITCH}=off asks"
    missing = importlib.util.find_spec("triton") is None
    why = "Triton is not installed; pip install triton" if missing else fused.obstacle()
    return NOTE, f"torch's own layers, several times slower: {why}"


def _memory() -> _Finding:
    from fairtrial.training.devices import gpus  # noqa: PLC0415

    meminfo = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = int(dict(line.split(":", 1) for line in meminfo)["MemAvailable"].split()[0]) * 1024 / 1e9
    needed, detail = WORKER_GB * usable_cores(), f"{available:.1f} GB available"
    if number := gpus():
        needed = GPU_PROCESS_GB * number
        if available < needed:
            return (
                NOTE,
                f"{detail}; a process for each GPU can need {GPU_PROCESS_GB:.0f} GB of it: close other programs",
            )
    elif available < needed:
        return NOTE, f"{detail}; one worker per core can need {needed:.0f} GB: use fewer --workers"
    return GOOD, detail


def _disk(store: str) -> _Finding:
    from fairtrial.training.datasets import cache  # noqa: PLC0415

    paths = {"cache": cache.folder("cifar10"), "working folder" if "://" in store else "store": Path(store).resolve()}
    folders = {name: _nearest(path) for name, path in paths.items()}
    free = {name: shutil.disk_usage(folder).free / 1e9 for name, folder in folders.items()}
    detail = ", ".join(f"{gigabytes:.1f} GB free for the {name}" for name, gigabytes in free.items())
    if min(free.values()) < FREE_GB:
        return NOTE, f"{detail}: data, checkpoints and records need at least {FREE_GB:.0f} GB"
    return GOOD, detail


def _nearest(path: Path) -> Path:
    """The path, or the nearest above it that exists."""
    return next(one for one in (path, *path.parents) if one.exists())


def _layers() -> _Finding:
    from fairtrial.training.kernels import cache, compiler  # noqa: PLC0415

    try:
        label = compiler.find_compiler().label
    except cache.KernelsUnavailableError as reason:
        return NOTE, f"torch's own, several times slower: {reason}; install g++ or clang++"
    try:
        cached, folder = compiler.is_cached("float"), cache.folder_path()
    except cache.KernelsUnavailableError as reason:
        return NOTE, f"torch's own, several times slower: {reason}"
    except cache.UnsoundError as reason:
        return NOTE, f"{reason}: it is not loaded; the next study compiles it again"
    if cached:
        return GOOD, f"kernels by {label}, already compiled"
    if not os.access(_nearest(folder), os.W_OK | os.X_OK):
        detail = f"{folder} can't be written to; set FAIRTRIAL_CACHE to a folder that can"
        return NOTE, f"torch's own, several times slower: {detail}"
    return GOOD, f"kernels by {label}, compiled when a study first needs them"


def _data() -> _Finding:
    from fairtrial.training import datasets  # noqa: PLC0415

    found = datasets.cached("cifar10")
    if found is None:
        return NOTE, "cifar10 is not downloaded yet: the first study downloads it, or `fairtrial data cifar10`"
    return GOOD, f"cifar10 is complete, in {found.path}"


def _store(store: str) -> _Finding:
    """Open the store for reading, or check that one could be made."""
    try:
        with SQLStore(store, create=False) as opened:
            studies, problem, name = len(opened.studies()), opened.check(), opened.name
    except StoreMissingError:
        if "://" in store:
            return GOOD, "can be reached, and has no studies yet"
        folder = Path(store).resolve().parent
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fairtrial-"):
            return GOOD, f"none at {store} yet; {folder} can be written to"
    if problem:
        return BAD, problem
    if "://" not in store and not os.access(store, os.W_OK):
        return BAD, f"{store} can be read but not written to"
    return GOOD, f"{name} is sound, with {studies} {'study' if studies == 1 else 'studies'}"


def _ray(address: str | None) -> _Finding:
    if importlib.util.find_spec("ray") is None:
        status = BAD if address else NOTE
        return status, f'not installed; needed for {address or "a cluster"}: pip install "fairtrial[ray]"'
    version = importlib.metadata.version("ray")
    if not address:
        return GOOD, f"{version}; no cluster given by --address or RAY_ADDRESS"
    from fairtrial.executors.ray.executor import describe_cluster  # noqa: PLC0415

    return GOOD, f"{version}; {describe_cluster(address)}"


def _postgres(store: str) -> _Finding:
    if importlib.util.find_spec("psycopg") is None:
        status = BAD if store.startswith("postgres") else NOTE
        return status, 'no driver; needed to store records in PostgreSQL: pip install "fairtrial[postgres]"'
    return GOOD, f"psycopg {importlib.metadata.version('psycopg')}"
