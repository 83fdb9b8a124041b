"""Many trials in one process a GPU. Where there is no GPU the process is the same, and its device the CPU."""

from functools import partial

import pytest

import loops
import turns
from fairtrial import digest_results
from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, Started, Warned
from fairtrial.executors.cuda.executor import CudaExecutor, CudaSession
from fairtrial.executors.inline import InlineExecutor
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.executor import LocalSession
from fairtrial.executors.slots import Slots
from fairtrial.runner import run_study
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.testing import Instead
from fairtrial.trial import Outcome
from workloads import arm, execute, opened, submit, told

#: The settings of a second arm.
OTHER = {"optimizer": {"lr": 0.01}}


@pytest.fixture
def trials(make_study):
    """Trials of fairtrial's own loop, which alone takes turns; the tests give the session another."""

    def make(seeds=2, **arms):
        study = make_study(seeds=seeds, training={"epochs": 3}, arms=arms or {"a": {}, "b": OTHER})
        return plan(study)

    return make


def ends(messages):
    return [(arm(one), one.outcome) for one in messages if isinstance(one, Ended)]


def warnings(messages):
    return [one.text for one in messages if isinstance(one, Warned)]


@pytest.mark.parametrize("side_by_side", [1, 3, 16])
def test_trials_that_end_in_every_way_end_as_they_do_alone(mixed_study, side_by_side):
    expected = execute(InlineExecutor(), loops.mixed, plan(mixed_study))
    session = partial(CudaSession, side_by_side=side_by_side, threads=1, limits=Limits())
    messages = execute(Opened(session), turns.mixed, plan(mixed_study))
    assert told(messages) == told(expected)
    started = [one.trial_id for one in messages if isinstance(one, Started)]
    assert started == [trial.hash for trial in plan(mixed_study)]


class Opened:
    """An executor that opens a session whatever the trials' own loop is."""

    checkpoints = None

    def __init__(self, session):
        self.open = session


def test_where_memory_runs_out_all_go_on_with_fewer_beside(trials):
    some = trials(seeds=4)
    messages = execute(CudaExecutor(8), turns.filling_gpu, some)
    assert sorted(ends(messages)) == sorted((trial.arm, Outcome.FINISHED) for trial in some)
    text = (
        "out of memory: CUDA out of memory. Tried to allocate 2.00 MiB., with {} trials in one process; they go on {}"
    )
    assert warnings(messages) == [f"{text.format(8, 4)} at a time", f"{text.format(4, 2)} at a time"]


def test_what_has_memory_only_alone_is_run_alone(trials):
    messages = execute(CudaExecutor(4), turns.filling_gpu, trials(a={}, big=OTHER))
    assert sorted(ends(messages)) == [("a", Outcome.FINISHED)] * 2 + [("big", Outcome.FINISHED)] * 2
    assert warnings(messages)[-1].endswith("with 2 trials in one process; they go on 1 at a time")


def test_an_error_of_cuda_counts_only_against_the_trial_that_meets_it_alone(trials):
    messages = execute(CudaExecutor(4), turns.breaking_gpu, trials(a={}, bad=OTHER))
    assert sorted(ends(messages)) == [("a", Outcome.FINISHED)] * 2 + [("bad", Outcome.FAILED)] * 2
    details = [one.detail for one in messages if isinstance(one, Ended) and one.outcome is Outcome.FAILED]
    error = "RuntimeError: CUDA error: an illegal memory access was encountered\n"
    assert all(detail.startswith(error) and f"previous attempt: {error}" in detail for detail in details)
    assert warnings(messages)[0] == f"{error.strip()}, with 4 trials in one process; they go on 2 at a time"


def test_a_time_limit_ends_one_trial_and_the_others_go_on(trials):
    messages = execute(CudaExecutor(4, time_limit=1.0), turns.slow, trials(seeds=1, a={}, slow=OTHER))
    assert sorted(ends(messages)) == [("a", Outcome.FINISHED), ("slow", Outcome.FAILED)]
    (detail,) = [one.detail for one in messages if isinstance(one, Ended) and one.detail]
    assert detail.startswith("time limit of 1 s exceeded in epoch 1")


