"""A chart as markup: interactive, as a picture where there is no script and in print, in words, and as a table."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import vl_convert
from markupsafe import Markup

from fairtrial.report.charts import Figure
from fairtrial.report.page.behind import Behind, behind, seed_rows
from fairtrial.report.page.environment import render
from fairtrial.report.style import config
from fairtrial.spec import Study

#: Attributes of an SVG that draw, and numbers in them with more than a hundredth of a pixel.
_DRAWN = re.compile(r' (?:d|transform)="[^"]*"')
_LONG = re.compile(r"-?\d+\.\d{3,}(?![\de])")


@dataclass(frozen=True)
class Picture:
    """A chart as an SVG in a data URI, which runs no script and shares no names with the page."""

    source: str
    width: int  # pixels
    height: int


@dataclass(frozen=True)
class Shown:
    """All that the template of a chart needs."""

    identifier: str
    title: str
    caption: str
    alt: str
    picture: Picture
    content: Mapping[str, Any]  # what the page's script reads
    table: Behind


def figure_markup(figure: Figure, study: Study, identifier: str = "", *, level: int = 3) -> Markup:
    """Write a chart as an HTML figure with its title as a heading.

    Args:
        figure: the chart.
        study: its study, under the labels that the chart shows.
        identifier: the element's id, by default made of the figure's name.
        level: of the heading.
    """
    return render("figure.html", figure=_shown(figure, study, identifier), level=level)


def figure_choice(
    figures: Sequence[tuple[str, Figure]], study: Study, identifier: str, *, asked: str = "Measure", level: int = 3
) -> Markup:
    """Write several charts of which one is shown at a time, and what chooses it; without a script all are shown.

    Args:
        figures: what a reader chooses by, and the chart; the first is shown.
        study: their study, under the labels that the charts show.
        identifier: the id of the element around them.
        asked: what there is to choose.
        level: of the headings.
    """
    shown = [(label, _shown(figure, study, f"{identifier}-{at}")) for at, (label, figure) in enumerate(figures)]
    return render("choice.html", identifier=_identifier(identifier), asked=asked, choices=shown, level=level)


def _shown(figure: Figure, study: Study, identifier: str) -> Shown:
    spec = figure.spec()
    spec.pop("title", None)  # the page has it as a heading
    spec["datasets"] = {name: lean(rows) for name, rows in spec.get("datasets", {}).items()}
    title = figure.title or figure.name
    content = {"spec": spec, "dark": config("dark"), "seeds": lean(seed_rows(figure, study))}
    identifier = _identifier(identifier or f"figure-{figure.name}")
    table = behind(figure, study)
    return Shown(identifier, title, figure.caption, figure.alt or title, _picture(spec), content, table)


def lean(rows: object) -> object:
    """Round the numbers of a chart's rows, given as JSON text or as rows, to six digits: more are not seen.

    Example:
        >>> lean('[{"arm": "a", "y": 61.950684993777244}]')
        [{'arm': 'a', 'y': 61.9507}]
    """
    return _shorter(json.loads(rows) if isinstance(rows, str) else rows)


def _shorter(value: object) -> object:
    if isinstance(value, list):
        return [_shorter(item) for item in value]
    if isinstance(value, dict):
        return {key: _shorter(item) for key, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def _picture(spec: Mapping[str, Any]) -> Picture:
    svg = vl_convert.vegalite_to_svg(json.dumps(spec))
    size = re.search(r'width="([\d.]+)" height="([\d.]+)"', svg)
    assert size is not None  # Vega writes both
    svg = _DRAWN.sub(lambda found: _LONG.sub(lambda digits: f"{float(digits[0]):.2f}", found[0]), svg)
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return Picture(source, round(float(size[1])), round(float(size[2])))
