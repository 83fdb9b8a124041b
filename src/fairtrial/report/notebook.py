"""Progress of a study in a notebook: a bar that is updated in place, and stays as one line when the run is over.

It is an HTML display with an identifier, which every frontend of Jupyter updates; one that shows text alone gets text.
No widgets: a notebook that was saved shows what it showed last.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fairtrial.callbacks import Callback
from fairtrial.report.forecast import Forecast
from fairtrial.report.words import count, duration
from fairtrial.spec import Study
from fairtrial.text import one_line
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial

if TYPE_CHECKING:
    from fairtrial.executors.slots import Slots
    from fairtrial.results import StudyResults

#: Called with what to show, by media type; the first call makes a display, later ones replace it.
Show = Callable[[Mapping[str, str]], None]

#: Seconds between two updates: more often would only load the browser.
SECONDS_PER_UPDATE = 0.25
#: Trials that are shown as they run, and messages that are kept.
MOST_ROWS, MOST_MESSAGES = 8, 12

_BAR = (
    '<span style="display: inline-block; vertical-align: middle; width: {width}; height: 0.6em; border-radius: 0.3em; '
    'background: rgba(128, 128, 128, 0.3)"><span style="display: block; width: {percent:.1f}%; height: 100%; '
    'border-radius: 0.3em; background: {color}"></span></span>'
)
#: Shades that stand out from white and from black.
_RUNNING, _DONE, _STOPPED = "#2b8fb3", "#2e9e5b", "#b8860b"


def in_notebook() -> bool:
    """Tell whether this code runs in a kernel of Jupyter, which shows displays; IPython in a terminal is none."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def progress_callbacks(progress: bool | None) -> tuple[Callback, ...]:
    """Choose what shows a run's progress: a bar in a notebook, text elsewhere; None for a bar in notebooks alone."""
    notebook = in_notebook()
    if not (notebook if progress is None else progress):
        return ()
    if notebook:
        return (NotebookProgress(),)
    from fairtrial.report.live import TextProgress  # noqa: PLC0415  (loads Rich)

    return (TextProgress(),)


