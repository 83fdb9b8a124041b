"""Training loops: fairtrial's own, and those that users bring as ``"module:function"``."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from fairtrial import spec
from fairtrial.errors import StudyError
from fairtrial.registry import NotFoundError, import_name
from fairtrial.training import datasets
from fairtrial.training.kernels import compiler, layers
from fairtrial.training.loop import train
from fairtrial.trial import Trial


def run(trial: Trial) -> Iterator[Mapping[str, float]]:
    """Run a trial with the training loop that its settings name.

    Yields:
        The metrics of each epoch.
    """
    yield from find(trial.settings.training.loop)(trial)


def find(name: str) -> Callable[[Trial], Iterator[Mapping[str, float]]]:
    """Find a training loop by its name.

    Args:
        name: ``"fairtrial"``, or ``"module:function"`` with a module that Python can import.

    Raises:
        StudyError: no such module or function. What the module itself raises while it is imported passes through:
            it is the user's code, and its traceback says more than a line of ours.
    """
    if name == spec.BUILT_IN:
        return train
    module_name, _, function_name = name.partition(":")
    try:
        loop = import_name(name)
    except NotFoundError as error:
        raise StudyError(f'training.loop = "{name}": {error}') from error
    if not callable(loop):
        raise StudyError(f'training.loop = "{name}": {module_name} has no function {function_name}')
    return loop  # type: ignore[no-any-return]  # a user's function; what it yields is checked record by record


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
        find(settings.training.loop)
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
