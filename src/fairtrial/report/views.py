"""Results that show themselves: text at a prompt, HTML in a notebook, and every document format."""

import json
from collections.abc import Sequence
from typing import Generic, TypeVar

from fairtrial.errors import ReportError
from fairtrial.history import History
from fairtrial.report.claims import claims_grid, claims_table
from fairtrial.report.formats import comma_separated, latex, markdown, summary_table
from fairtrial.report.grid import Grid, grid, printable
from fairtrial.report.html import html
from fairtrial.report.questions import answer_grid, answer_table
from fairtrial.report.screen import screen_text
from fairtrial.report.sensitivity import sensitivity_grid, sensitivity_table
from fairtrial.report.verdicts import noise_grid, verdict_grid, verdict_table
from fairtrial.report.xray import StudyXray
from fairtrial.report.xray_tables import xray_csv, xray_grids, xray_table
from fairtrial.spec import Study
from fairtrial.stats.claims import StudyClaims
from fairtrial.stats.comparison import StudyVerdict, compare
from fairtrial.stats.noise import ArmNoise, split_noise
from fairtrial.stats.questions import Answer, answer_questions
from fairtrial.stats.sensitivity import Sensitivity, sensitivities
from fairtrial.stats.summary import StudySummary
from fairtrial.trial import TrialResult

Data = TypeVar("Data", bound=StudySummary | StudyVerdict | StudyClaims | StudyXray)


#: What has CSV.
_TABLES = (StudySummary, StudyXray)


def verdict_view(
    study: Study, results: Sequence[TrialResult], metric: str | None, history: History | None
) -> "View[StudyVerdict]":
    """Compare arms, and answer the study's further questions.

    Args:
        study: the study.
        results: of its trials.
        metric: another measure than the study's own; None for that.
        history: what was asked of these trials before.
    """
    noise = split_noise(study, results, metric=metric)
    asked = [also.metric for also in study.evidence.also or ()]
    planned = metric is None or metric in asked
    found = compare(study, results, metric=None if planned else metric, history=history)
    answers = answer_questions(study, results, found) if planned else ()
    if metric in asked:
        return View(answers[asked.index(metric)].verdicts[0], noise)
    return View(found, noise, answers, sensitivities(study, found))


class View(Generic[Data]):
    """A study's table, verdicts, tested claims or x-ray, as people and programs read them.

    Text, Markdown, LaTeX and HTML show accuracies in percent and their differences in points; JSON and CSV have
    fractions.

    Args:
        data: what `summarize`, `compare`, `check_claims` or `xray_of` returned.
        noise: for verdicts, what `fairtrial.stats.noise.split_noise` returned; shown below them.
        answers: for verdicts, what `fairtrial.stats.questions.answer_questions` returned; shown below them.
        settings: for verdicts, what `fairtrial.stats.sensitivity.sensitivities` returned; shown below them.

    Example:
        >>> from fairtrial.stats.comparison import compare
        >>> from fairtrial.testing import simulated_results, simulated_study
        >>> study = simulated_study({"a": {}, "b": {"mean": 0.9}}, seeds=3)
        >>> print(View(compare(study, simulated_results(study))).text().splitlines()[1].partition(" by")[0].strip())
        b is better than a
    """

    def __init__(
        self,
        data: Data,
        noise: Sequence[ArmNoise] = (),
        answers: Sequence[Answer] = (),
        settings: Sequence[Sensitivity] = (),
    ) -> None:
        self.data = data
        self.answers = tuple(answers)
        self.settings = tuple(settings)
        self.labeled: View[Data] | None = None  # the same with labels for names of arms, which people read instead
        self._noise = noise

    @property
    def formats(self) -> tuple[str, ...]:
        """Every format of `write`; only tables have CSV."""
        return ("text", "markdown", "latex", "html", "json", *(["csv"] if isinstance(self.data, _TABLES) else []))

    def write(
        self,
        format: str = "text",  # noqa: A002
        *,
        width: int = 80,
        color: bool = False,
        encoding: str = "utf-8",
    ) -> str:
        """Write it in one of `formats`, with one line break at the end; width, color, encoding are for text only.

        Raises:
            ReportError: there is no such format.
        """
        if format not in self.formats:
            raise ReportError(f'format = "{format}": must be one of {", ".join(self.formats)}')
        if format == "text":
            return self.text(width, color=color, encoding=encoding)
        written: str = getattr(self, format)()
        return written

    def text(self, width: int = 80, *, color: bool = False, encoding: str = "utf-8") -> str:
        """Write it for a screen of so many columns and this encoding."""
        return "\n".join(screen_text(each, width, color, encoding) for each in self.grids(screen=True))

    def markdown(self) -> str:
        """Write pipe tables, with the sentences as lists around them."""
        return "\n".join(map(markdown, self.grids()))

    def latex(self) -> str:
        """Write floating tables of the booktabs package."""
        return "\n".join(map(latex, self.grids()))

    def html(self) -> str:
        """Write HTML tables that need no style sheet."""
        return "".join(map(html, self.grids()))

    def json(self) -> str:
        """Write JSON for other programs: accuracies as fractions, null where there is no number.

        Keys may be added, never renamed or removed.
        """
        if isinstance(self.data, StudySummary):
            table = summary_table(self.data)
        elif isinstance(self.data, StudyClaims):
            table = claims_table(self.data)
        elif isinstance(self.data, StudyXray):
            table = xray_table(self.data)
        else:
            table = verdict_table(self.data, self._noise)
            if self.answers:
                table["questions"] = [answer_table(answer) for answer in self.answers]
            if self.settings:
                table["sensitivity"] = [sensitivity_table(each) for each in self.settings]
        return json.dumps(table, indent=2, allow_nan=False) + "\n"

    def csv(self) -> str:
        """Write one row for each arm; of an x-ray, for each moment and kind of layer.

        Raises:
            ReportError: it is not a table.
        """
        if isinstance(self.data, StudyXray):
            return xray_csv(self.data)
        if not isinstance(self.data, StudySummary):
            raise ReportError("only a study's table can be written as CSV; verdicts and claims as JSON")
        return comma_separated(self.data)

    def __repr__(self) -> str:
        return self.text().rstrip("\n")

    def _repr_html_(self) -> str:
        return self.html()

    def grids(self, *, screen: bool = False) -> list[Grid]:
        """Lay it out for people, with the labels of arms that have one, and without control characters."""
        if self.labeled is not None:
            return self.labeled.grids(screen=screen)
        return [printable(each) for each in self._grids(screen=screen)]

    def _grids(self, *, screen: bool) -> list[Grid]:
        if isinstance(self.data, StudySummary):
            return [grid(self.data)]
        if isinstance(self.data, StudyClaims):
            return [claims_grid(self.data, screen=screen)]
        if isinstance(self.data, StudyXray):
            return xray_grids(self.data)
        noise = [noise_grid(self.data, self._noise)] if self._noise else []
        answers = [answer_grid(answer, self.data, screen=screen) for answer in self.answers]
        settings = [sensitivity_grid(self.data, self.settings)] if self.settings else []
        return [verdict_grid(self.data, screen=screen), *settings, *answers, *noise]
