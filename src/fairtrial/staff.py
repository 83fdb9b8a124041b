"""Who trains where workers on this machine do not: how the executor of a cluster is made for a study."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fairtrial.callbacks import Callback
from fairtrial.checkpoints import CheckpointManager
from fairtrial.executors.base import Executor
from fairtrial.executors.limits import Limits
from fairtrial.runner import Staff, loop_names
from fairtrial.spec import BUILT_IN, Study
from fairtrial.trial import Trial


def on_ray(address: str | None = None) -> Staff:
    """Let trials run as Ray tasks.

    Args:
        address: ``"auto"`` or ``"host:port"`` of a cluster that this machine belongs to; None starts Ray on this
            machine.

    Returns:
        What `fairtrial.run` takes as ``staff``.

    Example:
        >>> fairtrial.run(study, store=store, staff=on_ray("auto"), checkpoints="/shared/checkpoints")  # doctest: +SKIP
    """

    def staff(
        study: Study,
        trials: Sequence[Trial],
        asked_for: tuple[int | None, int | None],
        watcher: Callback,
        *,
        checkpoints: CheckpointManager,
        limits: Limits,
    ) -> tuple[Executor, None]:
        """Make the executor, and see that it can train; torch is loaded here."""
        from fairtrial.executors.ray.cluster import load  # noqa: PLC0415
        from fairtrial.executors.ray.executor import NodeData, RayExecutor  # noqa: PLC0415
        from fairtrial.training import machine, prepare  # noqa: PLC0415
        from fairtrial.training.datasets import share  # noqa: PLC0415

        load()  # whoever lacks Ray should hear it before data are fetched
        named = loop_names(study)
        prepare.prepare(study, progress=watcher.fetching)
        workers, threads = asked_for
        ours = {trial.settings.data.name for trial in trials if trial.settings.training.loop == BUILT_IN}
        executor = RayExecutor(
            prepare.run,
            machine.describe_machine if BUILT_IN in named else machine.describe_process,
            address=address,
            workers=workers,
            threads=threads or 1,
            gpus=1 if machine.gpus() else 0,
            set_up=partial(machine.set_up_worker, threads or 1, compiles=prepare.compile_layers(trials)),
            limits=limits,
            checkpoints=replace(checkpoints, place=_absolute(checkpoints.place)),
            supplies=NodeData(partial(share.gather, ours), partial(share.place, ours)) if ours else None,
        )
        return executor, None

    return staff


def _absolute(place: str) -> str:
    """Name a folder so that it means the same in another working folder."""
    return place if "://" in place else str(Path(place).absolute())