class NotebookProgress(Callback):
    """Shows a study's progress below a notebook's cell.

    Args:
        show: shows it; by default in a display of IPython's.
    """

    def __init__(self, show: Show | None = None) -> None:
        self._show = show or _display()
        self._forecast = Forecast()
        self._label, self._trials, self._names = "", 0, dict[str, str]()
        self._done, self._missing, self._at_most = 0, 0, ""
        self._rows: dict[str, tuple[float, str]] = {}  # of running trials: share done, note
        self._epochs: dict[str, int] = {}
        self._messages: list[str] = []
        self._all: Sequence[Trial] = ()
        self._began = perf_counter()
        self._next = 0.0
        self._end = ""

    def on_download(self, done: int, total: int | None, what: str) -> None:
        """Show how far a download is."""
        self._label = self._label or "data"
        self._rows[what] = (done / total, "") if total else (0.0, f"{done / 1e6:.0f} MB")
        if done == total:
            del self._rows[what]
        self._update()

    def on_plan(self, study: Study, trials: Sequence[Trial], missing: Sequence[Trial]) -> None:
        """Show what is about to run."""
        self._label, self._all, self._trials = study.label, trials, len(trials)
        self._names = {trial.hash: f"{trial.arm} seed {trial.own_seed}" for trial in trials}
        self._missing, self._done = len(missing), len(trials) - len(missing)
        self._at_most = "at most " if study.sequential and missing else ""
        self._forecast, self._end = Forecast(missing), ""
        self._rows.clear()
        self._update(now=True)

    def on_workers(self, slots: "Slots") -> None:
        """Note how many trials will run side by side."""
        self._forecast.workers = slots.gpus or slots.workers  # on a GPU, those that run count

    def on_trial_start(self, trial: Trial, machine: Machine) -> None:  # noqa: ARG002
        """Show a trial that begins."""
        self._forecast.began(trial, perf_counter())
        self._epochs[trial.hash] = 0
        self._rows[trial.hash] = (0.0, "")
        self._update()

    def on_progress(self, trial: Trial, batch: int, batches: int, metrics: Mapping[str, float]) -> None:  # noqa: ARG002
        """Show how far a trial is within its epoch."""
        self._reach(trial, self._epochs.get(trial.hash, 0) + batch / batches)

    def on_epoch(self, trial: Trial, record: EpochRecord) -> None:
        """Show an epoch's record."""
        self._epochs[trial.hash] = record.epoch
        self._reach(trial, record.epoch, record.metrics)

    def on_trial_end(self, trial: Trial, outcome: Outcome, detail: str) -> None:
        """Count a trial; say how it ended if that was not well."""
        self._forecast.ended(trial, perf_counter())
        self._rows.pop(trial.hash, None)
        self._done += 1
        if outcome is not Outcome.FINISHED:
            reason = next(iter(detail.splitlines()), "")
            self._say(f"{self._names.get(trial.hash, trial.arm)} {outcome}: {reason}"[:300])
        self._update()

    def on_warning(self, trial: Trial | None, text: str) -> None:
        """Show a warning."""
        about = "" if trial is None else f"{self._names.get(trial.hash, trial.arm)}: "
        self._say(f"{about}{text}"[:1000])
        self._update()

    def on_arm_stopped(self, study: Study, arm: str, seeds: int, reason: str) -> None:  # noqa: ARG002
        """Say why an arm gets no further seeds, and expect none."""
        waiting = [trial for trial in self._all if trial.arm == arm and trial.seed >= seeds]
        for trial in waiting:
            self._forecast.cancel(trial)
        self._say(f"{arm}: stopped after {count(seeds, 'seed')}, {reason}")
        self._update()

    def on_results(self, runs: "StudyResults") -> None:
        """Say that all is done."""
        trained = f"{count(runs.trained, 'trial')} trained in {duration(perf_counter() - self._began)}"
        self._label, self._end = runs.study.label, trained if runs.trained else "nothing to train: all is in the store"

    def on_close(self) -> None:
        """Leave one line, whatever ended the run."""
        error = sys.exc_info()[0]
        if not self._label and error is not None:
            return  # nothing had begun
        if not self._end:
            interrupted = error is not None and issubclass(error, KeyboardInterrupt)
            how = "interrupted" if interrupted else "ended by an error"
            self._end = f"{how}; every finished epoch is in the store: run this again to resume"
        self._rows.clear()
        self._update(now=True)

    def _reach(self, trial: Trial, epochs: float, metrics: Mapping[str, float] | None = None) -> None:
        self._forecast.reached(trial, epochs, perf_counter())
        _, note = self._rows.get(trial.hash, (0.0, ""))
        if metrics is not None:
            shown = {"train_acc": "training", "val_acc": "validation", "test_acc": "test"}
            parts = [f"{words} {metrics[name]:.1%}" for name, words in shown.items() if name in metrics]
            note = ", ".join([f"epoch {self._epochs[trial.hash]}/{trial.epochs}", *parts])
        if trial.hash in self._names:
            self._rows[trial.hash] = (epochs / trial.epochs, note)
        self._update()

    def _say(self, message: str) -> None:
        self._messages.append(one_line(message))

    def _update(self, *, now: bool = False) -> None:
        time = perf_counter()
        if now or time >= self._next:
            self._next = time + SECONDS_PER_UPDATE
            self._show({"text/html": self._html(time), "text/plain": self._text(time)})

    def _status(self, now: float) -> str:
        if self._end:
            return self._end
        seconds = self._forecast.seconds_left(now)
        left = "" if seconds is None else f", {self._at_most}{duration(max(seconds, 1.0))} left"
        return f"{self._done} of {self._at_most}{count(self._trials, 'trial')}{left}" if self._trials else ""

    def _text(self, now: float) -> str:
        share = f"{self._share:.0%} " if not self._end else ""
        return "\n".join([f"{one_line(self._label)}: {share}{self._status(now)}", *self._kept()])

    def _html(self, now: float) -> str:
        """Write the study's bar, a line for each running trial, and the messages; every name is escaped."""
        done = self._share >= 1.0 or self._done == self._trials
        color = _RUNNING if not self._end else _DONE if done else _STOPPED
        label = f"<strong>{escape(one_line(self._label))}</strong>"
        lines = [f"{label} {_bar(self._share, '16em', color, self._label)} {escape(self._status(now))}"]
        for key, (share, note) in [*self._rows.items()][:MOST_ROWS]:
            name = one_line(self._names.get(key, key))
            lines.append(f"{_bar(share, '6em', _RUNNING, name)} {escape(name)} {escape(note)}")
        if (more := len(self._rows) - MOST_ROWS) > 0:
            lines.append(f"and {more} more")
        lines += [escape(message) for message in self._kept()]
        small = '<div style="font-size: 0.9em; opacity: 0.85">'
        head, *rest = lines
        return f"<div>{head}</div>" + "".join(f"{small}{line}</div>" for line in rest)

    def _kept(self) -> list[str]:
        left_out = len(self._messages) - MOST_MESSAGES
        more = [f"and {count(left_out, 'message')} before these"] if left_out > 0 else []
        return [*more, *self._messages[-MOST_MESSAGES:]]

    @property
    def _share(self) -> float:
        """Of the work of this run, but all if there was none."""
        return 1.0 if self._end and self._done == self._trials else self._forecast.fraction if self._trials else 0.0


def _bar(share: float, width: str, color: str, name: str) -> str:
    percent = 100.0 * min(max(share, 0.0), 1.0)
    bar = _BAR.format(width=width, percent=percent, color=color)
    label = escape(f"progress of {one_line(name)}")
    about = (
        f'role="progressbar" aria-label="{label}" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent:.0f}"'
    )
    return bar.replace("<span ", f"<span {about} ", 1)


def _display() -> Show:
    """Make a function that shows something with IPython, and replaces it from then on."""
    handle: Any = None

    def show(bundle: Mapping[str, str]) -> None:
        nonlocal handle
        if handle is None:
            from IPython.display import display  # noqa: PLC0415  (there is IPython where this is called)

            handle = display(dict(bundle), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            handle.update(dict(bundle), raw=True)

    return show
