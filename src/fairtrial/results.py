"""The results of a study: what a call of `run` returns, and what shows them as tables, verdicts, charts and files."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fairtrial.digests import digest_results
from fairtrial.history import History
from fairtrial.progress import progress_text
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.spec.labels import under_labels
from fairtrial.store.base import Store
from fairtrial.store.opening import read_snapshots
from fairtrial.trial import Outcome, TrialResult

if TYPE_CHECKING:  # slow to load, and needed by one method each
    import pandas as pd

    from fairtrial.report.charts import Figure
    from fairtrial.report.views import View
    from fairtrial.report.xray import StudyXray
    from fairtrial.stats.claims import StudyClaims
    from fairtrial.stats.comparison import StudyVerdict
    from fairtrial.stats.summary import StudySummary

Data = TypeVar("Data", bound="StudySummary | StudyVerdict | StudyClaims | StudyXray")


@dataclass(frozen=True, repr=False)
class StudyResults:
    """A study and the results of its trials. A notebook shows it as its table.

    Attributes:
        study: the study.
        results: a result for each trial that has started, in the order of the plan.
        trained: how many trials the call of `run` trained.
        history: what was asked of these trials before, as the store knows it.
        store: where the snapshots are; see `with_snapshots`.
    """

    study: Study
    results: tuple[TrialResult, ...]
    trained: int = 0
    history: History | None = None
    store: str | Path | Store | None = field(default=None, compare=False)

    def count(self, outcome: Outcome) -> int:
        """Count the trials with an outcome."""
        return sum(result.outcome is outcome for result in self.results)

    def failures(self) -> tuple[TrialResult, ...]:
        """List the failed trials; the ``detail`` of each has its traceback."""
        return tuple(result for result in self.results if result.outcome is Outcome.FAILED)

    def table(self) -> "View[StudySummary]":
        """Summarize each arm: mean and spread over seeds."""
        from fairtrial.report.views import View  # noqa: PLC0415
        from fairtrial.stats.summary import summarize  # noqa: PLC0415

        return self._view(lambda runs: View(summarize(runs.study, runs.results)))

    def verdict(self, metric: str | None = None) -> "View[StudyVerdict]":
        """Compare each arm with the reference, and answer the study's further questions; see `View.answers`.

        Args:
            metric: another measure than the study's own. Unless the study names it under ``also``, the verdicts say
                that it was not set beforehand.

        Raises:
            ReportError: no such measure.
        """
        from fairtrial.report.views import verdict_view  # noqa: PLC0415

        return self._view(lambda runs: verdict_view(runs.study, runs.results, metric, runs.history))

    def confirmation(self) -> Study:
        """Build a study that compares the leading arm with the reference on fresh seeds.

        Raises:
            StudyError: there are no results yet that tell which arm leads.
        """
        from fairtrial.stats.confirmation import confirmation  # noqa: PLC0415

        return confirmation(self.study, self.results, history=self.history)

    def claims(self) -> "View[StudyClaims]":
        """Test each claim of the study."""
        from fairtrial.report.views import View  # noqa: PLC0415
        from fairtrial.stats.claims import check_claims  # noqa: PLC0415

        return self._view(lambda runs: View(check_claims(runs.study, runs.results, history=runs.history)))

    def with_snapshots(self, *, tensors: bool = True) -> "StudyResults":
        """Read `TrialResult.snapshots` from the store; without ``tensors``, those of single tensors are left out."""
        if self.store is None or any(result.snapshots for result in self.results):
            return self
        found = read_snapshots(self.store, [one.trial for one in self.results], tensors=tensors)
        return replace(self, results=tuple(replace(one, snapshots=found.get(one.trial, ())) for one in self.results))

    def xray(self, arm: str | None = None) -> "View[StudyXray]":
        """Show what the arms' optimizers did, or one arm's: how much epsilon and the betas mattered.

        Raises:
            ReportError: there is no such arm, or no trial has snapshots.
        """
        from fairtrial.report.views import View  # noqa: PLC0415
        from fairtrial.report.xray import place_of, xray_of  # noqa: PLC0415

        at = None if arm is None else place_of(self.study, arm)
        return self._view(lambda runs: View(xray_of(runs.study, runs.with_snapshots(tensors=False).results, at)))

    def _view(self, make: Callable[["StudyResults"], "View[Data]"]) -> "View[Data]":
        """Make a view that people read under the labels of the arms, and programs under their names."""
        view = make(self)
        if (labeled := self._labeled()) is not self:
            view.labeled = make(labeled)
        return view

    def _labeled(self) -> "StudyResults":
        """These results under the labels of the arms; the same object where no arm has one."""
        labels = {arm.name: arm.label or arm.name for arm in self.study.arms}
        if all(name == label for name, label in labels.items()):
            return self
        results = tuple(replace(result, arm=labels[result.arm]) for result in self.results)
        return replace(self, study=under_labels(self.study), results=results)

    def plot(self, name: str, **options: Any) -> "Figure":
        """Draw one chart, such as ``"test_accuracy"``, with the options of `plots`."""
        return self.plots(name, **options)[0]

    def plots(self, *names: str, **options: Any) -> "tuple[Figure, ...]":
        """Draw charts, or curves of recorded metrics; by default all with data. Options: `report.chart_options`.

        Raises:
            ReportError: there is no such chart, no data for it, or it does not take an option.
        """
        from fairtrial.report.chart_options import ChartOptions  # noqa: PLC0415
        from fairtrial.report.charts import draw  # noqa: PLC0415

        labeled = self._labeled()
        if not names or any(name.startswith("xray_") or ":" in name for name in names):
            labeled = labeled.with_snapshots(tensors=False)
        chosen = ChartOptions.of(self.study, **options)
        return draw(names, labeled.study, labeled.results, history=self.history, options=chosen)

    def report(self, folder: str | Path) -> list[Path]:
        """Write a report into a folder: a page that needs no network, figures, tables and data; finished or not.

        Returns:
            The files, the page first.

        Raises:
            ReportError: the folder can't be written, or holds other files than an earlier report.
        """
        from fairtrial.report.page.folder import write_report  # noqa: PLC0415

        return write_report(self.study, self.with_snapshots(tensors=False).results, Path(folder), self.history)

    def to_pandas(self) -> "pd.DataFrame":
        """Make a data frame with a row for each epoch record and the columns of `export`.

        Raises:
            ReportError: pandas is not installed.
        """
        from fairtrial.report.export import data_frame  # noqa: PLC0415

        return data_frame(lambda: self.records("parquet"))

    def export(self, path: str | Path, rows: str = "epochs") -> None:
        """Write every epoch record to a CSV, Parquet or JSON file; the path's suffix decides.

        With ``rows="trials"``, write every trial: its outcome, traceback, settings, machine and code; with
        ``rows="snapshots"``, the statistics of its x-ray.

        Losses are in nats, accuracies are fractions, times are in seconds; see `fairtrial.report.export.export`.

        Raises:
            ReportError: another suffix, or the file can't be written.
        """
        self.records(Path(path).suffix.lstrip("."), Path(path), rows)

    def records(self, format: str, path: Path | None = None, rows: str = "epochs") -> bytes:  # noqa: A002
        """Return every epoch record as ``"csv"``, ``"parquet"`` or ``"json"``; given a path, also write a file.

        With ``rows="trials"`` or ``rows="snapshots"``, every trial or snapshot instead; see `export`.
        """
        from fairtrial.report.export import export  # noqa: PLC0415

        found = self.with_snapshots() if rows == "snapshots" else self
        return export(self.study, found.results, format, path, rows)  # type: ignore[arg-type]  # unknown: an error

    def digest(self) -> str:
        """Digest all results but times and machines: equal if two runs gave the same numbers to the bit."""
        return digest_results(self.results)

    def __repr__(self) -> str:
        outcomes = {outcome: self.count(outcome) for outcome in Outcome}
        started = len(self.results) - sum(outcomes.values())
        progress = progress_text(len(plan(self.study)), outcomes, started, sequential=self.study.sequential)
        return f"<StudyResults {self.study.label}: {progress}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()
