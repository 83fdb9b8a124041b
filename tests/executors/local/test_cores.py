"""Idle cores help the trials that are left, and change none of their numbers."""

from functools import partial
from pathlib import Path

import pytest
import torch

import loops
from fairtrial import digest_results
from fairtrial.executors import slots
from fairtrial.executors.base import Ended, EpochFinished
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.runner import compose_workload, run_study
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.store.sql import SQLStore
from fairtrial.training.kernels import library
from workloads import execute, opened, submit

helped = {"use_cores": loops.use_cores}


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    monkeypatch.setattr(slots, "usable_cores", lambda: 4)


@pytest.fixture
def two_trials(make_study):
    """One that sees two changes of its cores, and one that waits for a file."""
    return plan(
        make_study(seeds=1, training={"epochs": 2, "loop": "loops:good"}, arms={"a": {}, "b": {"params": {"x": 1}}})
    )


def cores(messages, trial):
    return [
        one.record.metrics["cores"] for one in messages if isinstance(one, EpochFinished) and one.trial_id == trial.hash
    ]


def test_a_lone_trial_gets_all_cores_and_gives_them_back_when_another_starts(two_trials):
    seeing, waiting = two_trials
    messages = []
    with opened(LocalExecutor(), loops.seeing_or_waiting, **helped) as session:
        submit(session, seeing)
        for message in session.messages():
            if isinstance(message, EpochFinished) and message.trial_id == seeing.hash and not messages:
                submit(session, waiting)
            if isinstance(message, Ended) and message.trial_id == seeing.hash:
                Path("go").touch()
            if isinstance(message, EpochFinished):
                messages.append(message)
    assert cores(messages, seeing) == [4, 2]
    assert cores(messages, waiting) == [4]


@pytest.mark.parametrize(
    "executor",
    [
        pytest.param(partial(LocalExecutor, workers=1), id="cores that no worker was given"),
        pytest.param(partial(LocalExecutor, workers=2, threads=2), id="threads that the user chose"),
        pytest.param(partial(LocalExecutor, memory_limit=8 << 30), id="a limit of memory"),
    ],
)
def test_cores_that_stay_free(executor, make_study):
    Path("go").touch()
    [trial] = plan(make_study(seeds=1, arms={"a": {}}))
    messages = execute(executor(), loops.once_there_is_go, [trial], **helped)
    assert cores(messages, trial) == [1]


def test_no_help_while_trials_wait(make_study):
    Path("go").touch()
    trials = plan(make_study(seeds=3, arms={"a": {}, "b": {"params": {"x": 1}}}))
    messages = execute(LocalExecutor(workers=2), loops.once_there_is_go, trials, **helped)
    seen = [one.record.metrics["cores"] for one in messages if isinstance(one, EpochFinished)]
    assert seen[:4] == [1] * 4
    assert len(seen) == 6


def small_study(**changes):
    return Study.from_dict(
        {
            "name": "small", "reference": "a", "seeds": 1,
            "data": {"name": "digits", "train": 500, "test": 100},
            "model": {"name": "mobilenet_v2", "width": 0.35},
            "training": {"epochs": 2, "batch_size": 32},
            "arms": {"a": {}, "b": {"optimizer": {"eps": 1e-4}}, "c": {"optimizer": {"lr": 1e-2}}},
        }
        | changes
    )  # fmt: skip


@pytest.mark.slow
def test_a_study_has_the_same_digest_with_and_without_help(tmp_path):
    if library.load(torch.float32) is None:
        pytest.skip(library.path())
    digests = []
    for name, workers in (("alone", 1), ("helped", 2), ("more", 4)):
        with SQLStore(str(tmp_path / f"{name}.db")) as store:
            run_study(small_study(), store=store, executor=LocalExecutor(workers=workers))
            digests.append(digest_results(store.results(small_study())))
    assert len(set(digests)) == 1


@pytest.mark.parametrize(
    ("changes", "may_help"),
    [
        ({}, True),
        ({"evidence": {"metric": "seconds"}}, False),
        ({"evidence": {"also": ["seconds"]}}, False),
        (
            {
                "claims": [
                    {"id": "1", "text": "t", "arm": "b", "against": "a", "metric": "seconds", "direction": "lower"}
                ]
            },
            False,
        ),
        ({"evidence": {"metric": "seconds_to_target", "target": {"metric": "test_acc", "value": 0.5}}}, False),
    ],
)
def test_a_study_that_compares_times_gets_no_help(changes, may_help):
    """A trial that others' cores help is not slower or faster by its setting."""
    study = small_study(**changes)
    workload = compose_workload(study, plan(study), None, lambda *_: None, lambda _: None)
    assert (workload.use_cores is not None) is may_help
