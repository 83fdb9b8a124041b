"""Runs trials on a Ray cluster, or on a Ray on this machine: ``pip install "fairtrial[ray]"``."""

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Workload, check_importable
from fairtrial.executors.cuda.executor import TRIALS_PER_GPU, takes_turns
from fairtrial.executors.limits import Limits
from fairtrial.executors.ray.cluster import RayCluster, check_installed
from fairtrial.executors.ray.gpus import RayGpuSession
from fairtrial.executors.ray.session import ClusterSession, RaySession
from fairtrial.executors.slots import DEVICE_VARIABLE, check_counts, usable_cores
from fairtrial.registry import EXECUTORS


@EXECUTORS.register("ray")
class RayExecutor:
    """Runs trials on a Ray cluster, many side by side on each of its GPUs.

    On nodes with the same files, training loops are found by this process's ``sys.path``. Others need the same version
    of fairtrial, and the module of a training loop, installed.

    Args:
        address: ``"auto"`` or ``"host:port"`` of a cluster that this machine belongs to; by default Ray is started on
            this machine. If this process is connected to a Ray already, that is used.
        workers: trials side by side at most, at least 1, each in a process of its own; by default as many as the
            cluster has room for.
        threads: cores of each trial, and threads that its numeric libraries may start, at least 1; by default 1.
        checkpoints: the folder or URL where trials save their state, which all nodes must see; by default a folder
            beside the store.
        time_limit: seconds that an attempt at a trial may take; one that takes longer has failed. None: no limit.
        memory_limit: bytes that each worker, with one trial, may ask for; a trial that asks for more, on the second
            attempt too, has failed. None: no limit.
        trials_per_gpu: trials side by side on each GPU, at least 1. By default 16 of fairtrial's own loop, or as many
            as the GPU's memory allows, which take turns in one process; and one trial of a loop of one's own.

    Where the cluster has GPUs, all trials run on them, unless ``FAIRTRIAL_DEVICE`` says ``cpu``.

    Raises:
        FairtrialError: a number that is not allowed, or Ray is not installed.

    Attributes:
        limits: what a trial may use.

    Example:
        >>> executor = RayExecutor("auto", checkpoints="/shared/checkpoints")         # doctest: +SKIP
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        threads: int | None = None,
        checkpoints: str | None = None,
        time_limit: float | None = None,
        memory_limit: int | None = None,
        trials_per_gpu: int | None = None,
    ) -> None:
        check_installed()
        check_counts(workers=workers, threads=threads, trials_per_gpu=trials_per_gpu)
        self.checkpoints = checkpoints
        self.limits = Limits(time_limit, memory_limit)
        self._address, self._workers, self._threads = address, workers, threads or 1
        self._per_gpu = trials_per_gpu

    def device(self) -> str | None:
        """The kind of device that trials will get: that of the cluster, whatever this machine has.

        None where it is this machine's own: Ray will be started here.
        """
        if (chosen := _chosen_device()) or (self._address is None and not RayCluster.connected()):
            return chosen
        with closing(RayCluster(self._address, 1)) as cluster:
            cluster.check()
            return "cuda" if cluster.gpus() else "cpu"

    def open(self, workload: Workload) -> ClusterSession:
        """Connect to the cluster, and open a session for a study; a FairtrialError if that is impossible."""
        check_importable(workload.trials)
        if workload.checkpoints is not None and "://" not in workload.checkpoints.location:
            location = str(Path(workload.checkpoints.location).absolute())  # nodes have another working folder
            workload = replace(workload, checkpoints=replace(workload.checkpoints, location=location))
        cores = (self._workers or max(1, usable_cores() // self._threads)) * self._threads
        chosen = _chosen_device()
        cluster = RayCluster(self._address, cores, workload.gpus)
        try:
            on_gpus = chosen == "cuda" if chosen else cluster.gpus() > 0
            return self._session(workload, cluster, on_gpus=on_gpus)
        except BaseException:
            cluster.close()
            raise

    def _session(self, workload: Workload, cluster: RayCluster, *, on_gpus: bool) -> ClusterSession:
        """Open the session that suits what trials may use."""
        if self._per_gpu is not None and not on_gpus:
            raise FairtrialError("trials_per_gpu: there is no GPU to train on; leave it out")
        by_turns = on_gpus and takes_turns(workload)
        given = [name for name, value in (("workers", self._workers), ("memory_limit", self.limits.memory)) if value]
        if by_turns and given and self._per_gpu is not None:
            raise FairtrialError(f"trials_per_gpu: excludes {given[0]}, which is of processes with one trial each")
        if by_turns and not given:
            return RayGpuSession(workload, cluster, self._per_gpu or TRIALS_PER_GPU, self._threads, self.limits)
        per_gpu = (self._per_gpu or 1) if on_gpus else 0
        return RaySession(workload, cluster, self._threads, per_gpu, self.limits, workers=self._workers)


def _chosen_device() -> str | None:
    """The kind of device that the user has chosen; a FairtrialError refuses one GPU by its number."""
    name = os.environ.get(DEVICE_VARIABLE) or None
    if name is not None and name.startswith("cuda:"):
        raise FairtrialError(
            f"device {name[:40]!r} (of --device or {DEVICE_VARIABLE}): on a Ray cluster Ray chooses the GPUs; "
            "write cuda, or leave it out"
        )
    return name


def describe_cluster(address: str) -> str:
    """Connect to a cluster and describe its room; a FairtrialError if it can't be reached or Ray is not installed."""
    with closing(RayCluster(address, 1)) as cluster:
        cluster.check()
        numbers = {"node": cluster.nodes(), "core": cluster.room(1, 0), "GPU": cluster.gpus()}
        has = [f"{number} {what if number == 1 else f'{what}s'}" for what, number in numbers.items()]
        return f"the cluster at {address} has {', '.join(has)}"
