"""GPUs of a Ray cluster: an actor each with many trials, or parts of them. Ray counts GPUs that are not there."""

import time
from pathlib import Path

import pytest
import torch

import loops
import turns
from fairtrial import digest_results
from fairtrial.callbacks import Callback
from fairtrial.doctor import check_installation
from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, EpochFinished, Started, Warned, device_elsewhere
from fairtrial.executors.inline import InlineExecutor
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.executors.ray.cluster import RayCluster, share_of_gpu
from fairtrial.executors.ray.executor import RayExecutor, describe_cluster
from fairtrial.runner import run_study
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.testing import Instead
from fairtrial.training.machine import describe_machine
from fairtrial.trial import Outcome
from workloads import arm, execute, opened, submit, told

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_with_gpus")]

OTHER = {"optimizer": {"lr": 0.01}}
PATIENCE = 60  # seconds after which a test gives up; nothing waits that long unless it is broken


@pytest.fixture(scope="module")
def ray_with_gpus():
    cluster = RayCluster(None, 4, 2)
    yield
    cluster.close()


@pytest.fixture(autouse=True)
def _any_device(monkeypatch):
    """Let the cluster decide what trials run on, as where nobody has chosen a device."""
    monkeypatch.delenv("FAIRTRIAL_DEVICE")


@pytest.fixture
def trials(make_study):
    """Trials of fairtrial's own loop, which alone takes turns; the tests give the session another."""

    def make(seeds=2, epochs=3, **arms):
        return plan(make_study(seeds=seeds, training={"epochs": epochs}, arms=arms or {"a": {}, "b": OTHER}))

    return make


def metrics(messages, name):
    return [message.record.metrics[name] for message in messages if isinstance(message, EpochFinished)]


def outcomes(messages):
    return sorted((arm(one), one.outcome) for one in messages if isinstance(one, Ended))


def warnings(messages):
    return [one.text for one in messages if isinstance(one, Warned)]


def story(messages, trial):
    ours = [message for message in messages if message.trial_id == trial.hash and not isinstance(message, Warned)]
    return [one.record.epoch if isinstance(one, EpochFinished) else type(one) for one in ours]


def test_each_gpu_has_one_process_with_many_trials(trials):
    messages = execute(RayExecutor(trials_per_gpu=4), turns.looking_around, trials(seeds=4))
    assert outcomes(messages) == [("a", Outcome.FINISHED)] * 4 + [("b", Outcome.FINISHED)] * 4
    assert set(metrics(messages, "gpu")) == {0, 1}
    assert len(set(metrics(messages, "pid"))) == 2
    assert max(metrics(messages, "beside")) == 4
    assert set(metrics(messages, "told")) == {1}


def test_trials_that_end_in_every_way_end_as_they_do_alone(mixed_study, monkeypatch):
    monkeypatch.setattr("fairtrial.executors.ray.executor.takes_turns", lambda workload: True)

    messages = execute(RayExecutor(trials_per_gpu=3), turns.mixed, plan(mixed_study))
    assert told(messages) == told(execute(InlineExecutor(), loops.mixed, plan(mixed_study)))


def test_where_memory_runs_out_all_go_on_with_fewer_beside(trials):
    some = trials(seeds=4)
    messages = execute(RayExecutor(trials_per_gpu=4), turns.filling_gpu, some)
    assert outcomes(messages) == [("a", Outcome.FINISHED)] * 4 + [("b", Outcome.FINISHED)] * 4
    text = "out of memory: CUDA out of memory. Tried to allocate 2.00 MiB., with 4 trials in one process; they go on 2"
    assert set(warnings(messages)) == {f"{text} at a time"}


@pytest.mark.parametrize(
    ("whose", "what"),
    [("own", "worker killed by signal 9 (SIGKILL); out of memory is the usual reason"), ("parent", "The actor")],
    ids=["worker", "Ray's own process"],
)
def test_a_death_counts_against_none_of_many_trials(trials, whose, what):
    some = trials(seeds=1, a={}, **{whose: OTHER}, c={"optimizer": {"lr": 0.02}}, d={"optimizer": {"lr": 0.03}})
    messages = execute(RayExecutor(trials_per_gpu=4), turns.dying_once, some)
    assert [outcome for _, outcome in outcomes(messages)] == [Outcome.FINISHED] * 4
    (warning,) = warnings(messages)
    assert warning.startswith(what)
    assert warning.endswith(", with 2 trials in one process; they go on 1 at a time")
    (doomed,) = [trial for trial in some if trial.arm == whose]
    assert story(messages, doomed)[-5:] == [Started, 1, 2, 3, Ended]
    if whose == "own":  # Ray's process takes with it what it has not passed on
        assert story(messages, doomed)[:-5] == [Started, 1]
        assert sum(isinstance(one, Started) for one in messages) == 6


def test_a_time_limit_ends_one_trial_and_the_others_go_on(trials):
    some = trials(seeds=1, a={}, slow=OTHER, c={"optimizer": {"lr": 0.02}}, d={"optimizer": {"lr": 0.03}})
    messages = execute(RayExecutor(trials_per_gpu=4, time_limit=2.0), turns.slow, some)
    assert outcomes(messages) == [(name, Outcome.FINISHED) for name in "acd"] + [("slow", Outcome.FAILED)]
    (detail,) = [one.detail for one in messages if isinstance(one, Ended) and one.detail]
    assert detail.startswith("time limit of 2 s exceeded in epoch 1")


