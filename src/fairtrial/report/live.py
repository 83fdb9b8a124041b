"""Progress while a study runs: bars on a terminal, lines elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from time import perf_counter
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TransferSpeedColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fairtrial import progress
from fairtrial.callbacks import Callback
from fairtrial.executors.slots import Slots
from fairtrial.report.forecast import Forecast
from fairtrial.report.words import count, duration
from fairtrial.spec import Study
from fairtrial.text import one_line
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial

#: Seconds between two estimates of the time that is left: numbers that jump with every batch can't be read.
SECONDS_PER_ESTIMATE = 0.5

#: Least columns of a bar; of a percentage with its gaps; of a name beside a note, and beside the note's first part.
BAR, PERCENT, NAME, SHORT_NAME = 8, 6, 28, 18


class ProgressDisplay(Callback):
    """Shows a study's progress: the whole study with the time left, and each running trial with its accuracy.

    A console that can't move its cursor gets a line for each epoch instead of moving bars.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._forecast = Forecast()
        self._left, self._at_most, self._next_estimate = "", "", 0.0
        self._slots: Slots | None = None
        self._machine_shown = False
        self._trials: Sequence[Trial] = ()
        self._names: dict[str, str] = {}
        self._epochs: dict[str, int] = {}
        self._tasks: dict[str, TaskID] = {}
        self._study_task: TaskID | None = None
        self._downloads: DownloadBar | None = None
        self._computations = ComputationBar(console)
        self._told = progress.shown_by(self._on_computation)
        self._progress = TrialRows(console=self._console, transient=True, disable=not moves(self._console))

    def __enter__(self) -> Self:
        self._told.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._told.__exit__(None, None, None)
        self._computations.__exit__()
        self._stop_downloads()
        self._progress.stop()

    def on_download(self, done: int, total: int | None, what: str) -> None:
        """Show how far a download is."""
        if self._downloads is None:
            self._downloads = DownloadBar(self._console)
            self._downloads.start()
        self._downloads(done, total, what)

    def on_plan(self, study: Study, trials: Sequence[Trial], missing: Sequence[Trial]) -> None:
        """Print what is about to run."""
        self._stop_downloads()
        self._trials = trials
        self._names = {
            trial.hash: f"trial {number}/{len(trials)} {trial.arm} seed {trial.own_seed}"
            for number, trial in enumerate(trials, start=1)
        }
        self._forecast, self._next_estimate = Forecast(missing), 0.0
        self._at_most = "at most " if study.sequential and missing else ""
        self._slots, self._machine_shown = None, False
        seeds = (f"{study.min_seeds} to " if study.sequential else "") + count(study.seeds, "seed")
        done = len(trials) - len(missing)
        planned = f"{self._at_most}{count(len(trials), 'trial')}" + (f", {done} already done" if done else "")
        self._print(f"{study.label}: {count(len(study.arms), 'arm')}, {seeds}, {planned}")
        for task in self._progress.task_ids:  # of a run that another took trials from: it plans again
            self._progress.remove_task(task)
        self._tasks.clear()
        if missing:
            self._progress.start()
            self._study_task = self._progress.add_task("study", total=1.0, note="")

    def on_workers(self, slots: Slots) -> None:
        """Note how many trials will run side by side."""
        self._slots = slots
        self._forecast.workers = slots.gpus or slots.workers  # on a GPU, those that run count

    def on_trial_start(self, trial: Trial, machine: Machine) -> None:
        """Show a trial that begins; with the first one, the machine."""
        self._forecast.began(trial, perf_counter())
        if not self._machine_shown:
            self._machine_shown = True
            processor = machine.processor if machine.device == "cpu" else machine.device
            layers = f"; {machine.layers}" if machine.layers else ""
            self._print(f"on {processor}, {_workers(self._slots, machine)}{layers}")
        if trial.hash in self._tasks:
            self._progress.remove_task(self._tasks[trial.hash])
            self._print_about(trial, "worker died; restarting the trial", style="yellow")
        self._epochs[trial.hash] = 0
        self._tasks[trial.hash] = self._progress.add_task(self._names[trial.hash], total=trial.epochs, note="")

    def on_progress(self, trial: Trial, batch: int, batches: int, metrics: Mapping[str, float]) -> None:
        """Show how far a trial is within its epoch."""
        epoch = self._epochs.get(trial.hash, 0)
        note = f"epoch {epoch + 1}/{trial.epochs}  batch {batch}/{batches}"
        if "train_acc" in metrics:
            note += f"  training {metrics['train_acc']:.1%}"
        self._update(trial, epoch + batch / batches, note)

    def on_epoch(self, trial: Trial, record: EpochRecord) -> None:
        """Show an epoch's record."""
        self._epochs[trial.hash] = record.epoch
        names = {"training": "train_acc", "validation": "val_acc", "test": "test_acc"}
        accuracies = [f"{name} {record.metrics[key]:.2%}" for name, key in names.items() if key in record.metrics]
        note = "  ".join([f"epoch {record.epoch}/{trial.epochs}", *accuracies])
        self._update(trial, record.epoch, note)
        if self._progress.disable:
            self._print(f"{self._names[trial.hash]}, {note}{self._left}")

    def on_trial_end(self, trial: Trial, outcome: Outcome, detail: str) -> None:
        """Print how a trial ended; of a failure the line with its reason, because the store has the traceback."""
        self._forecast.ended(trial, perf_counter())
        self._show_study()
        if trial.hash in self._tasks:
            self._progress.remove_task(self._tasks.pop(trial.hash))
        if outcome is Outcome.DIVERGED:
            self._print_about(trial, f"diverged: {detail}", style="yellow")
        elif outcome is Outcome.FAILED:
            self._print_about(trial, f"failed: {reason(detail)}", style="red")
        elif not self._progress.disable:
            self._print_about(trial, "finished")

    def on_warning(self, trial: Trial | None, text: str) -> None:
        """Print a warning about a trial or the study."""
        if trial is None:
            self._print(text)
        else:
            self._print_about(trial, text, style="yellow")

    def on_arm_stopped(self, study: Study, arm: str, seeds: int, reason: str) -> None:  # noqa: ARG002
        """Print why an arm gets no further seeds, and expect none."""
        for trial in self._trials:
            if trial.arm == arm and trial.seed >= seeds:
                self._forecast.cancel(trial)
        self._print(f"{arm}: stopped after {count(seeds, 'seed')}, {reason}")

    def _on_computation(self, done: int, total: int, what: str) -> None:
        """Show a computation, unless there are moving bars already."""
        if self._study_task is None and self._downloads is None:
            self._computations(done, total, what)

    def _stop_downloads(self) -> None:
        """Remove the download's bars: a terminal shows one set of moving bars at a time."""
        if self._downloads is not None:
            self._downloads.stop()
            self._downloads = None

    def _update(self, trial: Trial, epochs: float, note: str) -> None:
        self._forecast.reached(trial, epochs, perf_counter())
        if trial.hash in self._tasks:
            self._progress.update(self._tasks[trial.hash], completed=epochs, note=note)
        self._show_study()

    def _show_study(self) -> None:
        now = perf_counter()
        if now >= self._next_estimate:
            self._next_estimate = now + SECONDS_PER_ESTIMATE
            seconds = self._forecast.seconds_left(now)
            unknown = seconds is None or self._forecast.fraction == 1.0
            self._left = "" if unknown else f", {self._at_most}{duration(max(seconds or 0.0, 1.0))} left"
        if self._study_task is not None:
            self._progress.update(self._study_task, completed=self._forecast.fraction, note=self._left.lstrip(", "))

    def _print_about(self, trial: Trial, text: str, style: str = "") -> None:
        self._print(f"{self._names[trial.hash]}: {text}", style)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(one_line(text), style), soft_wrap=True)


