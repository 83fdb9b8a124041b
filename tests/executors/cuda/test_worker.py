"""The inside of a process with many trials."""

import pytest

import loops
from fairtrial.errors import CheckpointError, RecordError, Stopped
from fairtrial.executors.base import Started
from fairtrial.executors.cuda import worker
from fairtrial.executors.cuda.levels import TURNS_TO_SETTLE
from fairtrial.executors.cuda.worker import Turns, ends_process
from fairtrial.executors.session import CantContinue
from fairtrial.scheduler import plan
from fairtrial.trial import Turn


class Outbox(list):
    send = list.append


@pytest.fixture
def some(make_study):
    return plan(make_study(seeds=3))


@pytest.fixture
def naps(monkeypatch):
    found = []
    monkeypatch.setattr(worker, "sleep", found.append)
    return found


def of(script, outbox, memory=None):
    """Turns of trials that all do what a script says: turns, messages, errors."""

    def start(trial):
        for item in script:
            if isinstance(item, BaseException):
                raise item
            yield (trial.hash, item) if isinstance(item, str) else item

    return Turns(outbox, start, memory) if memory else Turns(outbox, start)


def test_each_has_its_turn_after_the_other(some, naps):
    outbox = Outbox()
    turns = of(["one", Turn.OVER, "two", Turn.OVER, "three"], outbox)
    for trial in some[:2]:
        turns.add(trial)
    while not turns.idle:
        turns.round()
    first, second = (trial.hash for trial in some[:2])
    assert outbox == [
        (first, "one"),
        (first, "two"),
        (second, "one"),
        (first, "three"),
        (second, "two"),
        (second, "three"),
    ]
    assert naps == []


def test_it_sleeps_only_where_all_wait(some, naps):
    turns = of([Turn.WAITS, Turn.OVER, Turn.WAITS], Outbox())
    turns.add(some[0])
    for expected in (1, 1, 2, 2):
        turns.round()
        assert len(naps) == expected


def test_the_next_starts_where_there_is_room_for_what_the_others_took(some, naps):
    memory = [1000, 0]
    running = of([Turn.OVER] * 100, Outbox(), lambda: tuple(memory))
    for trial in some:
        running.add(trial)
    running.round()
    memory[1] = 100
    for _ in range(TURNS_TO_SETTLE - 1):
        running.round()
        assert len(running._running) == 1  # nobody knows yet what one takes
    memory[0] = 150  # less than twice as much as the first has taken
    running.round()
    assert len(running._running) == 1
    memory[0] = 250
    running.round()
    assert len(running._running) == 2


@pytest.mark.parametrize("error", [CheckpointError("disk full"), RecordError("in percent")])
def test_an_error_that_all_would_meet_is_reported(some, naps, error):
    outbox = Outbox()
    turns = of([Turn.OVER, error], outbox)
    turns.add(some[0])
    while not turns.idle:
        turns.round()
    assert outbox == [CantContinue(error)]


def test_all_that_run_stop_and_none_that_waits_starts(some, naps):
    outbox = Outbox()
    turns = of(["begun", Turn.OVER, Stopped()], outbox)
    for trial in some:
        turns.add(trial)
    turns.round()
    turns.stop()
    assert turns.idle
    assert outbox == [(some[0].hash, "begun")]


def test_an_error_of_a_trials_own_passes_through(some, naps):
    turns = of([ValueError("of the machine's description")], Outbox())
    turns.add(some[0])
    with pytest.raises(ValueError, match="description"):
        turns.round()


def named(name, text="x"):
    return type(name, (RuntimeError,), {})(text)


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (named("OutOfMemoryError"), True),
        (named("AcceleratorError"), True),
        (RuntimeError("CUDA error: unspecified launch failure"), True),
        (RuntimeError("CUDA driver error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (MemoryError(), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("CUDA error"), False),
    ],
)
def test_which_errors_end_the_process(error, ends):
    assert ends_process(error) is ends


def test_a_trial_that_has_started_says_so_first(some):
    from fairtrial.executors.base import run_in_turns

    first, *_ = run_in_turns(some[0], loops.good, loops.machine())
    assert isinstance(first, Started)
