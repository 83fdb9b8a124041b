"""Progress while a study runs: bars on a terminal, lines elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from time import perf_counter
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, Task, TaskID, TextColumn, TransferSpeedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fairtrial.callbacks import Callback
from fairtrial.executors.slots import Slots
from fairtrial.report.forecast import Forecast
from fairtrial.report.words import count
from fairtrial.spec import Study
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial

#: Seconds between two estimates of the time that is left: numbers that jump with every batch can't be read.
SECONDS_AN_ESTIMATE = 0.5

#: Least columns of a bar; of the percentage with the gaps around it; and of a name, beside a note and its first part.
BAR, PERCENT, NAME, SHORT_NAME = 8, 6, 28, 18


class ProgressDisplay(Callback):
    """Shows a study's progress: the whole of it with the time left, and every running trial with its accuracy.

    Args:
        console: where to show it. If it is no terminal, or one that can't move its cursor, a line is printed for each
            epoch instead of moving bars.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._forecast = Forecast()
        self._left, self._at_most, self._next_estimate = "", "", 0.0
        self._slots: Slots | None = None
        self._machine_told = False
        self._trials: Sequence[Trial] = ()
        self._numbers: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        self._tasks: dict[str, TaskID] = {}
        self._whole: TaskID | None = None
        self._downloads: DownloadBar | None = None
        self._moving = moves(self._console)
        self._progress = TrialRows(self._console, disable=not self._moving)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop_downloads()
        self._progress.stop()

    def on_download(self, done: int, total: int | None, what: str) -> None:
        """Show how far a fetch is."""
        if self._downloads is None:
            self._downloads = DownloadBar(self._console).__enter__()
        self._downloads(done, total, what)

    def on_plan(self, study: Study, trials: Sequence[Trial], missing: Sequence[Trial]) -> None:
        """Say what is about to run."""
        self._stop_downloads()
        self._trials = trials
        self._numbers = {trial.hash: number for number, trial in enumerate(trials, start=1)}
        self._forecast, self._next_estimate = Forecast(missing), 0.0
        self._at_most = "at most " if study.sequential and missing else ""
        self._slots, self._machine_told = None, False
        there = len(trials) - len(missing)
        self._say(
            f"{study.label}: {count(len(study.arms), 'arm')}, {seeds_of(study)}, {self._at_most}"
            f"{count(len(trials), 'trial')}" + (f", {there} of them done already" if there else "")
        )
        if missing:
            self._progress.start()
            self._whole = self._progress.add_task("study", total=1.0, note="")

    def on_workers(self, slots: Slots) -> None:
        """Take note of how many trials will run side by side."""
        self._slots = slots
        self._forecast.workers = slots.workers

    def on_trial_start(self, trial: Trial, machine: Machine) -> None:
        """Show a trial that begins; with the first one, the machine."""
        self._forecast.began(trial, perf_counter())
        if not self._machine_told:
            self._machine_told = True
            layers = f"; {machine.layers}" if machine.layers else ""
            self._say(f"on {_processor(machine)}, {_room(self._slots, machine)}{layers}")
        if trial.hash in self._tasks:
            self._progress.remove_task(self._tasks[trial.hash])
            self._say(f"{self._name(trial)}: has lost its worker, and begins again", style="yellow")
        self._epochs[trial.hash] = 0
        self._tasks[trial.hash] = self._progress.add_task(self._name(trial), total=trial.epochs, note="")

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
        note = f"epoch {record.epoch}/{trial.epochs}  {_accuracies(record.metrics)}".rstrip()
        self._update(trial, record.epoch, note)
        if not self._moving:
            self._say(f"{self._name(trial)}, {note}{self._left}")

    def on_trial_end(self, trial: Trial, outcome: Outcome, detail: str) -> None:
        """Show how a trial ended; of a failure the line that says why, for its traceback is in the store."""
        self._forecast.ended(trial, perf_counter())
        self._show_whole()
        task = self._tasks.pop(trial.hash, None)
        if task is not None:
            self._progress.remove_task(task)
        if outcome is Outcome.DIVERGED:
            self._say(f"{self._name(trial)}: diverged: {detail}", style="yellow")
        elif outcome is Outcome.FAILED:
            self._say(f"{self._name(trial)}: failed: {reason(detail)}", style="red")
        elif self._moving:
            self._say(f"{self._name(trial)}: finished")

    def on_warning(self, trial: Trial, text: str) -> None:
        """Say what a user should know of a trial."""
        self._say(f"{self._name(trial)}: {text}", style="yellow")

    def on_arm_stopped(self, study: Study, arm: str, seeds: int, reason: str) -> None:  # noqa: ARG002
        """Say that an arm gets no further seeds, and why, and count on none."""
        for trial in self._trials:
            if trial.arm == arm and trial.seed >= seeds:
                self._forecast.spare(trial)
        self._say(f"{arm}: stopped after {count(seeds, 'seed')}, {reason}")

    def _stop_downloads(self) -> None:
        """Take the download's bars away: a terminal shows one set of moving bars at a time."""
        if self._downloads is not None:
            self._downloads.__exit__(None, None, None)
            self._downloads = None

    def _update(self, trial: Trial, epochs: float, note: str) -> None:
        self._forecast.at(trial, epochs, perf_counter())
        if trial.hash in self._tasks:
            self._progress.update(self._tasks[trial.hash], completed=epochs, note=note)
        self._show_whole()

    def _show_whole(self) -> None:
        """Show how far the whole study is."""
        now = perf_counter()
        if now >= self._next_estimate:
            self._next_estimate = now + SECONDS_AN_ESTIMATE
            seconds = self._forecast.seconds_left(now)
            done = seconds is None or self._forecast.fraction == 1.0
            self._left = "" if done or seconds is None else f", {self._at_most}{duration(max(seconds, 1.0))} left"
        if self._whole is not None:
            self._progress.update(self._whole, completed=self._forecast.fraction, note=self._left.lstrip(", "))

    def _name(self, trial: Trial) -> str:
        return f"trial {self._numbers.get(trial.hash, '?')}/{len(self._numbers)} {trial.arm} seed {trial.seed}"

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(escape(text), style=style or None, soft_wrap=True, highlight=False)