class TextProgress(ProgressDisplay):
    """Shows progress on standard error for as long as a call of `fairtrial.run` takes."""

    def __init__(self) -> None:
        super().__init__(Console(stderr=True, highlight=False, soft_wrap=True))
        self.__enter__()

    def on_close(self) -> None:
        """Remove what moves."""
        self.__exit__()


class TrialRows(Progress):
    """A row for the study and for each running trial, fitted to the width of the screen."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Lay the rows out: name, bar, percentage, note."""
        shown = list(tasks)
        rows = [(one_line(task.description), str(task.fields.get("note", ""))) for task in shown]
        table = Table.grid(padding=(0, 1))
        if not rows:  # at first, when rich has not set its console yet
            return table
        texts, bar = fit(rows, self.console.width)
        for justify in ("left", "left", "right", "left")[: 4 if bar else 3]:
            table.add_column(no_wrap=True, justify=justify)  # type: ignore[arg-type]  # one of rich's words
        for task, (name, note) in zip(shown, texts, strict=True):
            bars = [ProgressBar(task.total, task.completed, width=bar)] if bar else []
            table.add_row(Text(name), *bars, Text(f"{task.percentage:.0f}%"), Text(note))
        return table


def fit(rows: Sequence[tuple[str, str]], width: int) -> tuple[list[tuple[str, str]], int]:
    """Shorten names and notes (their parts two blanks apart) to fit a screen beside a bar and a percentage.

    What is dropped first: the batch in a note, then parts of names, then all of a note but its first part, then the
    bar. Returns the names and notes, and the columns of the bar, 0 for none.
    """
    longest = max((len(name) for name, _ in rows), default=0)
    for bar in (BAR, 0):
        for shorten, least in ((str, longest), (_without_batch, NAME), (_first_part, SHORT_NAME)):
            notes = [shorten(note) for _, note in rows]
            left = width - PERCENT - max(map(len, notes), default=0) - (bar + 1 if bar else 0)
            if left >= min(longest, least):
                names = [_without_middle(name, left) for name, _ in rows]
                wide = min(40, bar + left - max(map(len, names), default=0)) if bar else 0
                return list(zip(names, notes, strict=True)), wide
    return [(_without_middle(name, max(1, width - PERCENT)), "") for name, _ in rows], 0


