"""What every executor promises (`fairtrial.executors.base`), asked of each."""

import hashlib
import json
import random
from contextlib import suppress
from datetime import UTC
from functools import partial
from pathlib import Path
from time import sleep

import pytest

import loops
from fairtrial import digest_results
from fairtrial.executors.base import Ended, Epoch, Fingerprinted, Started
from fairtrial.executors.inline import InlineExecutor
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.executors.ray.executor import RayExecutor
from fairtrial.runner import run
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.trial import Outcome

EXECUTORS = {
    "inline": (InlineExecutor, 1),
    "one worker": (partial(LocalExecutor, workers=1), 1),
    "two workers": (partial(LocalExecutor, workers=2), 2),
    "ray": (partial(RayExecutor, workers=2), 2),
}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) if name == "ray" else name for name in EXECUTORS])
def kind(request):
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    return EXECUTORS[request.param]


@pytest.fixture
def side_by_side(kind):
    return kind[1]


@pytest.fixture
def make(kind):
    """Make an executor of a training loop."""
    return lambda loop: kind[0](loop, loops.machine)


@pytest.fixture
def trials(make_study):
    return plan(make_study(seeds=3))


def execute(executor, trials):
    with executor:
        for trial in trials:
            executor.submit(trial)
        return [message for message in executor.messages() if message is not None]


def digest(messages):
    """SHA-256 of all that came of all trials but the times."""
    told = {}
    for message in messages:
        story = told.setdefault(message.trial.hash, [])
        if isinstance(message, Epoch):
            metrics = {k: float(v).hex() for k, v in message.record.metrics.items() if not k.endswith("_seconds")}
            story.append([message.record.arm, message.record.seed, message.record.epoch, metrics])
        if isinstance(message, Fingerprinted):
            story.append(message.fingerprints)
        if isinstance(message, Ended):
            story.append([message.outcome, message.detail.strip().split("\n")[-1]])
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def test_each_trial_tells_its_story_in_order(make, trials):
    messages = execute(make(loops.good), trials)
    for trial in trials:
        begin, *epochs, end = [message for message in messages if message.trial == trial]
        assert isinstance(begin, Started)
        assert isinstance(end, Ended)
        assert begin.machine == loops.machine()
        assert [epoch.record.epoch for epoch in epochs] == [1, 2, 3]
        assert {(epoch.record.arm, epoch.record.seed) for epoch in epochs} == {(trial.arm, trial.seed)}
        assert [epoch.record.metrics for epoch in epochs] == list(loops.good(trial))
        assert (end.outcome, end.detail) == (Outcome.FINISHED, "")
        assert begin.at <= end.at
        assert begin.at.tzinfo is end.at.tzinfo is UTC


def test_trials_start_in_the_order_of_submission(make, trials, side_by_side):
    unfinished = []
    waiting = list(trials)
    for message in execute(make(loops.good), trials):
        if isinstance(message, Started):
            assert message.trial in waiting[:side_by_side]
            waiting.remove(message.trial)
            unfinished.append(message.trial)
            assert len(unfinished) <= side_by_side
        if isinstance(message, Ended):
            unfinished.remove(message.trial)
    assert (waiting, unfinished) == ([], [])


def test_messages_name_the_very_trial_that_was_submitted(make, trials):
    assert {id(message.trial) for message in execute(make(loops.good), trials)} == set(map(id, trials))


def test_every_end_of_a_loop_is_an_outcome(make, mixed_study):
    ends = [message for message in execute(make(loops.mixed), plan(mixed_study)) if isinstance(message, Ended)]
    assert {(end.trial.arm, end.outcome, end.detail.strip().split("\n")[-1]) for end in ends} == {
        ("well", Outcome.FINISHED, ""),
        ("nan", Outcome.DIVERGED, "train_loss is nan after epoch 2"),
        ("inf", Outcome.DIVERGED, "test_loss is inf after epoch 2"),
        ("says_so", Outcome.DIVERGED, "weights exploded in epoch 2"),
        ("raises", Outcome.FAILED, "RuntimeError: boom"),
        ("no_record", Outcome.FAILED, "TypeError: a training loop must yield a dict of metrics, not float"),
        ("empty", Outcome.FAILED, "ValueError: the training loop yielded an empty record in epoch 2"),
        (
            "percent",
            Outcome.FAILED,
            "ValueError: test_acc = 81.5 in epoch 2: accuracies are fractions, from 0 to 1",
        ),
        ("too_many", Outcome.FAILED, "ValueError: the training loop yielded more than its 3 epochs"),
    }
    assert len(ends) == len(plan(mixed_study))
    assert all("loops.py" in end.detail for end in ends if end.trial.arm == "raises")


def test_trials_may_be_submitted_while_messages_are_read(make, trials):
    first, *more = trials
    ended = []
    with make(loops.good) as executor:
        executor.submit(first)
        for message in executor.messages():
            if isinstance(message, Ended):
                ended.append(message.trial)
                if more:
                    executor.submit(more.pop(0))
    assert ended == list(trials)


def test_messages_may_be_asked_for_again(make, trials):
    with make(loops.good) as executor:
        assert set(executor.messages()) <= {None}
        for trial in trials[:2]:
            executor.submit(trial)
            assert [message.trial for message in executor.messages() if message] == [trial] * 5
        assert set(executor.messages()) <= {None}


def test_progress_goes_to_the_listener_of_the_trial(make, make_study):
    heard = []

    class Listening:
        def __call__(self, trial, batch, batches, metrics):
            heard.append((trial, batch, batches, metrics))

    (trial,) = plan(make_study(seeds=1, arms={"a": {}}))
    object.__setattr__(trial, "listener", Listening())
    messages = execute(make(loops.good), [trial])
    assert heard[0] == (trial, 1, 2, {"train_acc": 0.5})
    assert heard[0][0] is trial
    assert all(message.trial.listener is trial.listener for message in messages)


