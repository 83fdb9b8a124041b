"""What to try next: values of an arm's tuned keys, proposed by Optuna's samplers or taken from a grid."""

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from fairtrial.errors import FairtrialError
from fairtrial.spec.tuning import Range, Tuning, Value, Values


class OptunaMissingError(FairtrialError):
    """A sampler of Optuna's is wanted, and Optuna is not installed."""


class Proposals(Protocol):
    """Proposes values for one arm. The same calls with the same results give the same values."""

    def ask(self, number: int) -> Sequence[Values]:
        """Propose so many values at once."""

    def tell(self, results: Sequence[float | None]) -> None:
        """Report what the values that were proposed last gave, in their order; None for no value at all."""


def proposals(tuning: Tuning, arm: str, *, larger_is_better: bool) -> Proposals:
    """Make what proposes values for an arm; all arms of a study begin with the same ones, if they have the same ranges.

    Raises:
        OptunaMissingError: Optuna is missing.
    """
    if tuning.sampler == "grid":
        return _Grid(tuning, arm)
    return _Sampler(tuning, arm, larger_is_better=larger_is_better)


class _Grid:
    """All combinations of listed values, the last key's first."""

    def __init__(self, tuning: Tuning, arm: str) -> None:
        space = tuning.space_of(arm)
        points = itertools.product(*(one.values or () for one in space.values()))
        self._points = (dict(zip(space, point, strict=True)) for point in points)

    def ask(self, number: int) -> Sequence[Values]:
        return list(itertools.islice(self._points, number))

    def tell(self, results: Sequence[float | None]) -> None:
        """A grid learns nothing."""


class _Sampler:
    """A sampler of Optuna's. A trial without a value counts as worse than any other."""

    def __init__(self, tuning: Tuning, arm: str, *, larger_is_better: bool) -> None:
        self._optuna = _optuna()
        self._space = tuning.space_of(arm)
        self._worst = -math.inf if larger_is_better else math.inf
        samplers, seed = self._optuna.samplers, tuning.sampler_seed
        with _quiet(self._optuna):
            sampler = {
                "tpe": lambda: samplers.TPESampler(seed=seed, n_startup_trials=10, constant_liar=True),
                "random": lambda: samplers.RandomSampler(seed=seed),
                "qmc": lambda: samplers.QMCSampler(
                    seed=seed, scramble=True, independent_sampler=samplers.RandomSampler(seed=seed)
                ),
            }[tuning.sampler]()
            direction = "maximize" if larger_is_better else "minimize"
            self._study = self._optuna.create_study(sampler=sampler, direction=direction)
        self._asked: list[Any] = []

    def ask(self, number: int) -> Sequence[Values]:
        with _quiet(self._optuna):
            self._asked, found = [], []
            for _ in range(number):  # one after the other: each trial sees the values of those before it
                self._asked.append(trial := self._study.ask())
                found.append({key: _suggest(trial, key, one) for key, one in self._space.items()})
            return found

    def tell(self, results: Sequence[float | None]) -> None:
        with _quiet(self._optuna):
            for trial, result in zip(self._asked, results, strict=True):
                self._study.tell(trial, self._worst if result is None else result)


def _suggest(trial: Any, key: str, one: Range) -> Value:
    """Draw a value; numbers get four significant digits, which are enough to tune by and can be typed again."""
    if one.values is not None:
        return one.values[trial.suggest_categorical(key, list(range(len(one.values))))]
    low, high = one.ends
    if one.integer:
        return trial.suggest_int(key, int(low), int(high), log=one.log is not None)
    value = float(f"{trial.suggest_float(key, low, high, log=one.log is not None):.4g}")
    return min(max(value, low), high)


def _optuna() -> Any:
    """Import Optuna, which takes a second and is needed for tuning alone."""
    try:
        import optuna  # noqa: PLC0415
    except ImportError as error:
        hint = 'pip install "fairtrial[tune]", or write tuning.sampler = "grid"'
        raise OptunaMissingError(f"tuning needs Optuna: {hint}") from error
    return optuna


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keep Optuna from logging each trial, and from warning that a sampler of its may still change."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
