"""Fast layers against the plain ones that they replace, with the compiled kernels and without: the same numbers."""

import copy

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fairtrial.training import datasets, loop
from fairtrial.training.datasets.digits import Digits
from fairtrial.training.kernels import layers, library
from fairtrial.training.models.mobilenet_v2 import MobileNetV2
from fairtrial.training.models.mobilenet_v2.flavors import BiasedBatchNorm2d, OneSidedConv2d
from fairtrial.training.optimizers.adam import Adam
from fast_layers import TOLERANCE, assert_same, block, distance, images, needs_kernels, pair


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_a_block_is_the_plain_block(size, stride, training):
    needs_kernels()
    fast, plain = (module.train(training) for module in pair(block(stride)))
    for batch in (1, 2, 3):
        if training and batch * (-(-size // stride)) ** 2 < 2:
            continue
        assert_same(fast, plain, images(batch, 5, size, size))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 4, 7, 8, pytest.param(15, marks=pytest.mark.slow), 16])
@pytest.mark.parametrize("batch", [62, 63, 64])
def test_a_block_in_batches_of_the_papers_size(size, batch, stride, training):
    needs_kernels()
    fast, plain = (module.train(training) for module in pair(block(stride, channels=(16, 40, 8))))
    assert_same(fast, plain, images(batch, 16, size, size))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 4, 7, 8, 15, 16])
@pytest.mark.parametrize("batch", [1, 2, 63, 64])
def test_a_block_in_float32_is_as_near_to_float64_as_can_be(size, batch, stride, training):
    """Within 1e-4; where rounding does more, as with statistics of two values, at most as far as torch is, in order."""
    needs_kernels()
    training = training and batch * (-(-size // stride)) ** 2 > 1  # there are no statistics of one value
    fast, plain = pair(block(stride, torch.float32, channels=(16, 40, 8)))
    exact = copy.deepcopy(plain).double()
    results = [
        gradients(module.train(training), images(batch, 16, size, size, dtype=dtype))
        for module, dtype in ((fast, torch.float32), (plain, torch.float32), (exact, torch.float64))
    ]
    largest = max(value.norm() for value in results[2].values())
    for name, expected in results[2].items():
        # Where the exact gradient is zero, as at a bias before another norm, there is only rounding to compare.
        ours, torchs = (
            (result[name].double() - expected).norm() / (expected.norm() + 1e-3 * largest) for result in results[:2]
        )
        assert ours < max(TOLERANCE[torch.float32], 10 * torchs), name


def gradients(module, inputs):
    """Output and gradients of a module, of a sum of its outputs with some weights."""
    inputs.requires_grad_()
    output = module(inputs)
    (output * images(*output.shape, dtype=output.dtype, seed=3)).sum().backward()
    named = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"output": output.detach(), "input": inputs.grad, **named}


@given(
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    stride=st.integers(1, 5),
    padding=st.integers(0, 2),
    channels=st.sampled_from([1, 5, 8, 13, 24]),
    batch=st.integers(1, 5),
    training=st.booleans(),
)
@settings(max_examples=50)
@example(size=(1, 1), stride=1, padding=1, channels=24, batch=62, training=True)
@example(size=(2, 2), stride=1, padding=1, channels=13, batch=63, training=True)
@example(size=(2, 2), stride=2, padding=1, channels=24, batch=62, training=True)
@example(size=(3, 5), stride=2, padding=1, channels=8, batch=63, training=True)
@example(size=(9, 9), stride=1, padding=1, channels=24, batch=62, training=True)
@example(size=(17, 15), stride=2, padding=1, channels=8, batch=64, training=True)
@example(size=(300, 2), stride=2, padding=1, channels=5, batch=2, training=True)
@example(size=(2, 300), stride=1, padding=2, channels=5, batch=2, training=True)
def test_depthwise_between_norms_is_the_plain_one(size, stride, padding, channels, batch, training):
    """Maps of any size and shape: taken by rows or whole, of one pixel, with windows apart from each other."""
    needs_kernels()
    assume(min(size) + 2 * padding >= 3)
    sequence = nn.Sequential(
        nn.BatchNorm2d(channels), nn.ReLU6(),
        nn.Conv2d(channels, channels, 3, stride, padding, groups=channels, bias=False),
        nn.BatchNorm2d(channels), nn.ReLU6(),
    )  # fmt: skip
    fast, plain = (module.train(training) for module in pair(sequence.double()))
    outputs = [(pixels + 2 * padding - 3) // stride + 1 for pixels in size]
    assume(not training or batch * min(outputs[0] * outputs[1], size[0] * size[1]) > 1)
    assert_same(fast, plain, images(batch, channels, *size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, BiasedBatchNorm2d])
def test_the_keras_flavor(size, norm):
    """Zeros on one side only, and running averages of the biased variance."""
    needs_kernels()
    assert_same(*pair(block(2, conv=OneSidedConv2d, norm=norm)), images(3, 5, size, size))


@pytest.mark.parametrize("size", [3, 8, 15, 32])
@pytest.mark.parametrize(("conv", "stride", "padding"), [(nn.Conv2d, 1, 1), (nn.Conv2d, 2, 1), (OneSidedConv2d, 2, 0)])
def test_the_first_convolution(size, conv, stride, padding, either_path):
    fast, plain = pair(
        nn.Sequential(conv(3, 16, 3, stride, padding, bias=False), nn.BatchNorm2d(16), nn.ReLU6()).double()
    )
    assert_same(fast, plain, images(2, 3, size, size))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 1),
        nn.Conv2d(4, 6, 1, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=0, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, stride=3, groups=4, bias=False),
        nn.Conv2d(4, 5, 5, padding=2, stride=2),
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, momentum=0.3, eps=0.1),
        BiasedBatchNorm2d(4),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_layer_alone(layer, training, either_path):
    fast, plain = pair(copy.deepcopy(layer).double())
    assert type(fast) is not type(plain)
    assert_same(fast.train(training), plain.train(training), images(3, 4, 7, 5))
    assert_same(fast, plain, images(3, 4, 7, 5).contiguous())  # NCHW in memory


