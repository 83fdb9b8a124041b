"""The display while a study runs: on terminals wide, narrow and dumb, and where there is none."""

import io

import pytest
from rich.console import Console

from builders import MACHINE, make_study
from fairtrial.progress import report
from fairtrial.report import live
from fairtrial.report.live import ComputationBar, ProgressDisplay, fit, reason
from fairtrial.report.words import duration
from fairtrial.scheduler import plan
from fairtrial.trial import EpochRecord, Outcome

LONG = {"baseline": {}, "very_high_smoothing_of_both_moments": {"optimizer": {"eps": 1e-6}}}
TRACEBACK = """Traceback (most recent call last):
  File "loop.py", line 3, in train
    raise ValueError("wrong\\nin two lines")
ValueError: wrong
in two lines
"""


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(live, "perf_counter", clock)
    return clock


def display(width=100, term="xterm", *, terminal=True):
    console = Console(
        file=io.StringIO(), force_terminal=terminal, width=width, height=20, color_system=None, _environ={"TERM": term}
    )
    return console, ProgressDisplay(console)


def rows(progress, width):
    """The moving rows as they stand on the screen."""
    out = Console(file=io.StringIO(), width=width, color_system=None)
    out.print(progress._progress.make_tasks_table(progress._progress.tasks))
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_every_row_says_how_far_it_is_whatever_the_width(width, clock):
    study = make_study(LONG, seeds=9, epochs=10)
    _, progress = display(width)
    with progress:
        progress.on_plan(study, plan(study), plan(study))
        for trial in plan(study)[:2]:
            progress.on_trial_start(trial, MACHINE)
        for clock.now in (1.0, 9.0):
            for trial in plan(study)[:2]:
                progress.on_progress(trial, int(clock.now), 10, {"train_acc": 0.25})
        lines = rows(progress, width)
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    whole, first, second = lines
    assert "%" in whole
    assert "left" in whole
    for line in (first, second):
        assert "9%" in line
        assert "epoch 1/10" in line
        assert "seed 0" in line
        assert ("━" in line or "╸" in line) == (width >= 60)
    assert all(("training 25.0%" in line) == (width >= 80) for line in (first, second))
    assert ("very_high_smoothing_of_both_moments" in second) == (width >= 120)


@pytest.mark.parametrize("width", range(1, 130, 3))
def test_texts_fit_any_width(width):
    given = [
        ("study", "at most 1 h 05 min left"),
        ("trial 12/45 very_high_smoothing seed 2", "epoch 3/10  batch 5/78  test 81.52%"),
    ]
    texts, bar = fit(given, width)
    widest = max(len(name) for name, _ in texts) + max(len(note) for _, note in texts)
    assert width < 10 or widest + (bar + 1 if bar else 0) + live.PERCENT <= width


def test_a_name_keeps_its_beginning_and_its_seed():
    texts, _ = fit([("trial 12/45 very_high_smoothing seed 2", "epoch 3/10")], 60)
    assert texts[0][0].startswith("trial 12/45 very_high")
    assert texts[0][0].endswith(" seed 2")


@pytest.mark.parametrize(("term", "terminal"), [("dumb", True), ("xterm", False)])
def test_where_nothing_can_move_there_is_a_line_for_each_epoch(term, terminal):
    study = make_study(("a",), seeds=1, epochs=2)
    (trial,) = plan(study)
    console, progress = display(term=term, terminal=terminal)
    with progress:
        progress.on_plan(study, [trial], [trial])
        progress.on_trial_start(trial, MACHINE)
        progress.on_progress(trial, 1, 2, {})
        for epoch in (1, 2):
            progress.on_epoch(trial, EpochRecord("a", 0, epoch, {"test_acc": 0.5}))
        progress.on_trial_end(trial, Outcome.FINISHED, "")
    lines = console.file.getvalue().splitlines()
    assert [line.partition(", ")[::2] for line in lines[2:]] == [
        ("trial 1/1 a seed 0", f"epoch {epoch}/2  test 50.00%") for epoch in (1, 2)
    ]
    assert "\x1b" not in console.file.getvalue()


