"""One study as its page shows it: quick looks at how far it is, and slower ones at its verdicts and charts.

A look reads a line of the store for each trial, and no results. A drawing reads the results of those trials that have
changed since the last one, a few at a time, and computes what the report shows of them. Each runs in a thread of its
own, so that progress moves on while a long drawing lasts.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fairtrial.errors import FairtrialError
from fairtrial.loading import importable, rebuild
from fairtrial.registry import CHARTS
from fairtrial.report.grid import Grid
from fairtrial.report.losses import loss_lines
from fairtrial.report.views import View
from fairtrial.results import StudyResults
from fairtrial.spec import Study
from fairtrial.store.watching import Mark, WatchedStore
from fairtrial.text import one_line, visible
from fairtrial.web import pace
from fairtrial.web.running import NAME
from fairtrial.web.templates import render

if TYPE_CHECKING:
    from fairtrial.trial import TrialResult

#: A page shows at most so many rows of a table, running trials, and ways in which runs were lost.
ROWS, WORKERS, LOSSES = 200, 64, 20

#: Charts that a page shows first.
GROWING = ("test_accuracy", "training_loss")
#: Metrics that these show.
DRAWN = ("test_acc", "train_loss")

#: How many events a page lists.
EVENTS = 12


@dataclass(frozen=True)
class Snapshot:
    """The results behind what a page shows; ``number`` rises with each."""

    number: int
    runs: StudyResults


@dataclass(frozen=True)
class Event:
    """Something that happened to a study while the page was open."""

    at: datetime
    text: str


class StudyFeed:
    """A study of a store, for all who look at its page.

    Args:
        key: the beginning of its hash.

    Attributes:
        snapshot: the newest results that were drawn; None before the first drawing.
        stale: whether a trial has changed since.
        cost: seconds that the last drawing took.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.snapshot: Snapshot | None = None
        self.stale = False
        self.cost = 0.0
        self._study: Study | None = None
        self._unreadable = ""
        self._marks: list[Mark] = []
        self._running: bool | None = None
        self._complete = False
        self._reports: dict[str, tuple[int, datetime]] = {}  # the last epoch of a running trial, and when it was seen
        self._results: dict[str, tuple[str, TrialResult]] = {}  # by trial, with its mark
        self._stopped: Mapping[str, str] = {}
        self._verdicts: dict[str, str] = {}
        self._events: deque[Event] = deque(maxlen=EVENTS)

    def look(self, store: WatchedStore, *, changed: bool) -> dict[str, Markup]:
        """Look how far the study is, and return the parts of its page that may be new, by their names.

        Args:
            store: where it is.
            changed: whether anything in the store has.
        """
        if self._study is None or changed:
            stored = store.study(self.key)
            if stored is None:
                return self._gone()
            if self._study is None or self._study.hash != stored.hash:
                try:
                    self._study, self._unreadable = rebuild(stored), ""
                except FairtrialError as error:  # another release's study, or modules of a user's that are not here
                    self._unreadable = str(error)
                    return {
                        "status": render("status.html", state="unreadable", detail=self._unreadable, label=stored.label)
                    }
            self._note(store.marks(self._study.hash))
        running = store.is_running(self._study.hash)
        return self._parts(self._study, running)

    def _gone(self) -> dict[str, Markup]:
        had = self._study is not None
        self._study, self._marks, self._results, self._running, self.snapshot = None, [], {}, None, None
        return {"status": render("status.html", state="gone" if had else "unknown", detail="", label="")}

    def _note(self, marks: list[Mark]) -> None:
        """Note what has changed of the trials."""
        now = datetime.now(UTC)
        before = {mark.trial: mark for mark in self._marks}
        for mark in marks:
            known = before.get(mark.trial)
            if mark.open and (known is None or known.epochs != mark.epochs or known.attempt != mark.attempt):
                self._reports[mark.trial] = (mark.epochs, now) if known is not None else (-1, now)
            elif not mark.open:
                self._reports.pop(mark.trial, None)
            if known is not None and known.outcome is None and mark.outcome in {"diverged", "failed"}:
                self._events.append(Event(now, f"{self._label(mark.arm)}, seed {mark.seed}: {mark.outcome}"))
        if marks != self._marks:
            self.stale = True
        self._marks = marks

    def _label(self, name: str) -> str:
        """An arm as the page calls it."""
        arms = self._study.arms if self._study is not None else ()
        return next((arm.label or arm.name for arm in arms if arm.name == name), name)

    def _parts(self, study: Study, running: bool) -> dict[str, Markup]:
        epochs = {arm.name: arm.settings.training.epochs for arm in study.arms}
        now = datetime.now(UTC)
        found = pace.progress(self._marks, epochs, self._stopped)
        if self._running is not None and running != self._running:
            self._events.append(Event(now, "the run has begun" if running else "the run has ended"))
        if found.complete and not self._complete and self._running is not None:
            self._events.append(Event(now, "all trials have ended"))
        self._running, self._complete = running, found.complete
        left = None
        if running and not found.complete:
            left = pace.seconds_left(self._marks, epochs, now, stopped=self._stopped)
        state = _state(found, running=running)
        labels = {arm.name: arm.label or arm.name for arm in study.arms}
        trials = [mark for mark in self._marks if mark.open]
        workers = [
            (mark, labels.get(mark.arm, mark.arm), epochs.get(mark.arm, 0), self._reports.get(mark.trial))
            for mark in trials[:WORKERS]
        ]
        return {
            "status": render("status.html", state=state, detail="", label=study.label),
            "progress": render(
                "progress.html",
                progress=found,
                arms=found.arms[:ROWS],
                labels=labels,
                reference=study.reference,
                left=left,
                at_most=study.sequential,
                seeds=study.seeds,
                least=study.min_seeds,
            ),
            "workers": render(
                "workers.html",
                workers=workers,
                more=len(trials) - len(workers),
                running=running,
                complete=found.complete,
            ),
            "events": render("events.html", events=list(self._events)[::-1]),
        }

    def draw(self, store: WatchedStore) -> Iterator[tuple[str, Markup]]:
        """Read the results that have changed, and compute the slower parts of the page one after another.

        `snapshot` is new once the first part has come.
        """
        study, marks = self._study, self._marks
        if study is None:
            return
        self.stale = False
        begun = [mark for mark in marks if mark.begun]
        new = {mark.trial: mark.mark for mark in begun if self._results.get(mark.trial, ("",))[0] != mark.mark}
        for result in store.read_trials(list(new)):
            self._results[result.trial] = new[result.trial], result
        results = tuple(self._results[mark.trial][1] for mark in begun if mark.trial in self._results)
        runs = StudyResults(study, results, store=store.url, history=store.history(study))
        self.snapshot = Snapshot(self.snapshot.number + 1 if self.snapshot else 1, runs)
        with importable(study):
            for name, make in self._slow_parts(runs).items():
                yield name, _or_reason(make)

    def _slow_parts(self, runs: StudyResults) -> dict[str, Callable[[], Markup]]:
        study = runs.study
        parts = (
            {"verdicts": lambda: self._verdict(runs)} if len(study.arms) > 1 or study.evidence.further_questions else {}
        )
        parts["table"] = lambda: _grids(runs.table())
        if study.claims:
            parts["claims"] = lambda: _grids(runs.claims())
        parts["failures"] = lambda: _losses(runs)
        return parts

    def _verdict(self, runs: StudyResults) -> Markup:
        view = runs.verdict()
        words = {row.arm: row.verdict.value for row in view.data.comparisons}
        if self._verdicts:
            for arm, word in words.items():
                if self._verdicts.get(arm, word) != word:
                    self._events.append(
                        Event(datetime.now(UTC), f"{self._label(arm)}: now {word}, was {self._verdicts[arm]}")
                    )
        self._verdicts = words
        if runs.study.sequential:
            from fairtrial.stats.replay import replayed  # noqa: PLC0415  (loads SciPy, which a fixed study needs later)

            replay = replayed(runs.study, runs.results, history=runs.history)
            over = {runs.study.reference: "no arm is left to compare with"} if replay.over else {}
            self._stopped = {**replay.stopped, **over}
        return _grids(view)

    def charts(self) -> tuple[str, ...]:
        """The names of all charts that a study may have, those that grow with each epoch first."""
        if self.snapshot is None:
            return ()
        study, known = self.snapshot.runs.study, CHARTS.names()
        own = [metric for name in study.evidence.directions for metric in study.measure(name).metrics]
        own = [metric for metric in own if metric not in DRAWN]
        return tuple(dict.fromkeys([NAME, *(name for name in GROWING if name in known), *own, *known]))


