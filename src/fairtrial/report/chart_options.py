"""What may be chosen of a chart: the measure, the arms, its size, its title and a logarithmic axis."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from fairtrial.errors import ReportError
from fairtrial.registry import did_you_mean
from fairtrial.spec import Study
from fairtrial.spec.measures import find_measure
from fairtrial.spec.messages import show
from fairtrial.trial import TrialResult

#: Pixels of a plot's width and height.
Size: TypeAlias = tuple[int, int]

#: The least and most pixels of a plot's width or height, and the longest title in characters.
SMALLEST, LARGEST, LONGEST_TITLE = 80, 4000, 200


@dataclass(frozen=True)
class ChartOptions:
    """Choices for charts; the default of each is what a chart does by itself.

    Attributes:
        measure: the measure that arms are compared on, or the metric whose curves are drawn.
        arms: those that are drawn, by name or label; all of them if empty.
        size: width and height in pixels (72 to the inch) of the plot, or of each of its panels, without what is
            around them.
        title: in place of the chart's own.
        log: whether the axis of the metric, or of time, is logarithmic.
    """

    measure: str | None = None
    arms: tuple[str, ...] = ()
    size: Size | None = None
    title: str | None = None
    log: bool = False

    @classmethod
    def of(cls, study: Study, **options: Any) -> "ChartOptions":
        """Take options as a user gives them: one arm or several, by name or label; a size also as ``"600x400"``.

        Raises:
            ReportError: the size is none.
        """
        labels = {arm.name: arm.label or arm.name for arm in study.arms}
        arms, size = options.get("arms", ()), options.get("size")
        names = [arms] if isinstance(arms, str) else arms
        options |= {"arms": tuple(labels.get(arm, arm) for arm in names)}
        return cls(**options | ({"size": parse_size(size)} if isinstance(size, str) else {}))

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that were given and change what is drawn, by name."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "title"}
        return {name: value for name, value in given.items() if value not in (None, (), False)}

    def checked(self, study: Study, results: Sequence[TrialResult]) -> "ChartOptions":
        """Check them against a study, and name arms as it does.

        Raises:
            ReportError: there is no such arm or measure, the size or the title is impossible.
        """
        for arm in self.arms:
            if arm not in (known := [one.name for one in study.arms]):
                raise ReportError(f"arm {show(arm)}: {did_you_mean(arm, known)}")
        if self.size is not None and not _possible(self.size):
            raise ReportError(
                f"size = {show(list(self.size))}: must be two integers, width and height in pixels, "
                f"each from {SMALLEST} to {LARGEST}"
            )
        if self.title is not None and not 0 < len(self.title.strip()) <= LONGEST_TITLE:
            raise ReportError(f"title = {show(self.title[:40])}: must have 1 to {LONGEST_TITLE} characters")
        if self.measure is not None:
            _check_measure(self.measure, study, results)
        return self


def parse_size(text: str) -> Size:
    """Read a size: ``600x400``.

    Raises:
        ReportError: it is none.

    Example:
        >>> parse_size("600x400")
        (600, 400)
    """
    found = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", text, re.ASCII)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not _possible(size):
        raise ReportError(
            f"size = {show(text[:40])}: must be WIDTHxHEIGHT in pixels, such as 600x400, "
            f"each from {SMALLEST} to {LARGEST}"
        )
    return size


def takers(chosen: Collection[str], name: str, taken: Collection[str], others: Sequence[str]) -> None:
    """Refuse options that a chart does not take.

    Raises:
        ReportError: names the first of them, and the charts that take it.
    """
    for option in chosen:
        if option not in taken:
            which = ", ".join(others) or "none of the charts here"
            raise ReportError(f"{_WORDS[option]}: the chart {show(name)} does not take it; these do: {which}")


_WORDS = {"measure": "--measure", "arms": "--arm", "size": "--size", "log": "--log"}


def _possible(size: object) -> bool:
    pair = isinstance(size, tuple | list) and len(size) == 2
    return pair and all(type(one) is int and SMALLEST <= one <= LARGEST for one in size)  # type: ignore[attr-defined]


def _check_measure(name: str, study: Study, results: Sequence[TrialResult]) -> None:
    """Refuse a name that is neither a measure nor a metric that some trial has recorded."""
    recorded = {metric for result in results for record in result.epochs for metric in record.metrics}
    if name in recorded:
        return
    found = find_measure(name)
    if found is None or not recorded.issuperset(found.metrics):
        usual = [f"{kind}_{metric}" for metric in sorted(recorded) for kind in ("best", "final")]
        raise ReportError(
            f"measure {show(name)}: {did_you_mean(name, [study.evidence.metric, *usual, *sorted(recorded)])}"
        )