def _without_batch(note: str) -> str:
    return "  ".join(part for part in note.split("  ") if not part.startswith("batch"))


def _first_part(note: str) -> str:
    return note.split("  ", maxsplit=1)[0]


def _without_middle(name: str, width: int) -> str:
    """Leave out the middle of a name; its last two words are the seed."""
    if len(name) <= width:
        return name
    end = min(len(" ".join(["", *name.split(" ")[-2:]])), width // 2)
    return f"{name[: width - end - 1]}…{name[len(name) - end :]}"


def moves(console: Console) -> bool:
    """Tell whether a console can show moving bars: a terminal, and not ``TERM=dumb``."""
    return console.is_terminal and not console.is_dumb_terminal


def reason(detail: str) -> str:
    r"""Find the line with the reason of a failure: the first, or of a traceback the one below its last frame.

    Example:
        >>> reason("Traceback (most recent call last):\n  File ...\n    f()\nValueError: no\nmore of it")
        'ValueError: no'
    """
    lines = detail.strip().splitlines() or [""]
    if not lines[0].startswith("Traceback"):
        return lines[0]
    last = list(takewhile(lambda line: not line.startswith(" "), reversed(lines)))
    return last[-1] if last else lines[-1].strip()


class ComputationBar:
    """Shows long computations, as `fairtrial.progress` tells of them, once they keep a command waiting.

    A console that can't move its cursor shows nothing.
    """

    #: Seconds of a command, and of one computation, before anything is shown.
    PATIENCE, SHORTEST = 2.0, 0.3

    def __init__(self, console: Console, patience: float = PATIENCE) -> None:
        self._patience = patience
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not moves(console))
        self._since = perf_counter()
        self._began: float | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show progress; remove it with the last step."""
        now = perf_counter()
        self._began = now if self._began is None else self._began
        if done >= total:
            self._stop()
        elif self._task is not None:
            self._progress.update(self._task, completed=done)
        elif now - self._since > self._patience and now - self._began > self.SHORTEST and not self._progress.disable:
            self._task = self._progress.add_task(one_line(what), total=total, completed=done)
            self._progress.start()

    def _stop(self) -> None:
        self._began = None
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._progress.stop()
            self._task = None


class DownloadBar(Progress):
    """Shows downloads; call it with bytes done, bytes in all (None if unknown) and what is downloaded.

    A console that can't move its cursor gets a line as each download begins.
    """

    def __init__(self, console: Console) -> None:
        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn())
        super().__init__(*columns, console=console, transient=True, disable=not moves(console))
        self._by_name: dict[str, TaskID] = {}

    def __call__(self, done: int, total: int | None, what: str) -> None:
        """Show progress."""
        if total == 0:  # a warning
            self.console.print(Text(one_line(what), "yellow"), soft_wrap=True)
            return
        if what not in self._by_name:
            self._by_name[what] = self.add_task(one_line(what), total=total)
            if self.disable:
                self.console.print(Text(one_line(what)), soft_wrap=True)
        self.update(self._by_name[what], completed=done, total=total)


def _workers(slots: Slots | None, machine: Machine) -> str:
    """Write how many trials run side by side: ``2 workers with 1 thread each``."""
    if slots is None:
        return count(machine.threads, "thread")
    if slots.gpus:
        return f"up to {count(slots.workers, 'trial')} side by side, one process a GPU"
    workers = f"{count(slots.workers, 'worker')} with {count(slots.threads, 'thread')} each"
    return workers + (f", more than its {count(slots.cores, 'core')} can run at once" if slots.crowded else "")
