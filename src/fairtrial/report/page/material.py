"""All that a page shows of a study, collected once: tables, verdicts, claims and charts, of finished studies or not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from fairtrial.errors import ReportError
from fairtrial.history import History
from fairtrial.measures import measure
from fairtrial.registry import CHARTS
from fairtrial.report.chart_options import ChartOptions
from fairtrial.report.charts import Figure, draw
from fairtrial.report.views import View, verdict_view
from fairtrial.report.xray import StudyXray, xray_of
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.spec.labels import under_labels
from fairtrial.stats.claims import StudyClaims, check_claims
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.summary import StudySummary, summarize
from fairtrial.trial import TrialResult

Data = TypeVar("Data", bound=StudySummary | StudyVerdict | StudyClaims | StudyXray)

#: Charts of the x-ray have names that begin so.
XRAY = "xray_"


@dataclass(frozen=True)
class Runs:
    """A study and its results under the names of its arms, or under their labels."""

    study: Study
    results: tuple[TrialResult, ...]
    history: History | None = None

    @cached_property
    def summary(self) -> StudySummary:
        """Its table."""
        return summarize(self.study, self.results)

    @cached_property
    def verdict(self) -> View[StudyVerdict]:
        """Its verdicts, with answers to the study's further questions."""
        return verdict_view(self.study, self.results, None, self.history)

    @cached_property
    def claims(self) -> StudyClaims | None:
        """Its claims, tested; None if it makes none or has one arm."""
        if not self.study.claims or len(self.study.arms) < 2:
            return None
        return check_claims(self.study, self.results, history=self.history)

    @cached_property
    def xray(self) -> StudyXray | None:
        """What its optimizers did; None without snapshots."""
        if not any(result.snapshots for result in self.results):
            return None
        return xray_of(self.study, self.results)


@dataclass(frozen=True)
class Material:
    """What sections are made of: everything that people read is under the labels of the arms.

    Attributes:
        named: the study and its results under the names of the arms, for files that programs read.
        shown: the same under their labels.
    """

    named: Runs
    shown: Runs

    @classmethod
    def of(cls, study: Study, results: Sequence[TrialResult], history: History | None = None) -> "Material":
        """Take a study and its results, which need not be all that are planned."""
        named = Runs(study, tuple(results), history)
        labels = {arm.name: arm.label or arm.name for arm in study.arms}
        if all(name == label for name, label in labels.items()):
            return cls(named, named)
        labeled = tuple(replace(result, arm=labels[result.arm]) for result in results)
        return cls(named, Runs(under_labels(study), labeled, history))

    @cached_property
    def planned(self) -> int:
        """How many trials the study has, at most."""
        return len(plan(self.named.study))

    @property
    def ended(self) -> int:
        """How many of them have ended."""
        return sum(result.outcome is not None for result in self.named.results)

    @cached_property
    def table(self) -> View[StudySummary]:
        """Table 1; documents show labels, programs read names."""
        return self._labeled(View(self.named.summary), View(self.shown.summary))

    @cached_property
    def verdict(self) -> View[StudyVerdict]:
        """The verdicts."""
        return self._labeled(self.named.verdict, self.shown.verdict)

    @cached_property
    def claims(self) -> View[StudyClaims] | None:
        """The claims; None if the study makes none."""
        if self.named.claims is None or self.shown.claims is None:
            return None
        return self._labeled(View(self.named.claims), View(self.shown.claims))

    @cached_property
    def xray(self) -> View[StudyXray] | None:
        """The x-ray; None without snapshots."""
        if self.named.xray is None or self.shown.xray is None:
            return None
        return self._labeled(View(self.named.xray), View(self.shown.xray))

    def _labeled(self, view: View[Data], labeled: View[Data]) -> View[Data]:
        if self.named is not self.shown:
            view.labeled = labeled
        return view

    @cached_property
    def charts(self) -> dict[str, Figure]:
        """Every registered chart that has data, by name, and the learning curves of every recorded metric."""
        found: dict[str, Figure] = {}
        for name in (*CHARTS.names(), *self.recorded):
            if figure := self.chart(name):
                found[name] = figure
        return found

    def chart(self, name: str, options: ChartOptions | None = None) -> Figure | None:
        """Draw one chart; None if there are no data for it."""
        shown = self.shown
        try:
            return draw([name], shown.study, shown.results, history=shown.history, options=options)[0]
        except ReportError:
            return None

    @cached_property
    def verdict_plots(self) -> tuple[tuple[str, Figure], ...]:
        """The verdict plot of the study's measure, and those of the other measures of its table, after their labels."""
        own, shown = self.shown.study.evidence.metric, []
        asked = [own, *(also.metric for also in self.shown.study.evidence.also or ())]
        for name in dict.fromkeys([*asked, *(each.name for each in self.shown.summary.measures)]):
            figure = self.chart("differences", ChartOptions(measure=None if name == own else name))
            if figure is not None:
                label = measure(name).label
                label = f"{label[:1].upper()}{label[1:]}"
                shown.append((label if name in asked else f"{label} (not set beforehand)", figure))
        return tuple(shown)

    @cached_property
    def recorded(self) -> tuple[str, ...]:
        """The metrics that some trial recorded, but for times, sorted."""
        names = {name for result in self.named.results for record in result.epochs for name in record.metrics}
        return tuple(sorted(name for name in names if not name.endswith("seconds")))
