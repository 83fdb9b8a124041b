"""What the charts of verdicts share: the band of the margin, and what a mark says that is pointed at."""

from fairtrial.report.axes import Span, clipped
from fairtrial.report.words import percent
from fairtrial.stats.comparison import StudyVerdict


def margin_span(found: StudyVerdict) -> Span:
    """The differences that do not matter, as they are drawn: on both sides, or on the worse side alone."""
    end = (found.margin or 0.0) * found.unit.factor
    low = 0.0 if found.one_sided and not found.larger_is_better else -end
    return low, 0.0 if found.one_sided and found.larger_is_better else end


def margin_row(found: StudyVerdict, domain: Span) -> dict[str, object]:
    """The row of the margin's band, as far as an axis shows it."""
    start, end = clipped(margin_span(found), domain)
    return {"start": start, "end": end, "margin": found.unit.amount(found.margin or 0.0)}


def in_tooltip(found: StudyVerdict, interval: Span | None, mean: float | None) -> dict[str, str]:
    """What a bar says that is pointed at: its mean and the interval's ends, also where the axis cuts them off.

    Args:
        found: the verdicts, which have the interval's level and the unit.
        interval: in the measure's own unit, as `mean`.
        mean: the difference.
    """
    unit, level = f" ({found.unit.difference})".removesuffix(" ()"), percent(1 - found.interval_alpha)
    said = {} if mean is None else {f"mean difference{unit}": found.unit.number(mean)}
    said |= {f"{level} interval{unit}": found.unit.between(*interval)} if interval else {}
    return {key: text.replace("-", "−") for key, text in said.items()}
