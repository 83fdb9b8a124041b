"""What every executor promises (`fairtrial.executors.base`), asked of each."""

import hashlib
import json
import random
from contextlib import suppress
from dataclasses import replace
from datetime import UTC
from functools import partial
from pathlib import Path
from time import sleep

import pytest

import loops
from fairtrial import digest_results
from fairtrial.errors import RecordError
from fairtrial.executors.base import Ended, EpochFinished, Fingerprinted, Progressed, SnapshotTaken, Started, Warned
from fairtrial.executors.cuda.executor import CudaExecutor
from fairtrial.executors.inline import InlineExecutor
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.executors.ray.executor import RayExecutor
from fairtrial.executors.records import RecordRules
from fairtrial.runner import run_study
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.testing import Instead
from fairtrial.trial import Outcome, TrialContext
from workloads import execute, opened, submit

EXECUTORS = {
    "inline": (InlineExecutor, 1),
    "one worker": (partial(LocalExecutor, workers=1), 1),
    "two workers": (partial(LocalExecutor, workers=2), 2),
    "one process a GPU": (partial(CudaExecutor, trials_per_gpu=1), 1),
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
    """Make an executor."""
    return kind[0]


@pytest.fixture
def trials(make_study):
    return plan(make_study(seeds=3))


def digest(messages):
    """SHA-256 of all that came of all trials but the times."""
    told = {}
    for message in messages:
        story = told.setdefault(message.trial_id, [])
        if isinstance(message, EpochFinished):
            metrics = {k: float(v).hex() for k, v in message.record.metrics.items() if not k.endswith("_seconds")}
            story.append([message.record.arm, message.record.seed, message.record.epoch, metrics])
        if isinstance(message, Fingerprinted):
            story.append(message.fingerprints)
        if isinstance(message, Ended):
            story.append([message.outcome, message.detail.strip().split("\n")[-1]])
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def test_each_trial_tells_its_story_in_order(make, trials):
    messages = execute(make(), loops.good, trials)
    for trial in trials:
        begin, *epochs, end = [message for message in messages if message.trial_id == trial.hash]
        assert isinstance(begin, Started)
        assert isinstance(end, Ended)
        assert begin.machine == loops.machine()
        assert [epoch.record.epoch for epoch in epochs] == [1, 2, 3]
        assert {(epoch.record.arm, epoch.record.seed) for epoch in epochs} == {(trial.arm, trial.seed)}
        assert [epoch.record.metrics for epoch in epochs] == list(loops.good(TrialContext(trial)))
        assert (end.outcome, end.detail, end.reads) == (Outcome.FINISHED, "", ("params.pace",))
        assert begin.at <= end.at
        assert begin.at.tzinfo is end.at.tzinfo is UTC


def test_trials_start_in_the_order_of_submission(make, trials, side_by_side):
    unfinished = []
    waiting = [trial.hash for trial in trials]
    for message in execute(make(), loops.good, trials):
        if isinstance(message, Started):
            assert message.trial_id in waiting[:side_by_side]
            waiting.remove(message.trial_id)
            unfinished.append(message.trial_id)
            assert len(unfinished) <= side_by_side
        if isinstance(message, Ended):
            unfinished.remove(message.trial_id)
    assert (waiting, unfinished) == ([], [])


@pytest.mark.parametrize("end", ["goes on", "sys.exit", "raises", "returns"])
def test_a_fork_that_comes_back_out_of_the_loop_reports_nothing(make, make_study, end):
    trials = plan(make_study(arms={"a": {"params": {"end": end}}}))
    messages = execute(make(), loops.forking, trials)
    epochs = [message.record.epoch for message in messages if isinstance(message, EpochFinished)]
    assert sorted(epochs) == [1, 1, 2, 2, 3, 3]
    assert [message.outcome for message in messages if isinstance(message, Ended)] == [Outcome.FINISHED] * 2


def test_every_end_of_a_loop_is_an_outcome(make, mixed_study):
    arms = {trial.hash: trial.arm for trial in plan(mixed_study)}
    ends = [message for message in execute(make(), loops.mixed, plan(mixed_study)) if isinstance(message, Ended)]
    assert {(arms[end.trial_id], end.outcome, end.detail.strip().split("\n")[-1]) for end in ends} == {
        ("well", Outcome.FINISHED, ""),
        ("nan", Outcome.DIVERGED, "train_loss is nan after epoch 2"),
        ("inf", Outcome.DIVERGED, "test_loss is inf after epoch 2"),
        ("says_so", Outcome.DIVERGED, "weights exploded in epoch 2"),
        ("raises", Outcome.FAILED, "RuntimeError: boom"),
        ("no_record", Outcome.FAILED, "TypeError: a training loop must yield a dict of metrics, not float"),
        ("empty", Outcome.FAILED, "ValueError: the training loop yielded an empty record in epoch 2"),
        ("too_many", Outcome.FAILED, "ValueError: the training loop yielded more than its 3 epochs"),
    }
    assert len(ends) == len(plan(mixed_study))
    assert all("loops.py" in end.detail for end in ends if arms[end.trial_id] == "raises")


def test_what_has_no_memory_beside_others_is_retried_with_none_beside_it(make, make_study, side_by_side):
    if side_by_side == 1:
        pytest.skip("no trial runs beside another")
    trials = plan(make_study(seeds=2, arms={"a": {}, "big": {"params": {"x": 1}}, "b": {"params": {"x": 2}}}))
    messages = execute(make(), loops.filling_memory, trials)
    assert [message.outcome for message in messages if isinstance(message, Ended)] == [Outcome.FINISHED] * 6
    warnings = [message.text for message in messages if isinstance(message, Warned)]
    assert warnings
    assert set(warnings) == {"out of memory, beside another trial; it will be retried alone"}


@pytest.mark.parametrize("first", loops.BAD)
def test_a_first_record_that_the_study_cannot_use_stops_it_and_no_trial_has_failed(make, make_study, first):
    study = make_study(
        seeds=3, arms={"a": {}, "b": {"params": {"x": 1}}}, training={"loop": "loops:badly"}, params={"first": first}
    )
    messages = []
    with opened(make(), loops.badly, rules=RecordRules.of(study)) as session:
        submit(session, *plan(study))
        with pytest.raises(RecordError, match=r'^training\.loop = "loops:badly", arm [ab], seed 0: '):
            messages.extend(session.messages())
    assert not any(isinstance(message, Ended | EpochFinished) for message in messages)


def test_accuracies_in_percent_that_begin_below_one_stop_the_study_and_no_trial_has_failed(make, make_study):
    study = make_study(seeds=2, arms={"a": {}, "b": {"params": {"x": 1}}}, training={"loop": "loops:in_percent"})
    messages = []
    with opened(make(), loops.in_percent, rules=RecordRules.of(study)) as session:
        submit(session, *plan(study))
        with pytest.raises(
            RecordError, match=r"test_acc = 20\.9 in epoch 2: must be a fraction, from 0 to 1; yield 0\.209$"
        ):
            messages.extend(session.messages())
    assert not any(isinstance(message, Ended) for message in messages)


def test_trials_may_be_submitted_while_messages_are_read(make, trials):
    first, *more = trials
    ended = []
    with opened(make(), loops.good) as session:
        session.submit(first)
        for message in session.messages():
            if isinstance(message, Ended):
                ended.append(message.trial_id)
                if more:
                    session.submit(more.pop(0))
    assert ended == [trial.hash for trial in trials]


def test_messages_may_be_asked_for_again(make, trials):
    with opened(make(), loops.good) as session:
        assert set(session.messages()) <= {None}
        for trial in trials[:2]:
            session.submit(trial)
            assert [message.trial_id for message in session.messages() if message] == [trial.hash] * 5
        assert set(session.messages()) <= {None}


def test_progress_is_told_at_once_and_is_no_message(make, make_study):
    heard = []
    (trial,) = plan(make_study(seeds=1, arms={"a": {}}))
    messages = execute(make(), loops.good, [trial], on_progress=heard.append)
    assert heard[0] == Progressed(trial.hash, 1, 2, {"train_acc": 0.5})
    assert not any(isinstance(message, Progressed) for message in messages)


def test_fingerprints_come_before_the_record_of_their_epoch(make, make_study):
    trials = plan(make_study(arms={"a": {}, "b": {"params": {"end": "raises"}}}))
    messages = execute(make(), loops.telling, trials)
    for trial in trials:
        first = {"initial_weights": f"weights {trial.seed}", "batch_order": "not known yet"}
        second = first | {"batch_order": f"order {trial.seed}", "data": "all"}
        told = [told_by(message) for message in messages if message.trial_id == trial.hash]
        if trial.arm == "a":
            assert told == [Started, first, 1, second, 2, 3, Ended]
        else:
            assert told == [Started, first, 1, second, 2, second | {"data": "none"}, Ended]


def told_by(message):
    match message:
        case Fingerprinted(_, fingerprints):
            return fingerprints
        case EpochFinished(_, record):
            return record.epoch
    return type(message)


def test_a_trial_that_runs_again_starts_without_fingerprints(make, make_study):
    (trial,) = plan(make_study(seeds=1, arms={"a": {}}))
    once, again = ([told_by(message) for message in execute(make(), loops.telling, [trial])] for _ in range(2))
    assert once == again


def test_a_fingerprint_that_is_no_text_fails_the_trial(make, make_study):
    (trial,) = plan(make_study(seeds=1, arms={"a": {}}))
    (_, end) = execute(make(), loops.telling_nonsense, [trial])
    assert end.outcome is Outcome.FAILED
    assert end.detail.endswith("TypeError: fingerprint initial_weights must be a string, not int\n")


@pytest.mark.parametrize("leave_by", ["closing the messages", "leaving the context", "an error"])
def test_leaving_early_stops_what_runs_and_what_waits(make, make_study, leave_by, side_by_side):
    first, second, *others = plan(make_study(seeds=2))
    running = [first, second][:side_by_side]
    with suppress(KeyboardInterrupt), opened(make(), loops.beating) as session:
        for trial in (first, second, *others):
            session.submit(trial)
        messages = session.messages()
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
    expected = digest(execute(InlineExecutor(), loops.mixed, trials))
    assert digest(execute(make(), loops.mixed, trials)) == expected
    random.Random(1).shuffle(trials)
    assert digest(execute(make(), loops.mixed, trials)) == expected


class Shuffled:
    """Hands trials to a session in another order than it gets them."""

    def __init__(self, executor):
        self.executor, self.checkpoints, self.waiting = executor, executor.checkpoints, []

    def open(self, workload):
        self.session = self.executor.open(workload)
        self.slots = self.session.slots
        return self

    def __enter__(self):
        self.session.__enter__()
        return self

    def __exit__(self, *exc_info):
        self.session.__exit__(*exc_info)

    def submit(self, trial):
        self.waiting.append(trial)

    def messages(self):
        random.Random(2).shuffle(self.waiting)
        for trial in self.waiting:
            self.session.submit(trial)
        return self.session.messages()


def stored_digest(study, executor, name):
    """What `fairtrial digest` says of a study that an executor has run, into a store of its own."""
    with SQLStore(f"{name}.db") as store:
        run_study(study, store=store, executor=Instead(executor, machine=loops.machine, set_up=None))
        return digest_results(store.results(study))


@pytest.mark.parametrize("loop", ["mixed", "telling"])
def test_a_study_has_the_same_digest_whatever_runs_it_and_in_which_order(make, mixed_study, make_study, loop):
    arms = {"a": {}, "b": {"params": {"pace": 2}}, "c": {"params": {"end": "raises"}}}
    training = {"epochs": 3, "loop": f"loops:{loop}"}
    study = mixed_study if loop == "mixed" else make_study(seeds=3, arms=arms, training=training)
    expected = stored_digest(study, InlineExecutor(), "reference")
    assert stored_digest(study, make(), "plain") == expected
    assert stored_digest(study, Shuffled(make()), "shuffled") == expected


@pytest.mark.slow
def test_the_users_code_is_recorded_where_a_trial_runs(make, trials):
    from fairtrial.training.machine import describe_machine

    started = [one for one in execute(make(), loops.good, trials[:2], machine=describe_machine) if type(one) is Started]
    expected = hashlib.sha256(Path(loops.__file__).read_bytes()).hexdigest()
    assert [message.machine.code for message in started] == [{"loops.py": expected}] * 2


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
    from fairtrial.training.machine import describe_machine, set_up_worker

    study = make_study(
        seeds=1,
        data={"name": "digits", "train": 64, "test": 40},
        model={"width": 0.5},
        training={"epochs": 1, "batch_size": 16},
        arms={"a": {}, "b": {"optimizer": {"betas": [0.9, 0.99]}}},
    )
    expected = execute(InlineExecutor(), training.run, plan(study))
    options = {} if kind[0] is InlineExecutor else {"set_up": set_up_worker}
    messages = execute(kind[0](), training.run, plan(study), machine=describe_machine, **options)
    assert digest(messages) == digest(expected)
    for trial in plan(study):
        assert taken(messages, trial) == taken(expected, trial)
        assert [one.step for one in taken(messages, trial)] == [4]
    assert [message.outcome for message in messages if isinstance(message, Ended)] == [Outcome.FINISHED] * 2
    if options:
        assert {message.machine.threads for message in messages if isinstance(message, Started)} == {1}


def taken(messages, trial):
    return [each.snapshot for each in messages if isinstance(each, SnapshotTaken) and each.trial_id == trial.hash]


def test_snapshots_come_with_their_epoch(make, trials):
    messages = execute(make(), loops.snapping, trials)
    for trial in trials:
        own = [each for each in messages if each.trial_id == trial.hash]
        assert [type(each) for each in own[1:-1]] == [SnapshotTaken, SnapshotTaken, EpochFinished] * 3
        context = TrialContext(trial)
        list(loops.snapping(context))
        assert taken(own, trial) == context.xray_progress.snapshots
        assert [(one.epoch, one.step) for one in taken(own, trial)] == [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)]


