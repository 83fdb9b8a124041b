"""Precision: what bfloat16 changes and what it does not, resumed trials, and what this machine does not have."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from fairtrial import InlineExecutor, run
from fairtrial.errors import StudyError
from fairtrial.registry import MODELS
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import loop, machine, precision, prepare
from fairtrial.training.averages import recalibrated
from fairtrial.training.evaluation import evaluate
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


def mobilenet(flavor="torchvision"):
    settings = MODELS.get("mobilenet_v2").model_validate({"width": 0.35, "flavor": flavor})
    return settings.build(classes=10, image_size=32, channels=3, seed=0)


def images_of(batch=8):
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def gradients(conv, images, direction):
    """What autocast gives: the output, and the gradients of images and kernel along a direction."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = nn.Sequential(conv)(images)
    assert outputs.dtype is torch.bfloat16
    outputs.backward(direction.bfloat16())
    return outputs.detach(), images.grad, conv.weight.grad


@pytest.mark.parametrize(("size", "stride"), [(16, 2), (8, 1), (4, 2), (2, 1), (2, 2), (1, 1)])
def test_depthwise_gradients_are_as_near_to_float64_as_torchs_own_in_bfloat16(size, stride):
    """Of what autocast rounds: inputs and kernels before, results after."""
    torch.manual_seed(0)
    plain = nn.Conv2d(32, 32, 3, stride, 1, groups=32, bias=False)
    ours, exact = copy.deepcopy(plain), copy.deepcopy(plain).bfloat16().double()
    precision.apply(nn.Sequential(ours), "bf16", CPU)
    images = torch.randn(8, 32, size, size)
    reference = images.bfloat16().double().requires_grad_()
    expected = exact(reference)
    direction = torch.randn(expected.shape).bfloat16()
    expected.backward(direction.double())
    found = gradients(ours, images, direction), gradients(plain, images, direction)
    assert torch.equal(found[0][0], found[1][0])  # forward nothing changes
    for mine, torchs, right in zip(*found, (expected.detach(), reference.grad, exact.weight.grad), strict=True):
        errors = [float((one.double() - right).norm() / right.norm()) for one in (mine, torchs)]
        assert errors[0] < 2**-8
        assert errors[0] < 1.1 * errors[1]


@pytest.mark.parametrize("flavor", ["torchvision", "keras"])
def test_every_depthwise_convolution_of_the_papers_network_is_one_of_these(flavor):
    network = precision.apply(mobilenet(flavor), "bf16", CPU)
    depthwise = [one for one in network.modules() if isinstance(one, nn.Conv2d) and one.groups > 1]
    assert len(depthwise) == 17
    assert all("_conv_forward" in vars(one) for one in depthwise)
    reference, images = mobilenet(flavor), images_of()
    network(images).sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = reference(images)
    outputs.float().sum().backward()
    for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0.05, atol=0.05 * float(theirs.grad.abs().max()))


def test_other_convolutions_are_left_alone():
    class Own(nn.Conv2d):
        def _conv_forward(self, images, weight, bias):
            return super()._conv_forward(images, 2 * weight, bias)

    others = [
        nn.Conv2d(4, 8, 3),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4),  # with a bias
        nn.Conv2d(4, 4, 3, groups=4, bias=False, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4, bias=False, padding=1, padding_mode="reflect"),
        Own(4, 4, 3, groups=4, bias=False),
    ]
    precision.apply(nn.Sequential(*others), "bf16", CPU)
    assert not any("_conv_forward" in vars(one) for one in others)


def test_what_a_network_computes_outside_of_autocast_stays_as_exact_as_it_was():
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
    plain, wide = copy.deepcopy(conv), copy.deepcopy(conv).double()
    images = torch.rand(2, 4, 5, 5)
    precision.apply(nn.Sequential(conv), "bf16", CPU)
    precision.apply(nn.Sequential(wide), "bf16", CPU)
    assert torch.equal(conv(images), plain(images))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(conv(images[0]), plain(images[0]))  # one image without a batch
        assert wide(images.double()).dtype is torch.float64


def test_evaluations_have_the_precision_of_the_training():
    dataset = load_once(plan(study())[0].settings.data)
    losses = {}
    for name in ("float32", "bf16"):
        learner = Learner.build(plan(study(precision=name))[0], dataset, fast=False)
        losses[name] = evaluate(learner.network, dataset.test, learner.device).read("test")["test_loss"]
        if name == "float32":
            images, labels = dataset.test.batch(torch.arange(20))
            with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
                expected = nn.functional.cross_entropy(learner.network.eval()(images).float(), labels)
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(float(expected), rel=1e-6)


def test_recomputed_statistics_are_float32_and_near_those_of_float32():
    found = []
    for name in ("float32", "bf16"):
        network = precision.apply(mobilenet(), name, CPU)
        with recalibrated(network, [images_of()]):
            found.append({key: one.clone() for key, one in network.named_buffers() if "running" in key})
    assert {one.dtype for one in found[1].values()} == {torch.float32}
    first = "features.0.1.running_var"
    assert not torch.equal(found[0][first], found[1][first])
    torch.testing.assert_close(found[0][first], found[1][first], rtol=0.01, atol=1e-4)


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
def test_a_gpu_of_apples_has_float32_alone(name):
    with pytest.raises(StudyError, match=r'and this machine trains on mps; write "float32"$'):
        precision.check(name, torch.device("mps"))


@pytest.mark.parametrize("helps", [True, False])
def test_a_processor_without_bfloat16_trains_in_it_with_a_word(helps, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: helps)
    trials = [plan(study(precision=name))[0] for name in ("float32", "bf16")]
    assert prepare.compile_layers(trials[:1]) == ()
    notes = prepare.compile_layers(trials)
    assert [note.partition(",")[0] for note in notes] == (
        [] if helps else ['training.precision = "bf16": this processor can\'t speed it up']
    )


def test_the_precision_is_a_part_of_the_hash():
    hashes = {study(precision=name).label for name in ("float32", "bf16", "tf32")}
    assert len(hashes) == 3
    assert study().label == study(precision="float32").label
    assert plan(study())[0].hash != plan(study(precision="bf16"))[0].hash


def test_two_runs_in_bfloat16_have_one_digest_with_and_without_the_x_ray():
    small = {"model": {"name": "mobilenet_v2", "width": 0.1, "dropout": 0.2}, "arms": {"a": {}}}
    training = {"epochs": 2, "batch_size": 16, "precision": "bf16", "recalibrate_batch_norm": True}
    data = {"name": "digits", "train": 256, "test": 20}
    twice = Study.from_dict({"name": "s", "reference": "a", "seeds": 1, "data": data, "training": training, **small})
    runs = [run(twice, store=f"{xray}.db", executor=InlineExecutor(), xray=xray) for xray in (True, False)]
    assert runs[0].digest() == runs[1].digest()
    [snapshot] = [one for result in runs[0].with_snapshots().results for one in result.snapshots][-1:]
    assert {"depthwise convolution", "pointwise convolution"} <= snapshot.kinds.keys()
    assert snapshot.overall["no_gradient"] < 0.5


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
