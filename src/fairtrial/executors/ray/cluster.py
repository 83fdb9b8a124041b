"""A connection to a Ray cluster, or to a Ray started on this machine."""

import importlib
import importlib.util
import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from fairtrial.errors import FairtrialError
from fairtrial.executors.ray.private import private_ray

#: Seconds that a cluster gets to answer, at first and later.
PATIENCE = 5.0

#: The smallest part of a GPU that Ray can reserve is one of so many.
_RAYS_STEPS = 10_000


class RayCluster:
    """A connection to Ray: this process's, if it has one; else to an address; else to a Ray that is started here.

    A FairtrialError says that Ray is not installed, or that the cluster can't be reached. The attribute ``local`` tells
    whether Ray was started here, with so many cores and GPUs.
    """

    def __init__(self, address: str | None, cores: int, gpus: int = 0) -> None:
        check_installed()
        self.ray: Any = importlib.import_module("ray")  # Any, because its types know only some of its options
        self.lost = False
        self._closing = ExitStack()
        self.local = address is None and not self.ray.is_initialized()
        if not self.ray.is_initialized():
            self._connect(address, cores, gpus)
        host, _, port = str(self.ray.get_runtime_context().gcs_address).rpartition(":")
        self._gcs = host.strip("[]"), int(port)

    @staticmethod
    def connected() -> bool:
        """Whether this process has a connection already."""
        return bool(importlib.import_module("ray").is_initialized())

    def check(self) -> None:
        """Raise a FairtrialError if the cluster's control service is gone: Ray would wait a minute, then exit."""
        if self.lost or not _answers(self._gcs):
            self.declare_lost()

    def declare_lost(self) -> NoReturn:
        """Raise the FairtrialError of a lost cluster."""
        self.lost = True
        host, port = self._gcs
        raise FairtrialError(
            f"the Ray cluster at {host}:{port} is lost; every finished epoch is in the store: "
            "rerun the command to resume"
        )

    def room(self, threads: int, per_gpu: int) -> int:
        """Count the tasks that fit on the living nodes, with so many cores each, and so many to a GPU; 0: without."""
        room = 0
        for has in self._resources():
            fit = int(has.get("CPU", 0) // threads)
            room += min(fit, int(has.get("GPU", 0) * per_gpu)) if per_gpu else fit
        return room

    def gpus(self) -> int:
        """Count the GPUs of the living nodes."""
        return int(sum(has.get("GPU", 0) for has in self._resources()))

    def nodes(self) -> int:
        """Count the living nodes."""
        return len(self._resources())

    def _resources(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def close(self) -> None:
        """End the connection, and a Ray that was started here; a connection that existed before stays."""
        self._closing.close()

    def _connect(self, address: str | None, cores: int, gpus: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no calls home
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        options["job_config"] = _job_config(self.ray)
        try:
            with ExitStack() as undo, _sigterm_kept():
                undo.enter_context(_no_pages())
                if address is None:
                    undo.enter_context(private_ray(self.ray, cores, gpus, **options))
                else:
                    _check_address(address)
                    self.ray.init(address, **options)
                    undo.callback(self.ray.shutdown)
                self._closing = undo.pop_all()
        except FairtrialError:
            raise
        except (Exception, SystemExit) as error:  # a bare one, if a node takes too long to start
            lines = str(error).strip().splitlines() or [type(error).__name__]
            what = "Ray can't be started here" if address is None else f"no Ray cluster at {address}"
            token = "" if address is None else "; one that asks for a token needs RAY_AUTH_MODE=token here too"
            raise FairtrialError(f"{what}: {lines[0]}{token}") from error


def _job_config(ray: Any) -> Any:
    """Keep Ray from putting the working folder first on the path of its processes, for which it has no option.

    Any file there would pass for a module. What a study needs is on the path that comes with each task.
    """

    class JobConfig(ray.job_config.JobConfig):  # type: ignore[misc]  # its base is Any
        def _serialize(self) -> Any:
            self._py_driver_sys_path.clear()
            return super()._serialize()

    return JobConfig()


def share_of_gpu(per_gpu: int) -> float:
    """The GPU that Ray reserves for each of so many tasks; 0 for none.

    Ray counts in steps of 1/10,000, and rounds: three times 0.3333 fit on a GPU, seven times 1/7 would not.
    """
    return (_RAYS_STEPS // per_gpu) / _RAYS_STEPS if per_gpu else 0


def check_installed() -> None:
    """Refuse with a FairtrialError where Ray is not installed, without the second that importing it takes."""
    if importlib.util.find_spec("ray") is None:
        raise FairtrialError('Ray is not installed; install it by: pip install "fairtrial[ray]"')


def _check_address(address: str) -> None:
    """Check that something listens at an address: Ray takes more than a minute to say that nothing does."""
    if address.startswith("ray://"):
        raise FairtrialError(
            f"--address {address}: Ray's client can't carry what trials report; run this on a machine of the cluster, "
            "with --address auto"
        )
    known = _remembered() if address == "auto" else address
    if known is None:
        return
    host, _, port = known.rpartition(":")
    if not host or not port.isdigit():
        raise FairtrialError(f"--address {address}: must be auto, or HOST:PORT such as 10.0.0.1:6379")
    if not _answers((host.strip("[]"), int(port))):
        raise FairtrialError(f"no Ray cluster answers at {known}; `ray start --head` on its first machine starts one")


def _remembered() -> str | None:
    """Find the address that "auto" means to Ray; None where Ray itself will say that there is none."""
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    with suppress(OSError):
        return (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip() or None
    return None


def _answers(address: tuple[str, int]) -> bool:
    """Check whether something listens at an address; a refusal may pass, as when a service is restarted."""
    deadline = time.monotonic() + PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=left):
                return True
        except OSError:
            time.sleep(min(0.2, max(0.0, left)))
    return False


@contextmanager
def _no_pages() -> Iterator[None]:
    """Stop Ray from printing a page on standard output for each worker that dies, for which it has no option."""
    worker: Any = importlib.import_module("ray._private.worker")
    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_args, **_options: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Restore this process's own SIGTERM handler, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # not the main thread, in which case Ray has not replaced it
            signal.signal(signal.SIGTERM, before)
