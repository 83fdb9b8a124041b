"""Reaching a Ray cluster, or starting one on this machine; and knowing when it is gone."""

import importlib.util
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairtrial.errors import FairtrialError

#: Seconds that a cluster gets to answer, when it is reached for and later.
PATIENCE = 5.0

#: Bytes of the object store of a Ray that is started here, the least that it takes: what trials report is small.
OBJECT_STORE = 80 * 1024 * 1024


class RayCluster:
    """A connection to Ray.

    It is this process's, if it has one; else to the cluster at an address; else to one that is started here.

    Args:
        address: ``"auto"`` or ``"host:port"``; None for one on this machine.
        cores: cores of one that is started here.

    Raises:
        FairtrialError: Ray is not installed, or the cluster can't be reached.

    Attributes:
        ours: whether `close` ends the connection.
        local: whether it was started here.
    """

    def __init__(self, address: str | None, cores: int) -> None:
        self.ray = load()
        self.lost = False
        self.ours = not self.ray.is_initialized()
        self.local = self.ours and address is None
        self._talk: Any = None
        if self.ours:
            self._connect(address, cores)
        host, _, port = str(self.ray.get_runtime_context().gcs_address).rpartition(":")
        self._gcs = host.strip("[]"), int(port)

    def check(self) -> None:
        """See whether the cluster's control service is there.

        Ray itself would wait for it for a minute, and then end this process.

        Raises:
            FairtrialError: it is not; `lost` is set.
        """
        if not self.lost and _answers(self._gcs):
            return
        self.declare_lost()

    def declare_lost(self) -> None:
        """Take note that the cluster is gone.

        Raises:
            FairtrialError: always.
        """
        self.lost = True
        host, port = self._gcs
        raise FairtrialError(
            f"the Ray cluster at {host}:{port} is lost; every finished epoch is in the store: "
            "rerun the command to resume"
        )

    def room(self, threads: int, gpus: float) -> int:
        """Count the trials that fit on the nodes that are there, with so many cores and GPUs each."""
        free = 0
        for node in self.ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                fit = int(has.get("CPU", 0) // threads)
                free += min(fit, int(has.get("GPU", 0) / gpus)) if gpus else fit
        return free

    def close(self) -> None:
        """End the connection, and Ray where it was started here; nothing if it was there before."""
        if self.ours and self.ray.is_initialized():
            self.ray.shutdown()
            _worker_module().print_to_stdstream = self._talk

    def _connect(self, address: str | None, cores: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no calls home
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        module = _worker_module()  # Ray prints a page on standard output for each worker that dies; we say it in a line
        self._talk, module.print_to_stdstream = module.print_to_stdstream, _say_nothing
        try:
            with _sigterm_kept():
                if address is None:
                    store = {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
                    self.ray.init("local", num_cpus=cores, **store, **quiet)
                else:
                    self.ray.init(_checked(address), **quiet)
        except (ConnectionError, OSError, RuntimeError, ValueError, SystemExit) as error:
            module.print_to_stdstream = self._talk
            lines = str(error).strip().splitlines() or [type(error).__name__]
            what = "Ray can't be started here" if address is None else f"no Ray cluster at {address}"
            raise FairtrialError(f"{what}: {lines[0]}") from error
        except FairtrialError:
            module.print_to_stdstream = self._talk
            raise


def load() -> Any:
    """Import Ray, whose types know only some of its options.

    Raises:
        FairtrialError: it is not installed.
    """
    check_installed()
    import ray  # noqa: PLC0415

    return ray


def check_installed() -> None:
    """See whether Ray is installed, without the second that importing it takes.

    Raises:
        FairtrialError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise FairtrialError('Ray is not installed; install it by: pip install "fairtrial[ray]"')


def _checked(address: str) -> str:
    """See whether anybody listens at an address: Ray itself takes more than a minute to say that nobody does.

    Raises:
        FairtrialError: nobody does, or it is no address.
    """
    if address.startswith("ray://"):
        raise FairtrialError(
            f"--address {address}: Ray's client can't carry what trials report; run this on a machine of the cluster, "
            "with --address auto"
        )
    known = _remembered() if address == "auto" else address
    if known is None:
        return address
    host, _, port = known.rpartition(":")
    if not host or not port.isdigit():
        raise FairtrialError(f"--address {address}: must be auto, or HOST:PORT such as 10.0.0.1:6379")
    if not _answers((host.strip("[]"), int(port))):
        raise FairtrialError(f"no Ray cluster answers at {known}; `ray start --head` on its first machine starts one")
    return known


def _remembered() -> str | None:
    """Find the address that "auto" means to Ray; None if it is for Ray to say that there is none."""
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    try:
        return (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _answers(address: tuple[str, int]) -> bool:
    """Tell whether somebody listens at an address; a refusal may pass, as when a service is restarted."""
    deadline = time.monotonic() + PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=left):
                return True
        except OSError:
            time.sleep(min(0.2, max(0.0, left)))
    return False


def _worker_module() -> Any:
    from ray._private import worker  # noqa: PLC0415

    return worker


def _say_nothing(*_said: object, **_options: object) -> None:
    """Take the place of a function of Ray's that prints."""


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep this process's own answer to SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