def test_fingerprints_come_before_the_record_of_their_epoch(make, make_study):
    trials = plan(make_study(arms={"a": {}, "b": {"params": {"end": "raises"}}}))
    messages = execute(make(loops.telling), trials)
    for trial in trials:
        first = {"initial_weights": f"weights {trial.seed}", "batch_order": "not known yet"}
        second = first | {"batch_order": f"order {trial.seed}", "data": "all"}
        told = [told_by(message) for message in messages if message.trial == trial]
        if trial.arm == "a":
            assert told == [Started, first, 1, second, 2, 3, Ended]
        else:
            assert told == [Started, first, 1, second, 2, second | {"data": "none"}, Ended]


def told_by(message):
    match message:
        case Fingerprinted(_, fingerprints):
            return fingerprints
        case Epoch(_, record):
            return record.epoch
    return type(message)


def test_a_trial_that_runs_again_forgets_its_fingerprints(make, make_study):
    (trial,) = plan(make_study(seeds=1, arms={"a": {}}))
    trial.fingerprint(initial_weights="of an attempt before", other="too")
    told = [told_by(message) for message in execute(make(loops.good), [trial])]
    assert told == [Started, 1, 2, 3, Ended]


def test_a_fingerprint_that_is_no_text_fails_the_trial(make, make_study):
    (trial,) = plan(make_study(seeds=1, arms={"a": {}}))
    (_, end) = execute(make(loops.telling_nonsense), [trial])
    assert end.outcome is Outcome.FAILED
    assert end.detail.endswith("TypeError: fingerprint initial_weights must be a string, not int\n")


@pytest.mark.parametrize("leave_by", ["closing the messages", "leaving the context", "an error"])
def test_leaving_early_stops_what_runs_and_what_waits(make, make_study, leave_by, side_by_side):
    first, second, *others = plan(make_study(seeds=2))
    running = [first, second][:side_by_side]
    with suppress(KeyboardInterrupt), make(loops.beating) as executor:
        for trial in (first, second, *others):
            executor.submit(trial)
        messages = executor.messages()
        while not all(file.exists() for file in beats(running)):
            next(messages)
        if leave_by == "closing the messages":
            messages.close()
            assert not still_beating(beats(running))
        if leave_by == "an error":
            raise KeyboardInterrupt
    assert not still_beating(beats(running))
    assert not any(file.exists() for file in beats(others))


def beats(trials):
    return [Path(f"{trial.arm}{trial.seed}") for trial in trials]


def still_beating(files):
    before = [file.stat().st_size for file in files]
    sleep(0.2)
    return [file.stat().st_size for file in files] != before


def test_results_do_not_depend_on_the_executor_or_the_order(make, mixed_study):
    trials = list(plan(mixed_study))
    expected = digest(execute(InlineExecutor(loops.mixed, loops.machine), trials))
    assert digest(execute(make(loops.mixed), trials)) == expected
    random.Random(1).shuffle(trials)
    assert digest(execute(make(loops.mixed), trials)) == expected


class Shuffled:
    """Hands trials to an executor in another order than it gets them."""

    def __init__(self, executor):
        self.executor, self.checkpoints, self.waiting = executor, executor.checkpoints, []

    def __enter__(self):
        self.executor.__enter__()
        return self

    def __exit__(self, *exc_info):
        self.executor.__exit__(*exc_info)

    def submit(self, trial):
        self.waiting.append(trial)

    def messages(self):
        random.Random(2).shuffle(self.waiting)
        for trial in self.waiting:
            self.executor.submit(trial)
        return self.executor.messages()


def stored_digest(study, executor, name):
    """What `fairtrial digest` says of a study that an executor has run, into a store of its own."""
    with SQLStore(f"{name}.db") as store:
        return digest_results(run(study, store=store, executor=executor).results)


@pytest.mark.parametrize("loop", ["mixed", "telling"])
def test_a_study_has_the_same_digest_whatever_runs_it_and_in_which_order(make, mixed_study, make_study, loop):
    arms = {"a": {}, "b": {"params": {"pace": 2}}, "c": {"params": {"end": "raises"}}}
    study = mixed_study if loop == "mixed" else make_study(seeds=3, arms=arms)
    expected = stored_digest(study, InlineExecutor(getattr(loops, loop), loops.machine), "reference")
    assert stored_digest(study, make(getattr(loops, loop)), "plain") == expected
    assert stored_digest(study, Shuffled(make(getattr(loops, loop))), "shuffled") == expected


@pytest.fixture
def one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_real_training_gives_the_same_bits(kind, make_study, one_thread):
    from fairtrial.training import prepare as training
    from fairtrial.training.machine import describe_process, use_threads

    study = make_study(
        seeds=1,
        data={"name": "digits", "train": 64, "test": 40},
        model={"width": 0.5},
        training={"epochs": 1, "batch_size": 16},
        arms={"a": {}, "b": {"optimizer": {"betas": [0.9, 0.99]}}},
    )
    expected = execute(InlineExecutor(training.run, loops.machine), plan(study))
    options = {} if kind[0] is InlineExecutor else {"set_up": partial(use_threads, 1)}
    messages = execute(kind[0](training.run, describe_process, **options), plan(study))
    assert digest(messages) == digest(expected)
    assert [message.outcome for message in messages if isinstance(message, Ended)] == [Outcome.FINISHED] * 2
    if options:
        assert {message.machine.threads for message in messages if isinstance(message, Started)} == {1}
