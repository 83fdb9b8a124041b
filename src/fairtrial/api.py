"""The Python interface: load a study, run it, read its results. The command line calls the same functions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fairtrial import loading
from fairtrial.callbacks import Callback, closing
from fairtrial.digests import digest_results
from fairtrial.errors import FairtrialError, StoreMissingError, StudyError, StudyNotFoundError
from fairtrial.history import History
from fairtrial.progress import progress_text
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.spec.labels import under_labels
from fairtrial.store.base import Store, StoredStudy
from fairtrial.store.opening import opened_store, read_snapshots
from fairtrial.store.url import DEFAULT_STORE as DEFAULT_STORE  # noqa: PLC0414  (others import it from here)
from fairtrial.trial import Outcome, TrialResult

if TYPE_CHECKING:  # slow to load, and needed by one function each
    import pandas as pd

    from fairtrial.estimate import Estimate
    from fairtrial.executors.base import Executor
    from fairtrial.report.charts import Figure
    from fairtrial.report.views import View
    from fairtrial.report.xray import StudyXray
    from fairtrial.stats.claims import StudyClaims
    from fairtrial.stats.comparison import StudyVerdict
    from fairtrial.stats.summary import StudySummary
    from fairtrial.training.bench import Bench
    from fairtrial.training.datasets import FetchedDataset

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

    def _view(self, make: "Callable[[StudyResults], View[Data]]") -> "View[Data]":
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


def load(source: str | Path, overrides: Sequence[str] = (), *, store: str | Path | Store | None = None) -> Study:
    """Load a study.

    Args:
        source: a TOML file, the name of a study that ships with fairtrial or, given a store, NAME or NAME@HASH of a
            study in it.
        overrides: ``KEY=VALUE`` overrides, such as ``["training.epochs=3"]``.
        store: a store with further studies.

    Raises:
        StudyError: no such study, or not a valid one; the message begins with the file's name.

    Example:
        >>> load("quick", ["seeds=5"]).seeds
        5
    """
    return loading.load(source, overrides, [] if store is None else list_studies(store))


def run(
    study: Study,
    *,
    store: str | Path | Store = DEFAULT_STORE,
    executor: "Executor | None" = None,
    callbacks: Sequence[Callback] = (),
    retry_failed: bool = False,
    force: bool = False,
    progress: bool | None = None,
    xray: bool = True,
) -> StudyResults:
    """Train the missing trials of a study; if it has ``[tuning]``, tune its arms first.

    Every finished epoch is in the store. After Ctrl-C, a crash or an error, call this again to resume.

    Args:
        study: what to run.
        store: a file, a database URL or a store, which stays open.
        executor: what runs trials; by default ``AutoExecutor()``: GPUs, or worker processes on this machine. They do
            not import the script that calls this, so it needs no ``if __name__ == "__main__"``.
        callbacks: called as the study runs.
        retry_failed: train failed trials again. Diverged ones are results, and stay.
        force: continue although versions of torch or fairtrial, threads, processor, layers, data or your code differ
            from those of the study's earlier trials, or although the study's file was changed before its study was
            complete. Each trial records it.
        progress: show how far the study is: as a bar in a notebook, as text on standard error elsewhere. By default in
            notebooks alone.
        xray: take snapshots of the optimizers' states, which change no result; see `StudyResults.with_snapshots`.

    Raises:
        FairtrialError: something that every trial needs is missing or damaged; nothing was trained.
        ProvenanceError: the conditions or the study's file have changed; see ``force``.
        StoreLockedError: another process runs this study in this store.
        RecordError: a training loop's first record is not what the study needs; no trial has failed.
        CheckpointError: a trial's state can't be saved, for example because the disk is full.
        KeyboardInterrupt: raised again after trials had time to save their state.

    Example:
        >>> runs = run(load("quick"), executor=fairtrial.LocalExecutor(workers=2))  # doctest: +SKIP
        >>> runs  # doctest: +SKIP
        <StudyResults quick@943dd38e: 10 of 10 trials>
    """
    from fairtrial.report.notebook import progress_callbacks  # noqa: PLC0415
    from fairtrial.runner import run_study  # noqa: PLC0415  (what only reads results does without it)
    from fairtrial.tuning import tune  # noqa: PLC0415

    _check_run(study, executor)
    callbacks = (*progress_callbacks(progress), *callbacks)
    with opened_store(store) as opened, loading.importable(study), closing(callbacks):

        def train(one: Study) -> int:
            again = {"retry_failed": retry_failed, "force": force}
            return run_study(one, store=opened, executor=executor, callbacks=callbacks, xray=xray, **again)

        def say(text: str) -> None:
            for callback in callbacks:
                callback.on_warning(None, text)

        trained = 0
        if study.untuned:
            study, trained = tune(study, opened, train, say)
        trained += train(study)
        runs = StudyResults(study, tuple(opened.results(study)), trained, opened.history(study), store)
        for callback in callbacks:
            callback.on_results(runs)
        return runs


def _check_run(study: Study, executor: object) -> None:
    """Refuse what can't be run, in one line."""
    if not isinstance(study, Study):
        raise StudyError(f"run({study!r}): needs a study, such as fairtrial.load({study!r})")
    if study.tuning_round is not None:  # its looks count for nothing, so only `tune` may decide what is in it
        raise StudyError(
            f"{study.label}: tuning_round = {study.tuning_round}: rounds are run by [tuning]; run the study that is "
            "tuned, or leave tuning_round out"
        )
    if executor is not None and (isinstance(executor, type) or not hasattr(executor, "open")):
        raise FairtrialError(f"executor = {executor!r}: must be an executor, such as fairtrial.LocalExecutor()")