def _state(found: pace.Progress, *, running: bool) -> str:
    """Name a study's state."""
    if running:
        return "ending" if found.complete else "running"
    if found.complete:
        return "complete"
    return "interrupted" if found.ended or found.open else "planned"


def _or_reason(make: Callable[[], Markup]) -> Markup:
    """Make a part of the page, or say why there is none."""
    try:
        return make()
    except FairtrialError as error:
        return render("reason.html", reason=one_line(str(error)))


def _grids(view: View[Any]) -> Markup:
    return render("grids.html", grids=[_shortened(grid) for grid in view.grids()])


def _shortened(grid: Grid) -> Grid:
    """Leave out the rows beyond `ROWS`, and say so."""
    rows = len(grid.columns[0].cells) if grid.columns else 0
    if max(rows, len(grid.lead)) <= ROWS:
        return grid
    columns = tuple(replace(column, cells=column.cells[:ROWS]) for column in grid.columns)
    note = f"The first {ROWS} of {max(rows, len(grid.lead))} rows; fairtrial table and fairtrial verdict print all."
    return replace(grid, columns=columns, lead=grid.lead[:ROWS], notes=(note, *grid.notes))


def _losses(runs: StudyResults) -> Markup:
    lines = [visible(line).partition(": ") for line in loss_lines(runs.study, runs.results)]
    losses = [_loss(who, what) for who, _, what in lines]
    return render("failures.html", losses=losses[:LOSSES], more=len(losses) - LOSSES, label=runs.study.label)


def _loss(who: str, what: str) -> tuple[str, str, str]:
    """Who was lost, the last line of how, and all of it where it has several lines."""
    lines: Sequence[str] = what.splitlines() or [""]
    return who, lines[-1], what if len(lines) > 1 else ""
