"""Many trials in one process on a real GPU: its memory and errors, and the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

import turns
from fairtrial.executors.base import Ended, Warned
from fairtrial.executors.cuda.executor import CudaExecutor
from fairtrial.scheduler import plan
from fairtrial.trial import Outcome
from workloads import arm, execute

pytestmark = pytest.mark.gpu

STUDY = """
name = "small"
reference = "a"
seeds = 2
data = {name = "digits", train = 70, test = 30}
model = {width = 0.25}
training = {epochs = 2, batch_size = 16}
[arms.a]
[arms.b]
optimizer.betas = [0.9, 0.99]
"""


@pytest.fixture
def trials(make_study):
    return plan(make_study(seeds=2, training={"epochs": 3}, arms={"a": {}, "bad": {"optimizer": {"lr": 0.01}}}))


def ends(messages):
    return sorted((arm(one), one.outcome) for one in messages if isinstance(one, Ended))


def test_where_memory_runs_out_all_go_on_with_fewer_beside(trials):
    messages = execute(CudaExecutor(4), turns.filling_real_gpu, trials, gpus=1)
    assert ends(messages) == [("a", Outcome.FINISHED)] * 2 + [("bad", Outcome.FINISHED)] * 2
    (warning,) = [one.text for one in messages if isinstance(one, Warned)]
    assert warning.startswith("out of memory: CUDA out of memory. Tried to allocate")
    assert warning.endswith("with 4 trials in one process; they go on 2 at a time")


def test_an_error_of_cuda_counts_only_against_the_trial_that_meets_it_alone(trials):
    messages = execute(CudaExecutor(4), turns.breaking_real_gpu, trials, gpus=1)
    assert ends(messages) == [("a", Outcome.FINISHED)] * 2 + [("bad", Outcome.FAILED)] * 2
    details = [one.detail for one in messages if isinstance(one, Ended) and one.outcome is Outcome.FAILED]
    assert all("CUDA error" in detail and "previous attempt: " in detail for detail in details)


@pytest.mark.slow
def test_the_digest_is_the_same_with_one_and_four_trials_a_gpu_on_the_command_line():
    Path("s.toml").write_text(STUDY)

    def fairtrial(*words):
        command = [sys.executable, "-m", "fairtrial", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    digests = set()
    for number in ("1", "4"):
        fairtrial("run", "s.toml", "--trials-per-gpu", number, "--store", f"{number}.db")
        digests.add(fairtrial("digest", "s.toml", "--store", f"{number}.db"))
    assert len(digests) == 1