class TrialRows(Progress):
    """A row for the study and for each running trial, fitted to the width of the screen."""

    def __init__(self, console: Console, *, disable: bool) -> None:
        self._screen = console  # rich lays its rows out before it has its own
        super().__init__(console=console, transient=True, disable=disable)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Lay the rows out: name, bar, percentage, note."""
        shown = list(tasks)
        rows = [(task.description, str(task.fields.get("note", ""))) for task in shown]
        texts, bar = fit(rows, self._screen.width)
        table = Table.grid(padding=(0, 1))
        for justify in ("left", "left", "right", "left")[: 4 if bar else 3]:
            table.add_column(no_wrap=True, justify=justify)  # type: ignore[arg-type]  # one of rich's words
        for task, (name, note) in zip(shown, texts, strict=True):
            bars = [ProgressBar(task.total, task.completed, width=bar)] if bar else []
            table.add_row(Text(name), *bars, Text(f"{task.percentage:.0f}%"), Text(note))
        return table


def fit(rows: Sequence[tuple[str, str]], width: int) -> tuple[list[tuple[str, str]], int]:
    """Shorten names and notes to fit a screen beside a bar and a percentage.

    What goes first: the batch in a note, then parts of names, then all of a note but its first part, then the bar.

    Args:
        rows: name and note of each; a note's parts stand two blanks apart.
        width: columns of the screen.

    Returns:
        The names and notes, and the columns of the bar, 0 for none.
    """
    longest = max((len(name) for name, _ in rows), default=0)
    for bar in (BAR, 0):
        for kept in (_all, _no_batch, _first):
            notes = [kept(note) for _, note in rows]
            room = width - PERCENT - max(map(len, notes), default=0) - (bar + 1 if bar else 0)
            least = longest if kept is _all else NAME if kept is _no_batch else SHORT_NAME
            if room >= min(longest, least):
                names = [_shorten(name, room) for name, _ in rows]
                wide = min(40, bar + room - max(map(len, names), default=0)) if bar else 0
                return list(zip(names, notes, strict=True)), wide
    names = [_shorten(name, max(1, width - PERCENT)) for name, _ in rows]
    return [(name, "") for name in names], 0


def _all(note: str) -> str:
    return note


def _no_batch(note: str) -> str:
    return "  ".join(part for part in note.split("  ") if not part.startswith("batch"))


def _first(note: str) -> str:
    return note.split("  ", maxsplit=1)[0]


def _shorten(name: str, room: int) -> str:
    """Leave out the middle of a name; its last two words say which seed it is."""
    if len(name) <= room:
        return name
    end = min(len(" ".join(["", *name.split(" ")[-2:]])), room // 2)
    return f"{name[: room - end - 1]}…{name[len(name) - end :]}"


def moves(console: Console) -> bool:
    """Tell whether a console can show bars that move: a terminal, and not ``TERM=dumb``."""
    return console.is_terminal and not console.is_dumb_terminal


def reason(detail: str) -> str:
    r"""Find the line of a failure that says why: the first, or of a traceback the one below its last frame.

    Example:
        >>> reason("Traceback (most recent call last):\n  File ...\n    f()\nValueError: no\nmore of it")
        'ValueError: no'
    """
    lines = detail.strip().splitlines() or [""]
    if not lines[0].startswith("Traceback"):
        return lines[0]
    last = list(takewhile(lambda line: not line.startswith(" "), reversed(lines)))
    return last[-1] if last else lines[-1].strip()


class DownloadBar:
    """Shows how far a fetch is; to be called with bytes done, bytes in all (None if unknown) and what is fetched.

    Args:
        console: where to show it. If it is no terminal, a line is printed as each thing begins.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=self._console,
            transient=True,
            disable=not moves(self._console),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int | None, what: str) -> None:
        """Show progress."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
            if not moves(self._console):
                self._console.print(escape(what), soft_wrap=True, highlight=False)
        self._progress.update(self._tasks[what], completed=done, total=total)


def duration(seconds: float) -> str:
    """Write a duration as people say it: ``42 s``, ``3 min 10 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _processor(machine: Machine) -> str:
    return machine.processor if machine.device == "cpu" else machine.device


def _room(slots: Slots | None, machine: Machine) -> str:
    """Write what trials have to themselves: ``2 workers with 1 thread each``."""
    if slots is None:
        return count(machine.threads, "thread")
    room = f"{count(slots.workers, 'worker')} with {count(slots.threads, 'thread')} each"
    return room + (f", more than its {count(slots.cores, 'core')} can run at once" if slots.crowded else "")


def _accuracies(metrics: Mapping[str, float]) -> str:
    shown = {"training": "train_acc", "validation": "val_acc", "test": "test_acc"}
    return "  ".join(f"{name} {metrics[key]:.2%}" for name, key in shown.items() if key in metrics)


def seeds_of(study: Study) -> str:
    """Write how many seeds a study has: ``3 seeds``, ``3 to 12 seeds``."""
    return (f"{study.min_seeds} to " if study.sequential else "") + count(study.seeds, "seed")
