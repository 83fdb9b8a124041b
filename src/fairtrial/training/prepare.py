"""Find training loops, and prepare everything that a study's trials need before the first one starts."""

import math
from collections.abc import Iterable, Iterator, Mapping

from fairtrial import spec
from fairtrial.training import datasets, user_loops
from fairtrial.training.kernels import compiler, library
from fairtrial.training.learner import build_network
from fairtrial.training.loop import train
from fairtrial.trial import TrainingLoop, Trial, TrialContext


def run(trial: TrialContext) -> Iterator[Mapping[str, float]]:
    """Run a trial with the training loop that its settings name; return each epoch's metrics."""
    return find(trial.settings.training.loop)(trial)


def find(name: str, *, fresh: bool = False) -> TrainingLoop:
    """Find a training loop by its name: fairtrial's own, or a user's with `user_loops.find`."""
    return train if name == spec.BUILT_IN else user_loops.find(name, fresh=fresh)


def compile_layers(trials: Iterable[Trial]) -> bool:
    """Compile the fast layers before workers start, if the steps ahead repay it; tell whether workers may compile more.

    Layers that are not compiled give the same results up to rounding; a trial's `Machine.layers` records which it used.
    The trials' data must be in the cache.
    """
    ours = [trial.settings for trial in trials if trial.settings.training.loop == spec.BUILT_IN]
    sizes = {of: len(datasets.load(of, verify=False).train) for of in {settings.data for settings in ours}}
    steps = sum(
        settings.training.epochs * math.ceil(sizes[settings.data] / settings.training.batch_size) for settings in ours
    )
    if steps < compiler.LEAST_STEPS and not compiler.is_cached("float"):
        return False
    library.path()
    return True


def prepare(study: spec.Study, progress: datasets.DownloadProgress | None = None) -> tuple[datasets.Dataset, ...]:
    """Make sure that everything the trials need is available, and return the data sets of fairtrial's own loop.

    Data are fetched and verified, weights files are tried, and users' training loops are imported.

    Args:
        study: the study.
        progress: called during downloads.

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
            build_network(settings.model, loaded[settings.data], seed=0)
    return tuple(loaded.values())
