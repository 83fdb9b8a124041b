"""Optimizers by path: what is refused with its reason, and a whole trial of one with modes of its own."""

import sys

import pytest

from fairtrial.errors import StudyError
from fairtrial.executors.base import Ended, EpochFinished, Fingerprinted, run_trial
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import loop
from fairtrial.trial import Machine, Outcome

MACHINE = Machine({}, "processor", "cpu", 1, "system")
USERS = '''
import torch


class AdaHessian(torch.optim.SGD):
    pass


class NoRate(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"rate": lr})


def sgd(params, lr=0.1):
    return torch.optim.SGD(params, lr=lr)


def broken(params, lr=0.1):
    return None.SGD(params, lr=lr)


class Negated(torch.optim.SGD):
    """Descent whose network has the weights' negatives where it is not trained."""

    sign = 1

    def train(self):
        self._to(1)

    def eval(self):
        self._to(-1)

    @torch.no_grad()
    def _to(self, sign):
        if sign != self.sign:
            self.sign = sign
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(-1.0)
'''


@pytest.fixture(autouse=True)
def _users_module(tmp_path, monkeypatch):
    (tmp_path / "users_own.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("users_own", None)


def study_of(**optimizer):
    return Study(
        name="s",
        reference="a",
        data={"name": "digits", "train": 64, "test": 100},
        model={"name": "small_cnn", "width": 4},
        training={"epochs": 2},
        optimizer=optimizer,
        arms={"a": {}},
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torch.optim:SparseAdam", "is for sparse gradients, and those of fairtrial's training step are dense"),
        ("torch.optim:Muon", "takes matrices alone, or groups that say which weights are; write optimizer.name = "),
        ("users_own:AdaHessian", "needs second derivatives (backward with create_graph), which fairtrial's training"),
        ("users_own:broken", "AttributeError: 'NoneType' object has no attribute 'SGD' (users_own.py, line 19)"),
        ("users_own:NoRate", "keeps no learning rate in its groups, where a schedule could set it"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(name, reason):
    with pytest.raises(StudyError) as caught:
        study_of(name=name)
    message = str(caught.value)
    assert message.startswith((f'optimizer.name = "{name}": {reason}', f"optimizer: {name}: {reason}"))


def run(**optimizer):
    trial = plan(study_of(**optimizer))[0]
    messages = list(run_trial(trial, loop.train, machine=MACHINE))
    ended, fingerprints = messages[-1], [one for one in messages if isinstance(one, Fingerprinted)]
    assert isinstance(ended, Ended), messages
    assert ended.outcome is Outcome.FINISHED, ended.detail
    records = [one.record.metrics for one in messages if isinstance(one, EpochFinished)]
    return records, fingerprints[-1].fingerprints


def test_a_trial_of_a_function_is_that_of_its_optimizer():
    mine, theirs = run(name="users_own:sgd", lr=0.05), run(name="torch.optim:SGD", lr=0.05)
    assert mine[1] == theirs[1]
    for one, other in zip(mine[0], theirs[0], strict=True):
        assert {key: one[key] for key in one if "seconds" not in key} == {
            key: other[key] for key in other if "seconds" not in key
        }


def test_an_optimizer_with_modes_trains_in_one_and_is_evaluated_in_the_other():
    plain, negated = run(name="torch.optim:SGD", lr=0.05), run(name="users_own:Negated", lr=0.05)
    for one, other in zip(plain[0], negated[0], strict=True):
        assert one["train_loss"] == other["train_loss"]
        assert one["test_loss"] != other["test_loss"]
    assert plain[1]["initial_weights"] == negated[1]["initial_weights"]
    assert plain[1]["final_weights"] != negated[1]["final_weights"]
