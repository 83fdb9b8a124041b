"""Which executor suits a machine and a study."""

from dataclasses import replace

import pytest

import loops
from fairtrial.errors import FairtrialError
from fairtrial.executors.auto import AutoExecutor
from fairtrial.executors.base import Workload
from fairtrial.executors.cuda.executor import CudaExecutor
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.scheduler import plan
from workloads import SOME_TRIALS

WORKLOAD = Workload(loops.good, loops.machine, SOME_TRIALS)
WITH_GPU = replace(WORKLOAD, gpus=1)


@pytest.mark.parametrize(
    ("options", "workload", "kind"),
    [
        ({}, WORKLOAD, LocalExecutor),
        ({}, WITH_GPU, CudaExecutor),
        ({"trials_per_gpu": 4, "threads": 2, "time_limit": 60}, WITH_GPU, CudaExecutor),
        ({"workers": 2}, WITH_GPU, LocalExecutor),
        ({"memory_limit": 1 << 30}, WITH_GPU, LocalExecutor),
    ],
)
def test_gpus_where_there_are_any_unless_workers_are_asked_for(options, workload, kind):
    executor = AutoExecutor(**options, checkpoints="c")
    chosen = executor.choose(workload)
    assert type(chosen) is kind
    assert chosen.checkpoints == executor.checkpoints == "c"
    assert chosen.limits.time == options.get("time_limit")


def test_loops_of_ones_own_have_workers(make_study):
    assert type(AutoExecutor().choose(replace(WITH_GPU, trials=plan(make_study())))) is LocalExecutor


def test_a_session_is_that_of_the_chosen_one():
    with AutoExecutor(workers=2).open(WORKLOAD) as session:
        assert session.slots.workers == 2


def test_trials_a_gpu_without_a_gpu():
    with pytest.raises(FairtrialError, match=r"^trials_per_gpu: there is no GPU to train on; leave it out$"):
        AutoExecutor(trials_per_gpu=2).choose(WORKLOAD)


@pytest.mark.parametrize("other", [{"workers": 2}, {"memory_limit": 1 << 30}])
def test_what_excludes_each_other(other):
    (name,) = other
    with pytest.raises(FairtrialError, match=rf"^trials_per_gpu: excludes {name}, which is of processes with one"):
        AutoExecutor(trials_per_gpu=2, **other)
