"""The type of a measure and its lookup by name; the measures themselves are entries in `fairtrial.measures`."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from fairtrial.registry import MEASURES
from fairtrial.spec.metrics import Direction, Metric, Unit, finite, may_be_metric

if TYPE_CHECKING:  # trial imports spec
    from fairtrial.spec.evidence import Target
    from fairtrial.trial import EpochRecord

#: Computes one number of a whole trial from its epoch records in order; None if it can't. A measure that needs a target
#: gets it as the second argument.
Compute: TypeAlias = Callable[..., float | None]


@dataclass(frozen=True)
class Measure:
    """One number of a whole trial.

    Attributes:
        name: its name in studies.
        label: its name in reports: ``"best test accuracy"``.
        unit: its unit in reports.
        direction: which way is better; None if the study must set it.
        compute: gets a trial's epoch records in order, and the target if it needs one. None: the trial did not
            report what it needs; NaN, an infinity or a number beyond 1e99: the trial counts as lost.
        metrics: what the epochs must record for it.
        column: lines of its column head in every study's table; if empty, only a study that compares arms on the
            measure shows it.
        note: a caveat, one sentence.
        needs_target: whether it depends on the study's target.
        aliases: other names that studies may use.
        epochs: how many epochs a trial must have for it.

    Example:
        >>> from fairtrial.spec.metrics import PLAIN
        >>> from fairtrial.trial import EpochRecord
        >>> last = Measure("last_f1", "last F1", PLAIN, "higher", lambda epochs: epochs[-1].metrics["f1"])
        >>> last.of([EpochRecord("a", 0, 1, {"f1": 0.4})])
        0.4
    """

    name: str
    label: str
    unit: Unit
    direction: Direction | None
    compute: Compute = field(compare=False)
    metrics: tuple[str, ...] = ()
    column: tuple[str, ...] = ()
    note: str = ""
    needs_target: bool = False
    aliases: tuple[str, ...] = ()
    epochs: int = 1

    @property
    def about(self) -> str:
        """What the table in docs/studies.md says of it."""
        return self.compute.__doc__ or ""

    def of(self, epochs: "Sequence[EpochRecord]", target: "Target | None" = None) -> float | None:
        """Measure a trial from its epoch records in order; never NaN, infinite or too large to compare."""
        return finite(self._computed(epochs, target))

    def is_broken(self, epochs: "Sequence[EpochRecord]", target: "Target | None" = None) -> bool:
        """Tell whether the records give NaN, an infinity or a number too large to compare."""
        value = self._computed(epochs, target)
        return value is not None and finite(value) is None

    def _computed(self, epochs: "Sequence[EpochRecord]", target: "Target | None") -> float | None:
        if self.needs_target and target is None:
            raise ValueError(f"{self.name} needs a target")
        return self.compute(epochs, target) if self.needs_target else self.compute(epochs)

    @property
    def head(self) -> tuple[str, ...]:
        """The head of its column; two lines of about the same length by default."""
        if self.column:
            return self.column
        words = f"{self.label} ({self.unit.name})".removesuffix(" ()").split()
        cut = min(range(len(words)), key=lambda cut: max(len(" ".join(part)) for part in (words[:cut], words[cut:])))
        return tuple(" ".join(part) for part in (words[:cut], words[cut:]) if part)


#: Makes a measure for each recorded metric. The entry's name is a pattern: NAME is the metric, and K an integer of at
#: least 1, which the family gets as well.
Family: TypeAlias = Callable[..., Measure]


def find_measure(
    name: str, direction: Direction | None = None, declared: Mapping[str, Metric] | None = None
) -> Measure | None:
    """Find a measure by an entry's name or alias, a family's pattern, or ``"module:Name"``; None if there is none.

    Args:
        name: what a study calls it.
        direction: the study's better one, for a measure that does not imply one.
        declared: the metrics that the study declares, by name; see `Study.measure`.

    Raises:
        UnknownNameError: a `StudyError`: a ``module:Name`` can't be imported or is no measure.

    Example:
        >>> find_measure("best_test_acc").label, find_measure("best_of_all") is None
        ('best test accuracy', False)
    """
    if ":" in name:
        own: Measure = MEASURES.get(name)
        return own
    for pattern, entry in _entries():
        if isinstance(entry, Measure):
            if name == entry.name or name in entry.aliases:
                return entry
        elif (found := _fits(pattern, name)) is not None:
            name_of_metric, numbers = found
            metric = (declared or {}).get(name_of_metric) or Metric.named(name_of_metric)
            return entry(replace(metric, direction=metric.direction or direction), *numbers)
    return None


def better(name: str, declared: Mapping[str, Metric] | None = None) -> Direction | None:
    """Tell which direction of a measure or metric is better; None if its name and the study's metrics don't say.

    Example:
        >>> better("best_test_acc"), better("train_loss"), better("final_grad_norm")
        ('higher', 'lower', None)
    """
    if found := find_measure(name, declared=declared):
        return found.direction
    return ((declared or {}).get(name) or Metric.named(name)).direction


def measures_of(metrics: Iterable[str]) -> Iterator[str]:
    """Name the measures of trials whose epochs record these metrics, with K = 3."""
    recorded = list(metrics)
    for pattern, entry in _entries():
        if not isinstance(entry, Measure):
            names = [pattern.replace("K", "3").replace("NAME", metric) for metric in recorded]
            yield from (name for name in names if (found := find_measure(name)) and set(found.metrics) <= set(recorded))
        elif set(entry.metrics) <= set(recorded):
            yield entry.name


def _entries() -> Iterator[tuple[str, Measure | Family]]:
    return ((name, MEASURES.get(name)) for name in MEASURES.names())


def _fits(pattern: str, name: str) -> tuple[str, list[int]] | None:
    """Parse NAME, and K if there is one, from a name that fits a family's pattern."""
    found = re.fullmatch(pattern.replace("NAME", "(?P<NAME>.+)").replace("K_", "([1-9][0-9]{0,6})_"), name)
    if not found or not may_be_metric(found["NAME"]):
        return None
    return found["NAME"], [int(number) for number in found.groups() if number != found["NAME"]]
