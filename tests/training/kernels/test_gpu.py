"""Layers for a GPU against torch's own in float64: on CUDA where there is one, else by Triton's interpreter.

TRITON_INTERPRET=1 pytest tests/training/kernels/test_gpu.py        where Triton is installed and no GPU is
"""

import copy
import pickle
from importlib.metadata import version

import numpy as np
import pytest
import torch
from torch import nn

from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training.kernels import fused, gpu
from fairtrial.training.kernels.gpu import GpuSequential, Parts, accelerate_on_gpu
from fairtrial.training.kernels.layers import FastSequential, accelerate
from fairtrial.training.learner import Learner
from fairtrial.training.loop import load_once
from fairtrial.training.models.mobilenet_v2 import MobileNetV2
from fairtrial.training.models.mobilenet_v2.flavors import BiasedBatchNorm2d, OneSidedConv2d
from fairtrial.trial import kind_of_condition
from fast_layers import images, scramble

#: Maps, channels and strides of the convolutions in MobileNetV2 on 32x32 images, of either stem, and odd ones.
ALL = Parts()
STOCK = [(16, 32, 1), (16, 96, 2), (8, 144, 1), (8, 144, 2), (4, 192, 1), (4, 192, 2), (2, 384, 1), (2, 576, 1)]
CIFAR = [(32, 32, 1), (32, 96, 1), (32, 144, 1), (32, 144, 2), (16, 192, 1), (16, 192, 2), (8, 384, 1), (8, 576, 1)]
OTHERS = [(2, 576, 2), (1, 960, 1), (8, 576, 2), (4, 960, 1), (5, 7, 1), (5, 7, 2), (7, 40, 2), (1, 3, 2), (3, 13, 1)]

# Triton's interpreter takes arrays of one number for numbers.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")


@pytest.fixture(params=["cpu" if fused.is_interpreted() else pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Where Triton's programs can run here."""
    if not fused.is_available():
        pytest.skip("Triton is not installed")
    if fused.is_interpreted() and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("Triton's interpreter takes arrays of one number for numbers, which NumPy 2.4 refuses")
    return torch.device(request.param)


def chain(channels, stride, *, before=True, conv=nn.Conv2d, norm=nn.BatchNorm2d):
    layer = conv(channels, channels, 3, stride, 0 if conv is OneSidedConv2d else 1, groups=channels, bias=False)
    first = [norm(channels), nn.ReLU6(inplace=True)] if before else []
    return nn.Sequential(*first, layer, norm(channels), nn.ReLU6(inplace=True))


def results(module, inputs):
    """Output, gradients and buffers of a module, of a weighted sum of its outputs."""
    inputs = inputs.detach().clone().requires_grad_()
    output = module(inputs)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).sin().view(output.shape)
    (output * weights.to(output)).sum().backward()
    return {
        "output": output,
        "input": inputs.grad,
        **{name: one.grad for name, one in module.named_parameters()},
        **dict(module.named_buffers()),
    }


def assert_near_float64(plain, inputs, device, parts=ALL):
    """Hold an accelerated module against the plain one in float64; at most as far away as torch's, in order."""
    plain = scramble(plain)
    fast = accelerate_on_gpu(copy.deepcopy(plain).float().to(device), parts)
    exact = results(copy.deepcopy(plain).double(), inputs.double())
    found = results(fast, inputs.float().to(device))
    torchs = results(copy.deepcopy(plain).float(), inputs.float())
    largest = max(value.norm() for value in exact.values() if value.is_floating_point())
    for name, value in exact.items():
        if not value.is_floating_point():
            assert torch.equal(found[name].cpu(), value), name
            continue
        ours, theirs = (
            ((one[name].detach().cpu().double() - value).norm() / (value.norm() + 1e-3 * largest)).item()
            for one in (found, torchs)
        )
        assert ours < max(5e-5, 10 * theirs), name
        assert found[name].shape == value.shape


@pytest.mark.parametrize(("size", "channels", "stride"), STOCK + CIFAR + OTHERS)
def test_a_chain_is_torchs(device, monkeypatch, size, channels, stride):
    assert_near_float64(chain(channels, stride), images(3, channels, size, size), device)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "batch"), [(8, 7), (5, 11), (16, 5)])
