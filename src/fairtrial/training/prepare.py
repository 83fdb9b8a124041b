"""Find training loops, and prepare everything that a study's trials need before the first one starts."""

import ast
import inspect
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType

import torch

from fairtrial import sources, spec
from fairtrial.errors import StudyError
from fairtrial.registry import NotFoundError, import_name
from fairtrial.training import augmentation, datasets, precision
from fairtrial.training.devices import choose_device
from fairtrial.training.graphed import why_not_recorded
from fairtrial.training.kernels import compiler, library
from fairtrial.training.kernels.cache import KernelsUnavailableError, UnsoundError
from fairtrial.training.learner import build_network
from fairtrial.training.loop import train
from fairtrial.training.probing import probe
from fairtrial.training.rates import try_schedule
from fairtrial.trial import TrainingLoop, Trial, TrialContext, Turn


def run(trial: TrialContext) -> Iterator[Mapping[str, float] | Turn]:
    """Run a trial with the training loop that its settings name; return each epoch's metrics.

    A user's loop may set torch's number of threads: the next trial of this process has its own again.
    """
    name = trial.settings.training.loop
    epochs = find(name)(trial)
    return _restoring_threads(epochs) if name != spec.BUILT_IN and isinstance(epochs, Iterator) else epochs


def _restoring_threads(epochs: Iterator[Mapping[str, float] | Turn]) -> Iterator[Mapping[str, float] | Turn]:
    threads = torch.get_num_threads()
    try:
        yield from epochs
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def find(name: str, *, fresh: bool = False) -> TrainingLoop:
    """Find a training loop by its name: fairtrial's own, or ``"module:function"``; a `spec.LoopName` has the function.

    With ``fresh``, reload the module if its file was rewritten: only at the start of a study, so that all its trials
    get the same code.

    Raises:
        StudyError: no such module or function, or the function can't be a training loop. Errors that the module itself
            raises during import pass through with their traceback.
    """
    if name == spec.BUILT_IN:
        return train
    module_name, _, function_name = name.partition(":")
    loop: object = name.function if isinstance(name, spec.LoopName) else None
    if loop is None and "#" in name:
        raise StudyError(f'training.loop = "{name}": was given as a function; give it again, to Study(...) in Python')
    if "#" not in name:
        try:
            loop = import_name(name, fresh=fresh)
        except NotFoundError as error:
            raise StudyError(f'training.loop = "{name}": {error}') from error
    if not callable(loop):
        raise StudyError(f'training.loop = "{name}": {module_name} has no function {function_name}')
    if _forgets_to_yield(loop):
        raise StudyError(
            f'training.loop = "{name}": must be a generator that yields a dict of metrics after each epoch, such as '
            '{"train_loss": 0.3, "test_acc": 0.8}; it has no yield (from callbacks: see fairtrial.reporting)'
        )
    return loop  # what it yields is checked record by record


def _forgets_to_yield(loop: object) -> bool:
    """Whether a function is no generator, and can only return None and dicts."""
    if inspect.isgeneratorfunction(loop):  # what `bridge.reporting` makes of a function that is none
        return False
    loop = inspect.unwrap(loop) if callable(loop) else loop
    if not isinstance(loop, FunctionType) or inspect.isgeneratorfunction(loop):
        return False
    try:
        [function] = ast.parse(textwrap.dedent(inspect.getsource(loop))).body
    except (OSError, SyntaxError, ValueError):  # typed into a prompt, say; what it returns is checked when it runs
        return False
    nodes: list[ast.AST] = [function] if isinstance(function, ast.FunctionDef) else [ast.Return(ast.Name("lambda"))]
    returned = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Return):
            returned.append(node.value)
        inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
        nodes += [child for child in ast.iter_child_nodes(node) if not isinstance(child, inner)]
    return all(isinstance(value, ast.Dict | ast.Constant | None) for value in returned)


def compile_layers(trials: Iterable[Trial]) -> tuple[str, ...]:
    """Compile the fast layers of fairtrial's own loop before workers start; return what a user should know of it.

    They are compiled however few steps are ahead: layers that are not give other bits, so a study must not depend on
    what its machine happens to have compiled before. On a GPU there are none, and what is to be known is which trials
    have no graphs.
    """
    ours = [trial for trial in trials if trial.settings.training.loop == spec.BUILT_IN]
    if not ours:
        return ()
    if choose_device().type != "cpu":
        return _not_recorded(ours)
    notes: tuple[str, ...] = ()
    try:
        compiler.is_cached("float")
    except UnsoundError as reason:
        notes = (f"{reason}: not loaded, and compiled again",)
    except KernelsUnavailableError:  # `library.path` says so
        pass
    library.path()
    return notes + precision.notes({trial.settings.training.precision for trial in ours})


def _not_recorded(trials: Iterable[Trial]) -> tuple[str, ...]:
    """Say of which arms a GPU gets each operation by itself, and why."""
    if choose_device().type != "cuda":
        return ()
    arms: dict[str, list[str]] = {}
    for trial in trials:
        if why := why_not_recorded(trial.settings):
            arms.setdefault(why, []).append(trial.arm)
    named = {why: ", ".join(dict.fromkeys(names)) for why, names in arms.items()}
    return tuple(f"no CUDA graphs for {names}, which will be slower: {why}" for why, names in named.items())


def prepare(study: spec.Study, progress: datasets.DownloadProgress | None = None) -> tuple[datasets.Dataset, ...]:
    """Make sure that everything the trials need is available, and return the data sets of fairtrial's own loop.

    Data and weights are fetched and verified, users' models are tried, and their training loops are imported.

    Raises:
        DataError: data are missing or damaged.
        WeightsError: a weights file does not fit its model.
        StudyError: a training loop can't be found, the machine lacks a precision, or a user's model can't be trained on
            the data.
    """
    sources.forget()
    loaded: dict[spec.DataSettings, datasets.Dataset] = {}
    for settings in (arm.settings for arm in study.arms):
        find(settings.training.loop, fresh=True)
        if settings.training.loop != spec.BUILT_IN:
            continue
        precision.check(settings.training.precision, choose_device())
        data = datasets.unaugmented(settings.data)
        if data not in loaded:
            loaded[data] = datasets.load(data, progress=progress)
        augmentation.check(settings.data, loaded[data])
        if settings.model.needs_images and not loaded[data].has_images:
            advice = 'use another, such as model.name = "mlp"'
            raise StudyError(f'model.name = "{settings.model.name}": takes images, and {data.name} has none; {advice}')
        if problem := settings.batches_problem(len(loaded[data].train)):
            raise StudyError(problem)
        try_schedule(settings, math.ceil(len(loaded[data].train) / settings.training.batch_size))
        settings.model.fetch(progress)
        if ":" in settings.model.name + settings.data.name or settings.data.size is None:  # nobody has tried the two
            probe(settings, loaded[data])
        elif getattr(settings.model, "weights", None):
            build_network(settings.model, loaded[data], seed=0)
    return tuple(loaded.values())