def test_a_failure_is_one_line():
    study = make_study(("a",), seeds=2)
    first, second = plan(study)
    console, progress = display(terminal=False)
    with progress:
        progress.on_plan(study, [first, second], [first, second])
        progress.on_trial_end(first, Outcome.FAILED, TRACEBACK)
        progress.on_trial_end(second, Outcome.FAILED, "its worker process died: killed by SIGKILL\nmore")
    assert console.file.getvalue().splitlines()[1:] == [
        "trial 1/2 a seed 0: failed: ValueError: wrong",
        "trial 2/2 a seed 1: failed: its worker process died: killed by SIGKILL",
    ]


@pytest.mark.parametrize(("detail", "line"), [("", ""), ("\n", ""), ("Traceback (most\n  File", "File")])
def test_a_reason_is_found_in_any_text(detail, line):
    assert reason(detail) == line


def test_it_never_says_that_nothing_is_left_before_the_end(clock):
    """Twenty trials of 0.2 s after ten seconds of start-up, as a short study on a slow disk."""
    study = make_study(("a", "b"), seeds=10, epochs=2)
    trials = plan(study)
    console, progress = display(terminal=False)
    with progress:
        progress.on_plan(study, trials, trials)
        for trial in trials:
            progress.on_trial_start(trial, MACHINE)
            clock.now += 10.0 if trial is trials[0] else 0.0
            for epoch in (1, 2):
                clock.now += 0.6
                progress.on_epoch(trial, EpochRecord(trial.arm, trial.seed, epoch, {}))
            progress.on_trial_end(trial, Outcome.FINISHED, "")
    lines = console.file.getvalue().splitlines()[2:]
    assert not any(", 0 s left" in line for line in lines)
    assert "left" not in lines[0]  # too early to tell
    assert "left" not in lines[-1]
    said = [line.rpartition(", ")[2].removesuffix(" left") for line in lines if "left" in line]
    assert len(said) > 30
    # What is said may be wrong by the start-up of one trial, which is taken for that of all at first, but not for long.
    assert all("min" not in each for each in said[len(said) // 2 :])


def test_durations_as_people_say_them():
    assert [duration(seconds) for seconds in (0.4, 59.4, 190, 7500)] == ["0 s", "59 s", "3 min 10 s", "2 h 05 min"]


def computing(terminal, clock, *times):
    """What a console shows of a computation whose steps come at these times."""
    console, _ = display(terminal=terminal)
    with ComputationBar(console) as bar:
        for done, clock.now in enumerate(times):
            bar(done, len(times), "critical values")
        shown = [task.description for task in bar._progress.tasks]
        bar(len(times), len(times), "critical values")
        assert bar._progress.tasks == []
    return shown, console.file.getvalue()


@pytest.mark.parametrize(
    ("times", "shown"),
    [((0.0, 1.9), False), ((0.0, 1.0, 2.1), True), ((5.0, 5.2), False), ((5.0, 5.4), True)],
)
def test_a_computation_is_shown_once_it_keeps_a_command_waiting(clock, times, shown):
    assert computing(True, clock, *times)[0] == ["critical values"] * shown


def test_computations_are_not_shown_without_a_terminal(clock):
    assert computing(False, clock, 0.0, 3.0, 9.0) == ([], "")


def test_moving_bars_of_a_study_are_not_interrupted_by_a_computation(clock):
    study = make_study()
    _, running = display()
    with running:
        clock.now = 5.0
        report(0, 9, "looks")
        clock.now = 6.0
        report(1, 9, "looks")
        assert [task.description for task in running._computations._progress.tasks] == ["looks"]
        report(9, 9, "looks")
        running.on_plan(study, plan(study), plan(study))
        for clock.now in (7.0, 9.0):
            report(1, 9, "looks")
        assert running._computations._progress.tasks == []
