"""A reporting loop does what a generator with the same body does, and leaves no thread behind."""

import contextvars
import gc
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fairtrial
import loops
from fairtrial.bridge import reporting
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import Diverged, Stopped, StudyError
from fairtrial.executors.base import Ended, EpochFinished, run_trial
from fairtrial.scheduler import plan
from fairtrial.training import prepare
from fairtrial.trial import Machine, Outcome


def training_threads():
    """The threads of trainings that have not ended."""
    return [thread for thread in threading.enumerate() if thread.name == "fairtrial-training"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert training_threads() == []


def body(log, epochs, fails_at, cleanup_fails, report):
    """What a training does, with a trace of it; the same for a generator and for callbacks, but for `report`."""
    try:
        for epoch in range(epochs):
            log.append(f"train {epoch}")
            if epoch == fails_at:
                raise ValueError(f"failed in {epoch}")
            yield from report({"epoch": epoch})
            log.append(f"after {epoch}")
    except GeneratorExit:
        log.append("closed")
        raise
    finally:
        log.append("cleanup")
        if cleanup_fails:
            raise KeyError("cleanup")


def with_yield(log, *arguments):
    def report(record):
        yield record

    return body(log, *arguments, report)


def with_callback(log, *arguments):
    @reporting
    def train(trial, report):
        def take(record):
            report(record)
            return ()

        for _ in body(log, *arguments, take):
            pass

    return train(None)


def consume(generator, log, closes_after, throws):
    """Iterate over a generator, and close it or throw into it after some records."""
    try:
        for taken in count(1):
            log.append(f"got {next(generator)}")
            if taken == closes_after:
                if throws:
                    generator.throw(OSError("thrown"))
                generator.close()
                return
    except (ValueError, KeyError, OSError, StopIteration) as error:
        log.append(repr(error))


@given(
    epochs=st.integers(0, 4),
    fails_at=st.none() | st.integers(0, 4),
    cleanup_fails=st.booleans(),
    closes_after=st.none() | st.integers(1, 5),
)
def test_it_does_what_a_generator_does(epochs, fails_at, cleanup_fails, closes_after):
    """In the same order, step by step: whoever iterates and whoever trains never run at the same time."""
    logs = []
    for make in (with_yield, with_callback):
        log = []
        consume(make(log, epochs, fails_at, cleanup_fails), log, closes_after, throws=False)
        logs.append(log)
        assert training_threads() == []
    assert logs[0] == logs[1]


def test_an_exception_thrown_into_it_ends_the_training():
    log = []
    consume(with_callback(log, 3, None, False), log, closes_after=1, throws=True)
    assert log == ["train 0", "got {'epoch': 0}", "closed", "cleanup", "OSError('thrown')"]


def test_nothing_is_trained_before_the_first_record_is_asked_for():
    log = []
    generator = with_callback(log, 3, None, False)
    assert training_threads() == []
    del generator
    assert log == []


def test_an_abandoned_one_ends_its_training():
    log = []
    generator = with_callback(log, 3, None, False)
    next(generator)
    assert len(training_threads()) == 1
    del generator
    assert training_threads() == []
    assert log == ["train 0", "closed", "cleanup"]


def test_one_that_is_abandoned_in_a_cycle_ends_its_training():
    generator = with_callback([], 3, None, False)
    next(generator)
    cycle = [generator]
    cycle.append(cycle)
    del generator, cycle
    gc.collect()
    assert training_threads() == []


@pytest.mark.parametrize("held", ["generator", "[generator, print]", "None"])
def test_one_that_is_never_closed_does_not_keep_the_interpreter(held):
    program = f"""
import fairtrial
@fairtrial.reporting
def train(trial, report):
    while True:
        report({{}})
generator = train(None)
next(generator)
held = {held}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_training_that_ignores_the_end_gets_it_again():
    ends = []

    @reporting
    def train(trial, report):
        for _ in range(3):
            try:
                report({"a": 1})
            except GeneratorExit:
                ends.append(1)

    generator = train(None)
    next(generator)
    generator.close()
    assert ends == [1, 1, 1]


def test_an_error_has_the_traceback_of_the_training():
    @reporting
    def train(trial, report):
        report({"a": 1})
        raise ValueError("here")  # this line

    generator = train(None)
    assert next(generator) == {"a": 1}
    with pytest.raises(ValueError, match="here") as caught:
        next(generator)
    assert "# this line" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("error", [Diverged("in epoch 2"), Stopped(), SystemExit(3), MemoryError(), GeneratorExit()])
def test_whatever_it_raises_is_raised(error):
    @reporting
    def train(trial, report):
        raise error

    with pytest.raises(type(error)) as caught:
        list(train(None))
    assert caught.value is error


def test_a_stop_iteration_is_an_error_as_in_every_generator():
    @reporting
    def train(trial, report):
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(train(None))


@pytest.fixture
def _ctrl_c_raises():
    """Install Python's own handler, which a process in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c():
    """Send the signal to the main thread, as the system does first."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.mark.usefixtures("_ctrl_c_raises")
def test_ctrl_c_interrupts_the_training_where_it_is():
    log = []

    @reporting
    def train(trial, report):
        report({"a": 1})
        press_ctrl_c()
        try:
            while True:
                time.sleep(0.001)
        finally:
            log.append("cleanup")

    generator = train(None)
    next(generator)
    with pytest.raises(KeyboardInterrupt):
        next(generator)
    assert log == ["cleanup"]
    assert list(generator) == []


@pytest.mark.usefixtures("_ctrl_c_raises")
def test_ctrl_c_stays_one_where_the_cleaning_up_fails():
    @reporting
    def train(trial, report):
        try:
            press_ctrl_c()
            while True:
                time.sleep(0.001)
        finally:
            raise ValueError("cleanup")

    with pytest.raises(KeyboardInterrupt):
        next(train(None))


@pytest.mark.usefixtures("_ctrl_c_raises")
def test_ctrl_c_while_records_come_fast_is_never_lost():
    """Whatever the two threads are doing just then."""

    @reporting
    def train(trial, report):
        while True:
            report({"a": 1})

    for wait in range(30):
        timer = threading.Timer(wait / 3000, press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            timer.start()
            for _ in train(None):
                pass
            pytest.fail("it ended by itself")
        timer.join()
        gc.collect()
        assert training_threads() == []


def test_a_report_after_the_end_is_an_error():
    kept = []

    @reporting
    def train(trial, report):
        kept.append(report)

    assert list(train(None)) == []
    with pytest.raises(RuntimeError, match="the training has ended"):
        kept[0]({"a": 1})


def test_a_library_may_report_from_a_thread_of_its_own():
    @reporting
    def train(trial, report):
        for epoch in range(3):
            thread = threading.Thread(target=report, args=({"epoch": epoch},))
            thread.start()
            thread.join()

    assert list(train(None)) == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]


def test_context_variables_are_those_of_whoever_iterates():
    variable = contextvars.ContextVar("variable", default="none")

    @reporting
    def train(trial, report):
        report({"value": variable.get()})

    token = variable.set("mine")
    assert list(train(None)) == [{"value": "mine"}]
    variable.reset(token)


def test_nothing_of_a_failed_training_stays_in_memory():
    """A model on a GPU would take the next trial's memory; the garbage collector may come late."""

    class Model:
        pass

    models = []

    @reporting
    def train(trial, report):
        model = Model()
        models.append(weakref.ref(model))
        report({"a": 1})
        raise ValueError("failed")

    gc.disable()
    try:
        with pytest.raises(ValueError, match="failed") as caught:
            list(train(None))
        del caught
        assert models[0]() is None
    finally:
        gc.enable()


def test_torch_trains_the_same_bits_with_as_many_threads():
    import torch

    def steps(_):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1))
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(5):
            loss = model(torch.rand(512, 64)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield {"train_loss": loss.item(), "threads": torch.get_num_threads()}

    @reporting
    def train(trial, report):
        for record in steps(trial):
            report(record)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert list(train(None)) == list(steps(None))
    finally:
        torch.set_num_threads(before)


def trained(loop, trial, checkpoints=None):
    """Run a trial as executors do: its records and how it ended."""
    messages = [*run_trial(trial, loop, Machine({}, "", "cpu", 1, ""), checkpoints)]
    records = [message.record for message in messages if isinstance(message, EpochFinished)]
    (end,) = [message for message in messages if isinstance(message, Ended)]
    return records, end


@pytest.fixture
def trial(make_study):
    (first, *_) = plan(make_study(training={"epochs": 4, "loop": "mine:train"}))
    return first


def test_it_resumes_from_what_it_has_saved(trial):
    """Saving asks to stop from within the training's thread, after the record of its epoch."""

    @reporting
    def train(trial, report):
        total = trial.load() or 0
        while total < trial.epochs:
            total += 1
            report({"test_acc": total / 10})
            trial.save(total)

    for _ in range(4):
        with pytest.raises(Stopped):
            trained(train, trial, CheckpointManager("folder").open(trial, lambda: True))
    records, end = trained(train, trial, CheckpointManager("folder").open(trial, lambda: False))
    assert [record.metrics["test_acc"] for record in records] == [0.1, 0.2, 0.3, 0.4]
    assert end.outcome is Outcome.FINISHED


@pytest.mark.parametrize(
    ("records", "error", "outcome", "detail"),
    [
        ([], None, Outcome.FAILED, "yielded nothing"),
        ([{"test_acc": 0.5}], ValueError("boom"), Outcome.FAILED, "ValueError: boom"),
        ([{"test_acc": 0.5}], Diverged("in epoch 2"), Outcome.DIVERGED, "in epoch 2"),
        ([{"test_acc": 0.5}, {"train_loss": float("nan")}], None, Outcome.DIVERGED, "train_loss is nan"),
        ([{"test_acc": 0.5}, "text"], None, Outcome.FAILED, "must yield a dict"),
        ([{"test_acc": 0.5}] * 9, None, Outcome.FAILED, "more than its 4 epochs"),
        ([{"test_acc": 0.5}] * 3, None, Outcome.FINISHED, ""),
    ],
)
def test_a_trial_ends_as_that_of_a_generator_does(trial, records, error, outcome, detail):
    @reporting
    def train(trial, report):
        for record in records:
            report(record)
        if error is not None:
            raise error

    _, end = trained(train, trial)
    assert end.outcome is outcome
    assert detail in end.detail


def test_a_generator_is_refused():
    """Else it would train nothing, and report nothing."""
    with pytest.raises(TypeError, match="good yields; remove the decorator, or report where it yields"):
        reporting(loops.good)


def test_studies_find_it_and_one_without_the_decorator_is_told_of_it(monkeypatch):
    assert prepare.find("loops:endless_in_a_callback") is loops.endless_in_a_callback
    monkeypatch.setattr(loops, "plain", callback_alone, raising=False)
    with pytest.raises(StudyError, match=r"it has no yield \(from callbacks: see fairtrial.reporting\)"):
        prepare.find("loops:plain")


def callback_alone(trial, report):
    """Lack the decorator."""
    report({"test_acc": 0.5})


def test_it_is_named_as_its_function():
    study = fairtrial.Study(name="s", reference="a", training={"loop": at_the_top}, arms={"a": {}})
    assert study.arms[0].settings.training.loop == f"{__name__}:at_the_top"
    assert at_the_top.__doc__ == "Report once."


@reporting
def at_the_top(trial, report):
    """Report once."""
    report({"test_acc": 0.5})