def test_chunks_of_pixels_are_merged(device, monkeypatch, size, batch, stride, before):
    """The pixels of a large map are divided among programs: small chunks show it on small maps."""
    fused.tile.cache_clear()
    for name, value in {"LARGEST_WHOLE": 60, "SMALLEST_CHUNK": 100, "TILE": 512}.items():
        monkeypatch.setattr(fused, name, value)
    try:
        assert fused.tile(batch * size**2, 40).splits > 1
        assert_near_float64(chain(40, stride, before=before), images(batch, 40, size, size), device)
        assert_near_float64(
            nn.Sequential(nn.BatchNorm2d(40), nn.ReLU6(inplace=True)), images(batch, 40, size, size), device
        )
    finally:
        fused.tile.cache_clear()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_a_chain_without_a_norm_before_and_with_kerass_padding(device, size, stride):
    assert_near_float64(chain(24, stride, before=False), images(4, 24, size, size), device)
    kind = {"conv": OneSidedConv2d, "norm": BiasedBatchNorm2d} if stride == 2 else {"norm": BiasedBatchNorm2d}
    assert_near_float64(chain(24, stride, **kind), images(4, 24, size, size), device)


@pytest.mark.parametrize("activation", [None, nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize(
    ("batch", "channels", "size"), [(2, 16, 16), (64, 160, 1), (64, 1280, 1), (3, 24, 8), (2, 5, 3)]
)
def test_a_norm_is_torchs(device, batch, channels, size, activation):
    layers = nn.Sequential(nn.BatchNorm2d(channels), *([activation(inplace=True)] if activation else []))
    # Values far from zero, of which the mean of squares minus the square of the mean would lose most digits.
    assert_near_float64(layers, images(batch, channels, size, size) * 0.1 + 3, device)


@pytest.mark.parametrize("parts", [Parts(), Parts(depthwise=False), Parts(norms=False), Parts(pointwise=False)])
def test_a_block_is_torchs_whichever_part_is_accelerated(device, parts):
    block = nn.Sequential(
        nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(inplace=True)),
        chain(24, 2, before=False),
        nn.Conv2d(24, 10, 1),
        nn.BatchNorm2d(10),
    )
    assert_near_float64(block, images(5, 8, 8, 8), device, parts)


@pytest.mark.parametrize("stem", ["stock", "cifar"])
def test_evaluation_is_torchs_on_the_whole_network(device, stem):
    network = scramble(MobileNetV2(stem=stem, width=0.25).build(classes=10, image_size=32, channels=3, seed=0)).eval()
    inputs = images(3, 3, 32, 32, dtype=torch.float32)
    fast = accelerate_on_gpu(copy.deepcopy(network).to(device))
    with torch.no_grad():
        expected, found = network.double()(inputs.double()), fast(inputs.to(device)).cpu()
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_a_step_of_the_whole_network_is_torchs(device):
    network = MobileNetV2(width=0.25).build(classes=10, image_size=32, channels=3, seed=0)
    inputs = images(8, 3, 32, 32, dtype=torch.float32)
    fast = accelerate_on_gpu(copy.deepcopy(network).to(device))
    exact, found, torchs = (
        results(one, inputs.to(one.classifier[1].weight)) for one in (copy.deepcopy(network).double(), fast, network)
    )
    for name, value in exact.items():
        if value.is_floating_point():
            scale = value.norm() + 1e-4
            ours, theirs = ((one[name].detach().cpu().double() - value).norm() / scale for one in (found, torchs))
            assert ours < max(1e-4, 10 * theirs), name


def test_two_runs_give_the_same_bits(device):
    layers = accelerate_on_gpu(scramble(chain(40, 1)).float().to(device))
    inputs = images(70, 40, 8, 8, dtype=torch.float32).to(device)  # in chunks
    first, second = (results(copy.deepcopy(layers), inputs) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("training", [True, False])
def test_no_number_stays_no_number(device, training):
    """A diverged trial is found by its loss, so that an activation must not turn NaN into 0."""
    layers = accelerate_on_gpu(scramble(chain(8, 1)).float().to(device)).train(training)
    inputs = images(2, 8, 4, 4, dtype=torch.float32).to(device)
    inputs[0, 3, 1, 1] = torch.nan
    with torch.no_grad():
        found = layers(inputs)
    assert found[0, 3, 1, 1].isnan()
    assert not found[:, :3].isnan().any()


def test_the_programs_are_used_and_count_batches(device, monkeypatch):
    calls = []
    for name in ("norm", "chain"):
        plain = getattr(fused, name)
        monkeypatch.setattr(fused, name, lambda *given, plain=plain, name=name: calls.append(name) or plain(*given))
    network = MobileNetV2(width=0.25).build(classes=10, image_size=32, channels=3, seed=0)
    fast = accelerate_on_gpu(network.to(device))
    fast(images(2, 3, 32, 32, dtype=torch.float32).to(device))
    assert calls.count("chain") == 17
    assert calls.count("norm") == 1 + 17 + 1  # the first convolution's, the projections', the last one's
    assert all(value == 1 for name, value in fast.named_buffers() if name.endswith("num_batches_tracked"))


def test_a_second_derivative_is_refused(device):
    layers = accelerate_on_gpu(scramble(chain(8, 1)).float().to(device))
    inputs = images(2, 8, 4, 4, dtype=torch.float32).to(device).requires_grad_()
    (gradient,) = torch.autograd.grad(layers(inputs).square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# ---- what needs no Triton -------------------------------------------------------------------------------------------


@pytest.fixture
def assumed(monkeypatch):
    """As on a machine with Triton, whose programs these tests never start."""
    monkeypatch.setattr(fused, "is_available", lambda: True)
    monkeypatch.setattr(fused, "is_interpreted", lambda: False)


def test_without_triton_nothing_changes(monkeypatch):
    monkeypatch.setattr(fused, "is_available", lambda: False)
    assert type(accelerate_on_gpu(chain(8, 1))) is nn.Sequential


@pytest.mark.parametrize("on_cpu_too", [True, False])
def test_sequences_change_their_class_and_nothing_else(assumed, on_cpu_too):
    network = MobileNetV2(width=0.25).build(classes=10, image_size=32, channels=3, seed=0)
    if on_cpu_too:
        accelerate(network)
    before, parameters = network.state_dict(), [*network.parameters()]
    expected = copy.deepcopy(network)(images(2, 3, 32, 32, dtype=torch.float32))
    accelerate_on_gpu(accelerate_on_gpu(network))
    assert all(one is other for one, other in zip(network.parameters(), parameters, strict=True))
    assert [*network.state_dict()] == [*before]
    assert isinstance(network.features, GpuSequential)
    assert isinstance(network.features, FastSequential) == on_cpu_too
    for other in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert type(other.features[1].conv) is type(network.features[1].conv)
        copied = copy.deepcopy(other)
        copied.load_state_dict(before)
        assert torch.equal(copied(images(2, 3, 32, 32, dtype=torch.float32)), expected)  # on the CPU as before


def test_a_sequence_with_a_forward_pass_of_its_own_stays(assumed):
    class Twice(nn.Sequential):
        def forward(self, features):
            return super().forward(super().forward(features))

    replaced = nn.Sequential(nn.ReLU())
    replaced.forward = lambda features: features
    model = accelerate_on_gpu(nn.ModuleList([Twice(nn.ReLU()), replaced]))
    assert [type(one) for one in model] == [Twice, nn.Sequential]


def test_what_the_programs_do_not_know_is_left_to_the_layers():
    here = torch.device("cpu")
    shape = torch.Size((2, 8, 4, 4))

    def found(module, shape=shape):
        return gpu._norm_at([module, nn.ReLU6()], 0, shape, here)[0] is not None

    norm = nn.BatchNorm2d(8)
    assert found(norm)
    with torch.no_grad():
        assert found(norm.eval())
    assert not found(norm.eval())  # its gradients by running averages
    assert not found(nn.BatchNorm2d(8).double())
    assert not found(nn.BatchNorm2d(8, affine=False))
    assert not found(nn.BatchNorm2d(8, track_running_stats=False))
    assert not found(nn.BatchNorm2d(8, momentum=None))
    assert not found(nn.BatchNorm2d(9))
    assert not found(nn.BatchNorm2d(8), torch.Size((1, 8, 1, 1)))  # torch raises an error
    assert not found(type("Mine", (nn.BatchNorm2d,), {})(8))
    hooked = nn.BatchNorm2d(8)
    hooked.register_forward_hook(lambda *_: None)
    assert not found(hooked)

    inputs = images(*shape, dtype=torch.float32)
    assert gpu._depthwise(nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False), inputs).out_height == 2
    assert gpu._depthwise(OneSidedConv2d(8, 8, 3, 2, groups=8, bias=False), inputs).top == 0
    for conv in (
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 16, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
    ):
        assert gpu._depthwise(conv, inputs) is None
    assert not gpu._may_be_fast(inputs.double())
    assert not gpu._may_be_fast(inputs[0])


@pytest.mark.parametrize("pixels", [2, 16, 64, 1000, 4096, 4097, 16384, 65536, 131072])
@pytest.mark.parametrize("channels", [1, 8, 24, 96, 144, 960])
def test_tiles_cover_all_pixels_once(pixels, channels):
    tiling = fused.tile(pixels, channels)
    assert (tiling.splits - 1) * tiling.chunk < pixels <= tiling.splits * tiling.chunk
    assert tiling.constants["SLOTS"] >= tiling.splits
    assert tiling.channels & (tiling.channels - 1) == tiling.pixels & (tiling.pixels - 1) == 0


def test_the_path_says_what_computes(monkeypatch):
    monkeypatch.setenv("FAIRTRIAL_KERNELS", "off")
    assert fused.path() == "torch's own"
    assert not fused.is_available()
    monkeypatch.delenv("FAIRTRIAL_KERNELS")
    assert fused.path() == (f"Triton's programs ({version('triton')})" if fused.is_available() else "torch's own")


@pytest.fixture
def with_gpu(monkeypatch):
    """As on a machine with Triton and a GPU of some compute capability."""

    def make(capability):
        monkeypatch.setattr(fused, "find_spec", lambda name: name)
        monkeypatch.setattr(fused, "_is_interpreter", lambda: False)
        monkeypatch.setattr(fused, "choose_device", lambda: torch.device("cuda", 0))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        fused.obstacle.cache_clear()

    yield make
    fused.obstacle.cache_clear()


@pytest.mark.parametrize(
    ("capability", "why"),
    [
        ((8, 0), r"Triton can't compile (Failed to find C compiler.\nSet CC)"),
        ((6, 1), "Triton's programs need a GPU of compute capability 7.5 or higher"),
    ],
)
def test_a_gpu_that_cannot_run_the_programs_keeps_torchs_layers(with_gpu, monkeypatch, capability, why):
    def fails(device):
        raise RuntimeError("Failed to find C compiler.\nSet CC")

    with_gpu(capability)
    monkeypatch.setattr(fused, "_try_one", fails)
    assert fused.path() == f"torch's own: {why}"
    assert kind_of_condition(fused.path()) == "torch's own"
    assert type(accelerate_on_gpu(chain(8, 1))) is nn.Sequential


def test_a_gpu_that_can_runs_them(with_gpu, monkeypatch):
    with_gpu((7, 5))
    monkeypatch.setattr(fused, "_try_one", lambda device: None)
    assert fused.is_available()


@pytest.mark.gpu
def test_learners_on_a_gpu_have_these_layers():
    if not fused.is_available():
        pytest.skip("Triton is not installed")
    study = Study(
        name="s",
        reference="a",
        data={"name": "digits", "train": 100, "test": 20},
        model={"name": "mobilenet_v2"},
        arms={"a": {}},
    )
    (trial,) = plan(study)[:1]
    learner = Learner.build(trial, load_once(trial.settings.data))
    assert any(isinstance(one, GpuSequential) for one in learner.network.modules())