@pytest.mark.parametrize(
    "sequence",
    [
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False), nn.Conv2d(4, 4, 3, 2, 1, groups=4, bias=False)),
        nn.Sequential(
            nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(4), nn.Hardswish(), nn.BatchNorm2d(4),
        ),
        nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU6(), nn.Dropout(0.0)),
    ],
    ids=["norm first", "two depthwise", "norms between depthwise", "a convolution not known"],
)  # fmt: skip
def test_other_orders_of_layers(sequence, either_path):
    assert_same(*pair(copy.deepcopy(sequence).double()), images(3, 4, 6, 6))


@pytest.mark.parametrize(
    ("stem", "flavor"),
    [
        ("stock", "torchvision"),
        ("cifar", "keras"),
        pytest.param("stock", "keras", marks=pytest.mark.slow),
        pytest.param("cifar", "torchvision", marks=pytest.mark.slow),
    ],
)
def test_mobilenet_is_the_plain_one(stem, flavor, either_path):
    plain = (
        MobileNetV2(stem=stem, flavor=flavor, width=0.35).build(classes=10, image_size=32, channels=3, seed=0).double()
    )
    fast = layers.accelerate(copy.deepcopy(plain))
    assert list(fast.state_dict()) == list(plain.state_dict())
    size = 32 if stem == "stock" else 16
    batch = images(6, 3, size, size).sigmoid().contiguous(memory_format=torch.channels_last)
    for network in (plain, fast):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            functional.cross_entropy(network(batch), torch.arange(6)).backward()
            optimizer.step()
    for name, expected in plain.state_dict().items():
        assert fast.state_dict()[name].shape == expected.shape
        assert fast.state_dict()[name].stride() == expected.stride()
        assert distance(fast.state_dict()[name].double(), expected.double()) < 1e-7, name  # two steps amplify rounding
    for network in (plain, fast):
        network.eval()
    with torch.inference_mode():
        assert distance(fast(batch), plain(batch)) < 1e-6


