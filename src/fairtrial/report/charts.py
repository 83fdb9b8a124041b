"""The paper's figures: test accuracy and training loss per epoch, a line an arm, with a band over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Literal, get_args

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.report.curves import CurveData, curve_data
from fairtrial.report.drawing import ChartKind, draw
from fairtrial.report.files import write_atomically
from fairtrial.spec import Study
from fairtrial.trial import TrialResult

Format = Literal["png", "svg", "pdf"]

#: A PNG's pixels per pixel of the specification; with 72 of those to an inch, 216 dots per inch.
SCALE = 3


@dataclass(frozen=True)
class Figure:
    """A figure and the data that it was drawn from.

    Attributes:
        name: what its files are called, such as ``"test_accuracy"``.
        chart: the drawing.
        data: the numbers behind it.
    """

    name: str
    chart: alt.HConcatChart
    data: CurveData


#: Figure 1 and Figure 2 of the paper.
_KINDS = (
    ChartKind("test_accuracy", "test_acc", "Test accuracy per epoch", "Test accuracy (%)", 100, bounded=True),
    ChartKind("training_loss", "train_loss", "Training loss per epoch", "Training loss (nats)", 1, bounded=False),
)


def figures(study: Study, results: Sequence[TrialResult]) -> tuple[Figure, ...]:
    """Draw Figure 1, ``test_accuracy``, and Figure 2, ``training_loss``.

    A line is the mean over an arm's finished trials, the band around it runs from the lowest seed to the highest: with
    two or three seeds that is all the data there are, and promises nothing more. A diverged trial is a faint line that
    ends in a cross. Failed and unfinished trials are left out, and the figure says so.

    Args:
        study: the study.
        results: its trials, in any order.

    Returns:
        The figures that there are data for; a training loop of the user's own may not report both metrics.

    Raises:
        ReportError: there are data for neither.
        ValueError: a result is not of this study, or one trial is there twice.
    """
    pairs = [(kind, curve_data(study, results, kind.metric)) for kind in _KINDS]
    drawn = tuple(Figure(kind.name, draw(study, data, kind), data) for kind, data in pairs if not data.empty)
    if not drawn:
        metrics = " or ".join(f"`{kind.metric}`" for kind in _KINDS)
        raise ReportError(f"{study.label}: nothing to draw: no finished or diverged trial has recorded {metrics}")
    return drawn


def write(figure: Figure, folder: Path, formats: Sequence[Format] = ("png", "svg", "pdf")) -> list[Path]:
    """Write a figure's files, ``NAME.png`` and so on; the folder is made if it is missing.

    Args:
        figure: one of `figures`.
        folder: where to.
        formats: of ``"png"`` (216 dots per inch), ``"svg"`` and ``"pdf"`` (both vectors).

    Returns:
        The files, in the order of the formats.

    Raises:
        ReportError: an unknown format, or a file that can't be written.
    """
    known = get_args(Format)
    for each in formats:
        if each not in known:
            raise ReportError(f'figure format "{each}": must be one of {", ".join(known)}')
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{folder}: can't be made: {error.strerror}") from error
    paths = []
    for each in formats:
        path = folder / f"{figure.name}.{each}"
        write_atomically(path, _render(figure.chart, each))
        paths.append(path)
    return paths


def _render(chart: alt.HConcatChart, format: Format) -> bytes:  # noqa: A002
    if format == "svg":
        text = StringIO()
        chart.save(text, format="svg")
        return text.getvalue().encode()
    out = BytesIO()
    chart.save(out, format=format, ppi=72 * SCALE)
    return out.getvalue()
