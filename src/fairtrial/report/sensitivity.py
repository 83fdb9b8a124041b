"""How a measure depends on each setting, as sentences below the verdicts and as the tables that JSON is made of."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from fairtrial.measures import measure
from fairtrial.report.grid import Grid, label
from fairtrial.report.words import number_text, percent
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.paired import fate
from fairtrial.stats.sensitivity import Level, Sensitivity


def sensitivity_grid(data: StudyVerdict, found: Sequence[Sensitivity]) -> Grid:
    """Lay out what was found for each setting: how much the measure changes, which values are what, which are best."""
    title = f"{label(data)}: {measure(data.metric).label}, by setting"
    return Grid(title, (), tuple(_notes(data)), tuple("; ".join(_sentence(data, each)) for each in found))


def _sentence(data: StudyVerdict, found: Sensitivity) -> Iterator[str]:
    ends = f"{found.name} from {number_text(found.levels[0].value)} to {number_text(found.levels[-1].value)}"
    if found.spread is None:
        yield f"{ends}: fewer than three values have an interval, so there is no curve"
    elif found.spread[0] > 0.0:
        yield f"{ends}: best and worst differ by {data.unit.between(*found.spread)} {data.unit.difference}".rstrip()
    else:
        yield f"{ends}: best and worst differ by at most {data.unit.amount(found.spread[1])}"
    if found.twice is not None:
        yield f"two arms have {number_text(found.twice)}, as an integer and as a fraction, so there is no curve"
    compared = [level for level in found.levels if level.verdict != "reference" or level.lost]
    for word, levels in groupby(compared, key=_word):
        yield f"{word} at {_range(list(levels))}"
    if found.best:
        runs = [
            _range(list(levels)) for may, levels in groupby(found.levels, key=lambda one: one.arm in found.best) if may
        ]
        yield f"the best is {' or '.join(runs)}{', or beyond' if found.at_the_edge else ''}"


def _word(level: Level) -> str:
    """Say what a level is, with what happened to it if it lost trials."""
    lost = [f"{number} {fate(how)}" for how, number in level.lost.items()]
    return f"{level.verdict} ({', '.join(lost)})" if lost else level.verdict


def _range(levels: Sequence[Level]) -> str:
    first, last = number_text(levels[0].value), number_text(levels[-1].value)
    return first if first == last else f"{first} to {last}"


def _notes(data: StudyVerdict) -> Iterator[str]:
    level = percent(1 - data.interval_alpha)
    yield (
        "Best and worst: of the true means at these values. The best is among the values named, up to ties. Both "
        f"follow from the intervals above, and hold with the same {level} probability."
    )
    yield "A value at which trials were lost is left out of both. What lies between the values was not measured."


def sensitivity_table(found: Sensitivity) -> dict[str, Any]:
    """Lay one setting out as programs read it."""
    return {
        "setting": found.key,
        "scale": found.scale,
        "levels": [vars(level) | {"lost": dict(level.lost)} for level in found.levels],
        "spread": found.spread,
        "best": [level.value for level in found.candidates],
        "curve": None if found.curve is None else vars(found.curve),
    }
