"""Charts of a study, one module each: first the data, tested as numbers, then the drawing."""

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.registry import CHARTS, did_you_mean
from fairtrial.report.files import write_document
from fairtrial.spec import Study
from fairtrial.trial import TrialResult

Data = TypeVar("Data")
Drawing: TypeAlias = alt.LayerChart | alt.HConcatChart
Format = Literal["png", "svg", "pdf"]

#: A PNG's pixels per pixel of the specification; with 72 of those to an inch, 216 dots per inch.
SCALE = 3


@dataclass(frozen=True)
class Chart(Generic[Data]):
    """One kind of chart; register it in `CHARTS`, and the command line and Python have it.

    Attributes:
        name: the stem of its files, such as ``"test_accuracy"``.
        title: above the drawing.
        data: collects what is drawn; raises a `ReportError` with the reason if there is nothing.
        draw: draws it.
    """

    name: str
    title: str
    data: Callable[[Study, Sequence[TrialResult]], Data]
    draw: Callable[[Study, Data], Drawing]


@dataclass(frozen=True)
class Figure:
    """A chart of one study, the stem of its files, and the data behind it. A notebook shows it."""

    name: str
    chart: Drawing
    data: Any

    def _repr_mimebundle_(self, **_include_exclude: object) -> dict[str, Any]:
        """Give a notebook the interactive chart, and a picture if it can't draw that; neither loads anything."""
        major = alt.SCHEMA_VERSION.lstrip("v").partition(".")[0]
        picture = base64.b64encode(_render(self.chart, "png")).decode()
        return {f"application/vnd.vegalite.v{major}+json": self.chart.to_dict(), "image/png": picture}


def draw(names: Iterable[str], study: Study, results: Sequence[TrialResult]) -> tuple[Figure, ...]:
    """Draw charts of a study.

    Args:
        names: entries of `CHARTS`, recorded metrics (for their learning curves), or ``"module:Name"`` of a user's own;
            if empty, every chart that has data.
        study: the study.
        results: its trials, in any order.

    Raises:
        ReportError: there is no such chart, or there are no data for it (if no name is given: for any).
        ValueError: a result is not of this study, or one trial is there twice.
    """
    if wanted := list(names):
        return tuple(_figure(_find(name, results), study, results) for name in wanted)
    figures, reasons = [], []
    for name in CHARTS.names():
        try:
            figures.append(_figure(CHARTS.get(name), study, results))
        except ReportError as error:
            reasons.append(str(error))
    if not figures:
        raise ReportError(f"{study.label}: nothing to draw: {'; '.join(reasons)}")
    return tuple(figures)


def write(figure: Figure, folder: Path, formats: Sequence[Format] = ("png", "svg", "pdf")) -> list[Path]:
    """Write a figure's files, ``NAME.png`` (216 dots per inch) and so on; the folder is made if it is missing.

    Returns:
        The files, in the order of the formats.

    Raises:
        ReportError: an unknown format, or a file that can't be written.
    """
    for each in formats:
        if each not in get_args(Format):
            raise ReportError(f'figure format "{each}": must be one of {", ".join(get_args(Format))}')
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{folder}: can't be made: {error.strerror}") from error
    paths = {folder / f"{figure.name}.{each}": each for each in formats}
    for path, each in paths.items():
        write_document(path, _render(figure.chart, each))
    return list(paths)


def _find(name: str, results: Sequence[TrialResult]) -> Chart[Any]:
    from fairtrial.report.charts.learning_curves import learning_curves  # noqa: PLC0415  (which imports this module)

    if ":" in name or name in CHARTS.names():
        chart: Chart[Any] = CHARTS.get(name)
        return chart
    recorded = sorted({metric for result in results for record in result.epochs for metric in record.metrics})
    if name not in recorded:
        raise ReportError(f'chart "{name}": {did_you_mean(name, [*CHARTS.names(), *recorded])}')
    return learning_curves(name, name=name)


def _figure(chart: Chart[Data], study: Study, results: Sequence[TrialResult]) -> Figure:
    data = chart.data(study, results)
    return Figure(chart.name, chart.draw(study, data), data)


def _render(chart: Drawing, format: Format) -> bytes:  # noqa: A002
    if format == "svg":
        text = StringIO()
        chart.save(text, format="svg")
        return text.getvalue().encode()
    out = BytesIO()
    chart.save(out, format=format, ppi=72 * SCALE)
    return out.getvalue()