def open_results(
    study: Study | str | Path, overrides: Sequence[str] = (), *, store: str | Path | Store = DEFAULT_STORE
) -> StudyResults:
    """Read the results of a study from a store; nothing is trained.

    Args:
        study: the study, or what `load` takes. A name without overrides means the last study of that name in the store.
        overrides: ``KEY=VALUE`` overrides.
        store: a file, a database URL or a store.

    Raises:
        StoreMissingError: there is no store yet.
        StudyError: no such study, or it has not been run in this store.
    """
    with opened_store(store, create=False) as opened:
        found = study if isinstance(study, Study) else loading.load_recorded(study, overrides, opened.studies())
        if found.untuned:
            found = loading.found_tuned(found, opened.studies())
        return StudyResults(found, tuple(opened.results(found)), history=opened.history(found), store=store)


def list_studies(store: str | Path | Store = DEFAULT_STORE) -> list[StoredStudy]:
    """List the studies in a store and how far each one is, the one that ran last first; none if there is no store."""
    try:
        with opened_store(store, create=False) as opened:
            return opened.studies()
    except StoreMissingError:
        return []


def estimate_cost(
    study: Study,
    *,
    store: str | Path | Store = DEFAULT_STORE,
    workers: int | None = None,
    threads: int | None = None,
    spread: float | None = None,
) -> "Estimate":
    """Estimate what the missing trials of a study will cost on this machine, and what other numbers of seeds would.

    Args:
        study: the study.
        store: the store that holds earlier results, if any.
        workers: worker processes; by default as many as `run` would use.
        threads: threads of each, by default 1.
        spread: standard deviation of a paired difference, in the metric's unit; by default that of earlier results.
    """
    from fairtrial.estimate import estimate  # noqa: PLC0415
    from fairtrial.tuning import tuning_trials_ended  # noqa: PLC0415

    if spread is not None and not (math.isfinite(spread) and spread > 0):
        raise FairtrialError(f"spread = {spread}: must be a positive number")
    tuned = 0
    try:
        found = open_results(study, store=store)
    except StoreMissingError:
        found = StudyResults(study, ())
    except StudyNotFoundError:  # not tuned yet
        found = StudyResults(study, ())
        with opened_store(store, create=False) as opened, loading.importable(study):
            tuned = tuning_trials_ended(study, opened)
    study = found.study
    with loading.importable(study):
        return estimate(
            study, found.results, history=found.history, workers=workers, threads=threads, spread=spread, tuned=tuned
        )


def fetch_data(
    name: str, source: str | Path | None = None, *, progress: Callable[[int, int | None, str], None] | None = None
) -> "FetchedDataset":
    """Download a data set and verify it.

    Args:
        name: such as ``"cifar10"``.
        source: a folder or archive to read instead of downloading.
        progress: called with bytes done, bytes in all (None if unknown) and what is being fetched.

    Raises:
        DataError: no such data set, or it is damaged.
    """
    from fairtrial.training import datasets  # noqa: PLC0415

    return datasets.fetch(name, source=None if source is None else Path(source), progress=progress)


def bench(study: Study, *, threads: int = 1) -> "Bench":
    """Time training steps of a study's first arm on this machine, with fast and plain layers."""
    from fairtrial.training import bench as training_bench  # noqa: PLC0415

    with loading.importable(study):
        return training_bench.bench(study, threads=threads)