def test_all_save_their_states_when_they_are_asked_to_stop_and_go_on_from_there(make_study, tmp_path):
    options = {"epochs": 3, "checkpoint_seconds": 3600}
    data = {"name": "digits", "train": 70, "test": 30}
    study = make_study(seeds=2, data=data, training=options, arms={"a": {}, "b": OTHER})
    executor = Instead(CudaExecutor(4), loop=turns.saving, machine=loops.machine, set_up=None)
    with SQLStore("s.db") as store:
        with pytest.raises(KeyboardInterrupt):
            run_study(study, store=store, executor=executor, callbacks=[InterruptAfter(4)])
        (tmp_path / "go").touch()
        assert run_study(study, store=store, executor=executor) == 4
        results = store.results(study)
    assert [len(one.epochs) for one in results] == [3] * 4
    assert {path.name: path.read_text() for path in tmp_path.glob("attempts-*")} == {
        f"attempts-{name}{seed}": "0\n1\n" for name in "ab" for seed in (0, 1)
    }


def InterruptAfter(epochs):  # noqa: N802  (reads as a class, which it makes)
    from fairtrial.callbacks import Callback

    class Interrupting(Callback):
        seen = 0

        def on_epoch(self, trial, record):
            self.seen += 1
            if self.seen == epochs:
                raise KeyboardInterrupt

    return Interrupting()


def test_leaving_early_ends_the_process(trials):
    with opened(CudaExecutor(2), turns.slow, trials=tuple(trials(slow={}, a=OTHER))) as session:
        submit(session, *trials(slow={}, a=OTHER))
        messages = session.messages()
        while not isinstance(next(messages), Started):
            pass
        (process,) = session._workers.values()
        assert not process.ended()
        messages.close()
        assert process.ended()


def test_slots_are_processes_and_the_trials_that_they_have(trials):
    some = tuple(trials(seeds=5))
    with opened(CudaExecutor(4, threads=2), turns.slow, trials=some, gpus=2) as session:
        assert session.slots == Slots(8, 2, session.slots.cores, gpus=2)
    with opened(CudaExecutor(), turns.slow, trials=some[:3], gpus=2) as session:
        assert session.slots.workers == 3


def test_without_a_number_a_process_gets_as_many_as_it_asks_for(trials):
    some = [trial for trial in trials(seeds=5, a=OTHER, slow={}) if trial.arm == "slow"]
    with opened(CudaExecutor(), turns.slow, trials=tuple(some)) as session:
        submit(session, *some)
        starts = (one for one in session.messages() if isinstance(one, Started))
        next(starts)
        (process,) = session._workers.values()
        assert len(process.trials) == 1
        process.room = 3
        next(starts), next(starts)
        assert len(process.trials) == 3
        process.room = 2  # more did not pay off
        assert session._room_of(0) == 2


@pytest.mark.slow
def test_a_process_asks_for_as_many_as_pay_off(trials):
    """Two of these get no more done than one: all turns take as long."""
    messages = execute(CudaExecutor(), turns.steady, trials(seeds=2))
    running, numbers = 0, []
    for one in messages:
        running += isinstance(one, Started) - isinstance(one, Ended)
        numbers.append(running)
    assert max(numbers) == 2
    last = max(index for index, one in enumerate(messages) if isinstance(one, Started))
    assert numbers[last] == 1  # by then one at a time is known to be best
    assert [outcome for _, outcome in ends(messages)] == [Outcome.FINISHED] * 4


def test_loops_of_ones_own_have_a_process_each(make_study):
    with opened(CudaExecutor(4, time_limit=9), loops.good, trials=plan(make_study())) as session:
        assert isinstance(session, LocalSession)


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_numbers_that_are_not_allowed(number):
    with pytest.raises(FairtrialError, match=r"^trials_per_gpu = .*: must be an integer of at least 1$"):
        CudaExecutor(number)


@pytest.mark.slow
def test_the_digest_is_the_same_with_any_number_side_by_side_and_after_an_interruption(make_study, device):
    study = make_study(
        seeds=2,
        data={"name": "digits", "train": 70, "test": 30},
        model={"width": 0.25},
        training={"epochs": 2, "batch_size": 16, "checkpoint_seconds": 0},
        arms={"a": {}, "b": {"optimizer": {"betas": [0.9, 0.99]}}},
    )
    digests = set()
    for number in (1, 4):
        with SQLStore(f"{number}.db") as store:
            run_study(study, store=store, executor=Instead(CudaExecutor(number), loop=turns.recorded))
            digests.add(digest_results(store.results(study)))
    with SQLStore("interrupted.db") as store:
        executor = Instead(CudaExecutor(3), loop=turns.recorded)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, store=store, executor=executor, callbacks=[InterruptAfter(2)])
        run_study(study, store=store, executor=executor)
        digests.add(digest_results(store.results(study)))
    assert len(digests) == 1