def test_mobilenets_gradients_are_the_plain_ones():
    needs_kernels()
    plain = MobileNetV2().build(classes=10, image_size=32, channels=3, seed=0).double()
    fast = layers.accelerate(copy.deepcopy(plain))
    batch = images(4, 3, 32, 32)
    losses = [functional.cross_entropy(network(batch), torch.arange(4)) for network in (plain, fast)]
    for loss in losses:
        loss.backward()
    assert abs(losses[0].item() - losses[1].item()) < 1e-12
    scale = max(parameter.grad.norm() for parameter in plain.parameters())
    for (name, expected), found in zip(plain.named_parameters(), fast.parameters(), strict=True):
        # Where the exact gradient is zero, as at a bias before another norm, there is only rounding to compare.
        assert (found.grad - expected.grad).norm() < 1e-10 * (expected.grad.norm() + 1e-3 * scale), name


def test_statistics_keep_their_digits_beside_a_large_mean():
    """In float32, of values near 1000 with deviation 1; sums of squares would lose the variance altogether."""
    needs_kernels()
    norm = layers.accelerate(nn.BatchNorm2d(20))
    values = images(64, 20, 4, 4, dtype=torch.float32) + 1000
    exact = functional.batch_norm(values.double(), None, None, training=True)
    assert distance(norm(values).detach().double(), exact) < 1e-4
    variance = values.double().var((0, 2, 3))
    torch.testing.assert_close(norm.running_var.double(), 0.9 + 0.1 * variance, rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_comes_through(bad, either_path):
    fast, plain = pair(block().float())
    values = images(4, 5, 4, 4, dtype=torch.float32)
    values[1, 2, 3, 0] = bad
    assert torch.equal(fast(values).isnan(), plain(values).isnan())
    assert fast(values).isnan().any()
    fast.eval()
    plain.eval()
    assert torch.equal(fast(values).isfinite(), plain(values).isfinite())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_products_without_blas(dtype, monkeypatch):
    """Where torch shows no BLAS, a kernel of ours multiplies."""
    needs_kernels()
    compiled = library.Kernels(dtype)
    assert compiled._product, "torch for Linux shows its BLAS"
    monkeypatch.setattr(compiled, "_product", None)
    monkeypatch.setattr(library, "load", lambda dtype: compiled)
    first = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1, bias=dtype is torch.float64), nn.BatchNorm2d(5), nn.ReLU6())
    fast, plain = pair(nn.Sequential(first, block()).to(dtype))
    assert_same(fast, plain, images(7, 3, 13, 9, dtype=dtype))


def test_repeats_are_the_same_to_the_bit(either_path):
    def run():
        network = layers.accelerate(MobileNetV2(width=0.35).build(classes=10, image_size=32, channels=3, seed=0))
        loss = functional.cross_entropy(network(images(8, 3, 32, 32, dtype=torch.float32)), torch.arange(8))
        loss.backward()
        return [loss.detach(), *(p.grad for p in network.parameters()), *network.buffers()]

    for one, other in zip(run(), run(), strict=True):
        assert torch.equal(one, other)


def test_two_threads_divide_the_work(monkeypatch):
    needs_kernels()
    torch.set_num_threads(2)
    for batch in (1, 2, 5):
        assert_same(*pair(block(2)), images(batch, 5, 7, 7))
    fast, _ = pair(block())
    assert torch.equal(fast(images(5, 5, 4, 4)), fast(images(5, 5, 4, 4)))


def losses(dtype, accelerate, width=0.35):
    """Loss of each step of an epoch on the digits, from the same weights and in the same order, with Adam."""
    network = accelerate(MobileNetV2(width=width).build(classes=10, image_size=32, channels=3, seed=0).to(dtype))
    optimizer = Adam().build(network.parameters())
    digits, seen = datasets.load(Digits()).train, []
    for indices in loop.batch_order(0, 1, len(digits)).split(64):
        pictures, labels = digits.batch(indices)
        loss = functional.cross_entropy(network(pictures.to(dtype)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return torch.tensor(seen)


@pytest.mark.slow
def test_an_epoch_is_the_same_to_rounding(either_path):
    """In float64. In float32 rounding grows in a few steps to the size of the loss's own noise, plain or fast."""
    fast, plain = losses(torch.float64, layers.accelerate), losses(torch.float64, lambda network: network)
    assert (fast - plain).abs().max() < 1e-6


@pytest.mark.slow
def test_an_epoch_gives_the_same_curve_within_noise():
    needs_kernels()
    fast, plain = losses(torch.float32, layers.accelerate), losses(torch.float32, lambda network: network)
    assert (fast.mean() - plain.mean()).abs() < 0.1
