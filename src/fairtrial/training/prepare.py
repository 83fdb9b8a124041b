"""The training loop that a study names, and all that its trials need before the first one starts."""

import math
from collections.abc import Iterable, Iterator, Mapping

from fairtrial import spec
from fairtrial.training import datasets, user_loops
from fairtrial.training.kernels import compiler, layers
from fairtrial.training.loop import train
from fairtrial.trial import TrainingLoop, Trial, TrialContext


def run(trial: TrialContext) -> Iterator[Mapping[str, float]]:
    """Run a trial with the training loop that its settings name.

    Returns:
        What the loop returns: the metrics of each epoch.
    """
    return find(trial.settings.training.loop)(trial)


def find(name: str, *, fresh: bool = False) -> TrainingLoop:
    """Find a training loop by its name: fairtrial's own, or a user's as `user_loops.find` does."""
    return train if name == spec.BUILT_IN else user_loops.find(name, fresh=fresh)


def compile_layers(trials: Iterable[Trial]) -> bool:
    """Compile the fast layers once, before many workers want them at the same time, if the steps ahead repay it.

    Layers that are not compiled give the same results to rounding, not to the bit; a trial's `Machine.layers` says
    which it had.

    Args:
        trials: those ahead. Their data must be in the cache.

    Returns:
        Whether workers may compile what they still miss.
    """
    ours = [trial.settings for trial in trials if trial.settings.training.loop == spec.BUILT_IN]
    sizes = {of: len(datasets.load(of, verify=False).train) for of in {settings.data for settings in ours}}
    steps = sum(
        settings.training.epochs * math.ceil(sizes[settings.data] / settings.training.batch_size) for settings in ours
    )
    if steps < compiler.LEAST_STEPS and not compiler.is_cached("float"):
        return False
    layers.path()
    return True


def prepare(study: spec.Study, progress: datasets.DownloadProgress | None = None) -> tuple[datasets.Dataset, ...]:
    """See to it, before any trial starts, that all it needs is there and whole.

    Args:
        study: whose data are fetched and verified, whose weights files are tried, whose training loops are found.
        progress: told about downloads.

    Returns:
        The data sets that fairtrial's own loop will use, each once.

    Raises:
        DataError: data are missing or damaged.
        WeightsError: a weights file does not fit its model.
        StudyError: a training loop can't be found.
    """
    loaded: dict[spec.DataSettings, datasets.Dataset] = {}
    for settings in (arm.settings for arm in study.arms):
        find(settings.training.loop, fresh=True)
        if settings.training.loop != spec.BUILT_IN:
            continue
        if settings.data not in loaded:
            loaded[settings.data] = datasets.load(settings.data, progress=progress)
        if getattr(settings.model, "weights", None):
            dataset = loaded[settings.data]
            settings.model.build(
                classes=dataset.classes, image_size=dataset.image_size, channels=dataset.channels, seed=0
            )
    return tuple(loaded.values())
