"""Precision: what bfloat16 changes and what it does not, resumed trials, and what this machine does not have."""

import contextlib

import pytest
import torch
from torch import nn

from fairtrial.errors import StudyError
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import loop, machine, precision, prepare
from fairtrial.training.learner import Learner
from fairtrial.training.loop import load_once
from fairtrial.trial import TrialContext

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def study(**training):
    return Study(
        name="s",
        reference="a",
        data={"name": "digits", "train": 64, "test": 20},
        model={"name": "small_cnn", "width": 8},
        training={"epochs": 1, "batch_size": 32} | training,
        arms={"a": {}},
    )


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def test_bfloat16_rounds_what_the_network_computes_and_returns_float32():
    plain, rounded = network(), precision.apply(network(), "bf16", CPU)
    inputs = torch.linspace(-1, 1, 40).reshape(5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = plain(inputs).float()
    outputs = rounded(inputs)
    assert outputs.dtype is torch.float32
    assert torch.equal(outputs, expected)
    assert not torch.equal(outputs, plain(inputs))
    assert torch.allclose(outputs, plain(inputs), atol=0.02)


def test_weights_and_gradients_stay_float32_and_each_pass_has_the_present_weights():
    rounded = precision.apply(network(), "bf16", CPU)
    inputs = torch.linspace(-1, 1, 40).reshape(5, 8)
    before = rounded(inputs)
    before.sum().backward()
    assert {one.dtype for one in rounded.parameters()} == {one.grad.dtype for one in rounded.parameters()}
    assert {one.dtype for one in rounded.parameters()} == {torch.float32}
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.mul_(2)
    assert not torch.equal(rounded(inputs), before)


@pytest.mark.parametrize("name", ["float32", "tf32"])
def test_other_precisions_leave_the_network_alone(name):
    mine = network()
    assert precision.apply(mine, name, CPU) is mine
    assert "forward" not in vars(mine)


def test_a_step_in_bfloat16_is_near_that_in_float32(device):
    weights = {}
    for name in ("float32", "bf16"):
        trial = plan(study(precision=name))[0]
        dataset = load_once(trial.settings.data)
        learner = Learner.build(trial, dataset)
        loss, outputs = learner.step(*(one.to(device) for one in dataset.train.batch(torch.arange(32))))
        assert loss.dtype is outputs.dtype is torch.float32
        weights[name] = next(learner.network.parameters()).detach().clone()
    assert not torch.equal(weights["float32"], weights["bf16"])
    assert torch.allclose(weights["float32"], weights["bf16"], atol=0.01)


def test_the_layers_of_bfloat16_are_no_condition_because_arms_may_differ_in_them():
    described = [machine.describe_machine(plan(study(precision=name))[0]) for name in ("float32", "bf16")]
    assert described[0].layers
    assert "layers" not in described[1].conditions


def test_tf32_is_refused_before_anything_is_trained():
    with pytest.raises(StudyError) as caught:
        prepare.prepare(study(precision="tf32"))
    assert str(caught.value) == (
        'training.precision = "tf32": needs an NVIDIA GPU of compute capability 8.0 or higher, and this machine trains '
        'on its CPU; write "float32" or "bf16"'
    )


@pytest.mark.parametrize("name", ["bf16", "tf32"])
def test_an_older_gpu_is_refused_by_its_name(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(StudyError, match=r'and this one is Tesla T4; write "float32"$'):
        precision.check(name, GPU)
    precision.check("float32", GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    precision.check(name, GPU)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["bf16", "tf32"])
def test_a_trial_on_a_gpu_ends_near_the_one_in_float32(name):
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has neither precision")
    records = {}
    for one in ("float32", name):
        (trial,) = plan(study(precision=one))
        (records[one],) = loop.train(TrialContext(trial))
    assert records[name]["train_loss"] != records["float32"]["train_loss"]
    assert records[name]["train_loss"] == pytest.approx(records["float32"]["train_loss"], abs=0.05)


def flags():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark


@pytest.mark.parametrize(("name", "tf32"), [("float32", False), ("bf16", False), ("tf32", True)])
def test_a_gpu_multiplies_as_the_precision_says_for_a_while(name, tf32):
    before = flags()
    with contextlib.suppress(ZeroDivisionError), precision.in_force(name, GPU):
        assert flags() == (tf32, tf32, True, False)
        raise ZeroDivisionError
    assert flags() == before
    with precision.in_force(name, CPU):
        assert flags() == before


def test_another_precision_is_refused():
    with pytest.raises(StudyError, match=r"training\.precision"):
        study(precision="fp16")


@pytest.mark.parametrize("key", ["precision", "label_smoothing"])
def test_a_loop_of_the_users_own_has_neither(key):
    value = {"precision": "bf16", "label_smoothing": 0.1}[key]
    with pytest.raises(StudyError, match=f"training.{key}: only fairtrial's own training loop has it"):
        Study(name="s", reference="a", training={"loop": "fairtrial.testing:simulate", key: value}, arms={"a": {}})
