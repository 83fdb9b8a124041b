"""How far long computations are: told to whoever shows it, and to nobody otherwise."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

#: Called often, with the steps done, the steps in all, and what they compute.
ComputationProgress: TypeAlias = Callable[[int, int, str], None]

_SHOWN_BY: ContextVar[ComputationProgress | None] = ContextVar("shown_by", default=None)


@contextmanager
def shown_by(show: ComputationProgress) -> Iterator[None]:
    """Tell this of all computations within the context, instead of what was told before.

    Example:
        >>> seen = []
        >>> with shown_by(lambda done, total, what: seen.append(f"{what} {done}/{total}")):
        ...     report(1, 2, "levels")
        >>> seen
        ['levels 1/2']
    """
    token = _SHOWN_BY.set(show)
    try:
        yield
    finally:
        _SHOWN_BY.reset(token)


def steps(items: Collection[T], what: str) -> Iterator[T]:
    """Iterate, and tell how far that is."""
    for done, item in enumerate(items):
        report(done, len(items), what)
        yield item
    report(len(items), len(items), what)


def report(done: int, total: int, what: str) -> None:
    """Tell how far a computation is; after its last step ``done`` is ``total``."""
    if (show := _SHOWN_BY.get()) is not None:
        show(done, total, what)


def progress_text(trials: int, outcomes: Mapping[Any, int], started: int, *, sequential: bool) -> str:
    """Write how far a study is: ``7 of 10 trials, 1 diverged, 1 interrupted or running``."""
    parts = [f"{sum(outcomes.values())} of {'at most ' if sequential else ''}{trials} trials"]
    parts += [f"{number} {outcome}" for outcome, number in outcomes.items() if number and outcome != "finished"]
    parts += [f"{started} interrupted or running"] if started else []
    return ", ".join(parts)