def test_no_snapshots_where_none_are_wanted(make, trials):
    messages = execute(make(), loops.snapping, trials, xray=False)
    assert not any(isinstance(each, SnapshotTaken) for each in messages)
    assert sum(isinstance(each, EpochFinished) for each in messages) == 3 * len(trials)


def test_snapshots_go_with_the_state_of_a_trial_that_restarts(make, make_study):
    """In the store each is there once, whatever was delivered twice; and without them all results are the same."""
    if isinstance(make(), InlineExecutor):
        pytest.skip("a crash of a trial in this process is a crash of the tests")
    options = {"checkpoint_seconds": 0, "epochs": 4, "loop": "loops:snapping"}
    study = make_study(seeds=1, arms={"a": {}, "b": {"params": {"crash": 1}}}, training=options)
    well, crashing = plan(study)
    context = TrialContext(well)
    list(loops.snapping(context))
    expected = tuple(context.xray_progress.snapshots)
    with SQLStore("s.db") as store:
        run_study(study, store=store, executor=make())
        assert store.snapshots([well.hash, crashing.hash]) == {
            well.hash: expected,
            crashing.hash: tuple(replace(each, arm="b") for each in expected),
        }
        found = digest_results(store.results(study))
    with SQLStore("t.db") as store:
        run_study(study, store=store, executor=make(), xray=False)
        assert store.snapshots([well.hash, crashing.hash]) == {}
        assert digest_results(store.results(study)) == found