class InterruptAfter(Callback):
    """Presses Ctrl-C after so many epochs."""

    def __init__(self, epochs):
        self.left = epochs

    def on_epoch(self, trial, record):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_all_save_their_states_when_they_are_asked_to_stop_and_go_on_from_there(make_study, tmp_path):
    options = {"epochs": 3, "checkpoint_seconds": 3600}
    study = make_study(
        seeds=2, data={"name": "digits", "train": 70, "test": 30}, training=options, arms={"a": {}, "b": OTHER}
    )
    made_up = {"machine": loops.machine, "set_up": None, "device_memory": None, "data": None}
    executor = Instead(RayExecutor(trials_per_gpu=4), loop=turns.saving, **made_up)
    assert device_elsewhere(executor) == "cuda"
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


def test_the_digest_is_that_of_worker_processes(make_study):
    study = make_study(
        seeds=2,
        data={"name": "digits", "train": 70, "test": 30},
        model={"width": 0.25},
        training={"epochs": 2, "batch_size": 16},
        arms={"a": {}, "b": {"optimizer": {"betas": [0.9, 0.99]}}},
    )
    made_up = {"machine": loops.machine, "device_memory": None}
    digests = set()
    for executor, loop in ((RayExecutor(), turns.recorded_on_cpu), (LocalExecutor(1), turns.recorded)):
        with SQLStore(f"{type(executor).__name__}.db") as store:
            run_study(study, store=store, executor=Instead(executor, loop=loop, **made_up))
            assert [one.outcome for one in store.results(study)] == [Outcome.FINISHED] * 4
            digests.add(digest_results(store.results(study)))
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("trials_per_gpu", "device", "at_once", "told"), [(None, None, 2, 1), (2, None, 4, 1), (None, "cpu", 4, 0)]
)
def test_loops_of_ones_own_have_parts_of_a_gpu(make_study, monkeypatch, trials_per_gpu, device, at_once, told):
    if device:
        monkeypatch.setenv("FAIRTRIAL_DEVICE", device)
    some = plan(make_study(seeds=3, training={"epochs": 1, "loop": "loops:holding_a_gpu"}))
    deadline, messages = time.monotonic() + PATIENCE, []
    with opened(RayExecutor(trials_per_gpu=trials_per_gpu), loops.holding_a_gpu, trials=tuple(some)) as session:
        submit(session, *some)
        for message in session.messages():
            messages += [message] if message else []
            begun = len([*Path().glob("began-*")])
            if begun == at_once and not Path("go").exists():
                time.sleep(1.0)  # if there were room for one more, it would begin
                assert len([*Path().glob("began-*")]) == at_once
                Path("go").touch()
            assert time.monotonic() < deadline
    assert outcomes(messages) == [("a", Outcome.FINISHED)] * 3 + [("b", Outcome.FINISHED)] * 3
    assert set(metrics(messages, "told")) == {told}
    assert device or set(metrics(messages, "shown")) == {1}


@pytest.mark.parametrize(
    ("chosen", "expected"), [(None, "cuda"), ("cpu", "cpu"), ("cuda", "cuda"), ("mps", "mps")], ids=str
)
def test_which_device_trials_get(monkeypatch, chosen, expected):
    monkeypatch.setenv("FAIRTRIAL_DEVICE", chosen or "")
    assert RayExecutor().device() == expected


def test_what_does_not_go_together(trials, monkeypatch):
    some = tuple(trials())
    with pytest.raises(FairtrialError, match=r"^trials_per_gpu: excludes workers, which is of processes with one tria"):
        opened(RayExecutor(trials_per_gpu=2, workers=2), turns.slow, trials=some)
    monkeypatch.setenv("FAIRTRIAL_DEVICE", "cpu")
    with pytest.raises(FairtrialError, match=r"^trials_per_gpu: there is no GPU to train on; leave it out$"):
        opened(RayExecutor(trials_per_gpu=2), turns.slow, trials=some)
    monkeypatch.setenv("FAIRTRIAL_DEVICE", "cuda:1")
    with pytest.raises(FairtrialError, match=r"^device 'cuda:1' \(of --device or FAIRTRIAL_DEVICE\): on a Ray cluster"):
        opened(RayExecutor(), turns.slow, trials=some)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees the GPUs that Ray counts")
def test_a_node_whose_torch_sees_no_gpu_is_an_error(trials):
    with pytest.raises(FairtrialError, match=r"^device 'cuda' \(of --device or FAIRTRIAL_DEVICE\): torch .*CUDA"):
        execute(RayExecutor(), turns.slow, trials(a={}, b=OTHER), machine=describe_machine)


def test_the_cluster_is_described_with_its_gpus():
    assert describe_cluster("auto") == "the cluster at auto has 1 node, 4 cores, 2 GPUs"
    (found,) = [check for check in check_installation("s.db", "auto") if check.part == "Ray"]
    assert found.detail.endswith("has 1 node, 4 cores, 2 GPUs")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6, 7, 16, 17, 49])
def test_so_many_parts_fit_on_a_gpu_as_ray_counts(number):
    counted = int(share_of_gpu(number) * 10_000 + 0.5)  # as Ray rounds
    assert 10_000 // counted == number
    assert share_of_gpu(0) == 0
