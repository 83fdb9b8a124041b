"""Charts of a study, one module each: first the data, tested as numbers, then the drawing."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

import altair as alt
import vl_convert
from PIL import Image

from fairtrial.errors import ReportError
from fairtrial.history import History
from fairtrial.registry import CHARTS, did_you_mean
from fairtrial.report.chart_options import ChartOptions, takers
from fairtrial.report.files import replace_document
from fairtrial.report.style import LINE, Theme, chart_text, config, header
from fairtrial.spec import Study
from fairtrial.spec.metrics import METRICS
from fairtrial.trial import TrialResult

Data = TypeVar("Data")
Drawing: TypeAlias = alt.LayerChart | alt.HConcatChart | alt.VConcatChart | alt.ConcatChart
Format: TypeAlias = Literal["png", "svg", "pdf"]

#: Dots per inch of a picture: three for each of its pixels on a screen.
PPI = 216


@dataclass(frozen=True)
class Words:
    """What a figure says beside its plot."""

    title: str
    lines: tuple[str, ...]  # below the title: the study's name, what is drawn how, and what is left out
    alt: str  # one sentence: what the picture shows, for readers who can't see it
    width: int = LINE  # characters that fit in a line


@dataclass(frozen=True)
class Chart(Generic[Data]):
    """One kind of chart; register it in `CHARTS`, and the command line and Python have it.

    ``data`` gets the study and its results, and ``draw`` the study and the data. Options that a chart takes, by their
    names in `ChartOptions`, are passed by keyword where they were chosen: ``measure`` and ``arms`` to ``data``,
    ``size`` and ``log`` to ``draw``.
    """

    name: str  # the stem of its files, such as "test_accuracy"
    data: Callable[..., Data]  # raises a `ReportError` with the reason if there is nothing
    draw: Callable[..., Drawing]  # with a title, unless there are ``words``
    about: str = ""  # what the table in docs/studies.md says of it
    has_verdicts: bool = False  # ``data`` also takes ``history=``, as `fairtrial.stats.comparison.compare` does
    words: Callable[[Study, Data], Words] | None = None
    options: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Figure:
    """A chart of one study, the stem of its files, and the data behind it. A notebook shows it.

    Attributes:
        name: the stem of its files.
        chart: the drawing, with its title.
        data: what is drawn.
        title: as in the drawing.
        caption: what is drawn how, and of which study: name and head of the hash.
        alt: one sentence that says in words what the picture shows.
    """

    name: str
    chart: Drawing
    data: Any
    title: str = ""
    caption: str = ""
    alt: str = ""

    def spec(self, theme: Theme = "light") -> dict[str, Any]:
        """Write the chart as Vega-Lite's JSON, for a light or a dark page."""
        return {**self.chart.to_dict(), "config": config(theme)}

    def __repr__(self) -> str:
        return f"<Figure {self.name}>"

    def _repr_mimebundle_(self, **_include_exclude: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give a notebook the interactive chart, and a picture if it can't draw that; neither loads anything."""
        major = alt.SCHEMA_VERSION.lstrip("v").partition(".")[0]
        spec = self.chart.to_dict()
        picture = _render(spec, "png")
        with Image.open(BytesIO(picture)) as image:
            width = round(image.width * 72 / PPI)
        data = {
            f"application/vnd.vegalite.v{major}+json": spec,
            "image/png": base64.b64encode(picture).decode(),
            "text/plain": self.alt or repr(self),
        }
        return data, {"image/png": {"width": width, "alt": self.alt}}


def draw(
    names: Iterable[str],
    study: Study,
    results: Sequence[TrialResult],
    *,
    history: History | None = None,
    options: ChartOptions | None = None,
) -> tuple[Figure, ...]:
    """Draw charts of a study.

    Names are entries of `CHARTS`, recorded metrics (for their learning curves), or ``"module:Name"`` of a user's own;
    without any, every chart is drawn that has data and takes the options that were chosen, and the curves of the
    metrics behind the study's measures.

    Raises:
        ReportError: there is no such chart, there are no data for it (if no name is given: for any), or it does not
            take an option.
        ValueError: a result is not of this study, or one trial is there twice.
    """
    options = (options or ChartOptions()).checked(study, results)
    chosen = options.chosen
    if wanted := list(names):
        charts = [_find(name, results) for name in wanted]
        for chart in charts:
            takers(chosen, chart.name, chart.options, [name for name in CHARTS.names() if _takes(name, chosen)])
        figures = [_figure(chart, study, results, history, options) for chart in charts]
    else:
        figures, reasons = [], []
        for chart in _usual(study, results):
            if chart.options.issuperset(chosen):
                try:
                    figures.append(_figure(chart, study, results, history, options))
                except ReportError as error:
                    reasons.append(str(error))
        if not figures:
            raise ReportError(f"{study.label}: nothing to draw: {'; '.join(dict.fromkeys(reasons))}")
    if options.title is not None and len(figures) > 1:
        drawn = ", ".join(figure.name for figure in figures)
        raise ReportError(f"title: {len(figures)} charts would get the same one; name one of {drawn}")
    return tuple(figures)


def write(figure: Figure, folder: Path) -> list[Path]:
    """Write ``NAME.png`` (216 dots per inch), ``NAME.svg`` and ``NAME.pdf`` to a folder, which is made if missing.

    A link of such a name is replaced, not followed. In the files' names, underscores stand for what could lead out of
    the folder: a metric may be called ``../loss``.

    Raises:
        ReportError: a file can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{folder}: can't be made: {error.strerror}") from error
    stem = re.sub(r"[^\w.-]", "_", figure.name)
    paths = {form: folder / f"{stem}.{form}" for form in get_args(Format)}
    spec = figure.chart.to_dict()
    for form, path in paths.items():
        replace_document(path, _render(spec, form))
    return list(paths.values())


def _takes(name: str, chosen: Iterable[str]) -> bool:
    return bool(CHARTS.get(name).options.issuperset(chosen))


def _find(name: str, results: Sequence[TrialResult]) -> Chart[Any]:
    from fairtrial.report.charts.learning_curves import learning_curves  # noqa: PLC0415  (which imports this module)

    recorded = _recorded(results)
    if name in CHARTS.names() or (":" in name and name not in recorded):
        chart: Chart[Any] = CHARTS.get(name)
        return chart
    if name not in recorded:
        raise ReportError(f'chart "{name}": {did_you_mean(name, [*CHARTS.names(), *recorded])}')
    return learning_curves(name, name=name)


def _recorded(results: Sequence[TrialResult]) -> list[str]:
    return sorted({metric for result in results for record in result.epochs for metric in record.metrics})


def _usual(study: Study, results: Sequence[TrialResult]) -> Iterator[Chart[Any]]:
    """The charts that are drawn unless some are named: all that are registered, and curves of the study's own metrics.

    What the metrics of a measure are that a user has programmed, may be unknown: then the curves of all are drawn that
    fairtrial's own loop does not record.
    """
    from fairtrial.report.charts.learning_curves import learning_curves  # noqa: PLC0415  (which imports this module)

    yield from map(CHARTS.get, CHARTS.names())
    recorded, asked = _recorded(results), [study.measure(name).metrics for name in study.evidence.directions]
    own = [name for metrics in asked for name in metrics]
    own += [] if all(asked) else [name for name in recorded if name not in METRICS]
    for name in dict.fromkeys(own):
        if name in recorded and name not in {"test_acc", "train_loss"}:
            yield learning_curves(name, name=name)


def _figure(
    chart: Chart[Data], study: Study, results: Sequence[TrialResult], history: History | None, options: ChartOptions
) -> Figure:
    chosen = {name: value for name, value in options.chosen.items() if name in chart.options}
    own = {name: chosen.pop(name) for name in ("measure", "arms") if name in chosen}
    data = chart.data(study, results, **({"history": history} if chart.has_verdicts else {}), **own)
    drawing = chart.draw(study, data, **chosen)
    if chart.words is None:
        found = drawing.to_dict().get("title", "")
        text = found.get("text", "") if isinstance(found, dict) else found
        title = " ".join([text] if isinstance(text, str) else text) or chart.name
        words = Words(title, (), f"The chart {chart.name} of the study {study.name}: {title}.")
    else:
        words = chart.words(study, data)
    title = words.title if options.title is None else options.title
    if chart.words is not None or options.title is not None:
        drawing.title = header(title, *words.lines, width=words.width)
    caption = " ".join([*words.lines, f"Study: {study.label}."])
    return Figure(chart.name, drawing, data, *map(chart_text, (title, caption, words.alt)))


def _render(spec: dict[str, Any], form: Format) -> bytes:
    text = json.dumps(spec)
    if form == "svg":
        return vl_convert.vegalite_to_svg(text).encode()
    return vl_convert.vegalite_to_png(text, ppi=PPI) if form == "png" else vl_convert.vegalite_to_pdf(text)
