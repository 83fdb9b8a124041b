"""Charts of a study, one module each: first the data, tested as numbers, then the drawing."""

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.history import History
from fairtrial.registry import CHARTS, did_you_mean
from fairtrial.report.files import write_document
from fairtrial.spec import Study
from fairtrial.trial import TrialResult

Data = TypeVar("Data")
Drawing: TypeAlias = alt.LayerChart | alt.HConcatChart | alt.ConcatChart
Format: TypeAlias = Literal["png", "svg", "pdf"]


@dataclass(frozen=True)
class Chart(Generic[Data]):
    """One kind of chart; register it in `CHARTS`, and the command line and Python have it."""

    name: str  # the stem of its files, such as "test_accuracy"
    data: Callable[
        ..., Data
    ]  # called with the study and its results; raises a `ReportError` with the reason if there is nothing
    draw: Callable[[Study, Data], Drawing]  # with a title
    about: str = ""  # what the table in docs/studies.md says of it
    has_verdicts: bool = False  # ``data`` also takes ``history=``, as `fairtrial.stats.comparison.compare` does


@dataclass(frozen=True)
class Figure:
    """A chart of one study, the stem of its files, and the data behind it. A notebook shows it."""

    name: str
    chart: Drawing
    data: Any

    def __repr__(self) -> str:
        return f"<Figure {self.name}>"

    def _repr_mimebundle_(self, **_include_exclude: object) -> dict[str, Any]:
        """Give a notebook the interactive chart, and a picture if it can't draw that; neither loads anything."""
        major = alt.SCHEMA_VERSION.lstrip("v").partition(".")[0]
        picture = base64.b64encode(_render(self.chart, "png")).decode()
        return {f"application/vnd.vegalite.v{major}+json": self.chart.to_dict(), "image/png": picture}


def draw(
    names: Iterable[str], study: Study, results: Sequence[TrialResult], *, history: History | None = None
) -> tuple[Figure, ...]:
    """Draw charts of a study.

    Names are entries of `CHARTS`, recorded metrics (for their learning curves), or ``"module:Name"`` of a user's own;
    without any, every chart that has data is drawn.

    Raises:
        ReportError: there is no such chart, or there are no data for it (if no name is given: for any).
        ValueError: a result is not of this study, or one trial is there twice.
    """
    if wanted := list(names):
        return tuple(_figure(_find(name, results), study, results, history) for name in wanted)
    figures, reasons = [], []
    for name in CHARTS.names():
        try:
            figures.append(_figure(CHARTS.get(name), study, results, history))
        except ReportError as error:
            reasons.append(str(error))
    if not figures:
        raise ReportError(f"{study.label}: nothing to draw: {'; '.join(reasons)}")
    return tuple(figures)


def write(figure: Figure, folder: Path) -> list[Path]:
    """Write ``NAME.png`` (216 dots per inch), ``NAME.svg`` and ``NAME.pdf`` to a folder, which is made if missing.

    In the files' names, underscores stand for what could lead out of the folder: a metric may be called ``../loss``.

    Raises:
        ReportError: a file can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{folder}: can't be made: {error.strerror}") from error
    stem = re.sub(r"[^\w.-]", "_", figure.name)
    paths = {form: folder / f"{stem}.{form}" for form in get_args(Format)}
    for form, path in paths.items():
        write_document(path, _render(figure.chart, form))
    return list(paths.values())


def _find(name: str, results: Sequence[TrialResult]) -> Chart[Any]:
    from fairtrial.report.charts.learning_curves import learning_curves  # noqa: PLC0415  (which imports this module)

    recorded = sorted({metric for result in results for record in result.epochs for metric in record.metrics})
    if name in CHARTS.names() or (":" in name and name not in recorded):
        chart: Chart[Any] = CHARTS.get(name)
        return chart
    if name not in recorded:
        raise ReportError(f'chart "{name}": {did_you_mean(name, [*CHARTS.names(), *recorded])}')
    return learning_curves(name, name=name)


def _figure(chart: Chart[Data], study: Study, results: Sequence[TrialResult], history: History | None) -> Figure:
    data = chart.data(study, results, **({"history": history} if chart.has_verdicts else {}))
    return Figure(chart.name, chart.draw(study, data), data)


def _render(chart: Drawing, form: Format) -> bytes:
    if form == "svg":
        text = StringIO()
        chart.save(text, format=form)
        return text.getvalue().encode()
    out = BytesIO()
    chart.save(out, format=form, ppi=216)
    return out.getvalue()
