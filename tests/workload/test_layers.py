"""Fast layers against the plain ones that they replace, with the compiled kernels and without."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fairtrial.spec import Adam, Data, Model
from fairtrial.workload import data, kernels, layers, model, train
from fairtrial.workload.flavours import BiasedBatchNorm2d, OneSidedConv2d
from fairtrial.workload.optimizer import build_optimizer

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["compiled", "plain"])
def either_path(request, monkeypatch):
    """Run a test with the compiled kernels, if this machine can have them, and without."""
    if request.param == "plain":
        monkeypatch.setattr(kernels, "load", lambda dtype: None)
    else:
        needs_kernels()


def needs_kernels():
    if kernels.load(torch.float32) is None:
        pytest.skip(layers.path())


def images(*shape, dtype=torch.float64, seed=0, requires_grad=False):
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return values.contiguous(memory_format=torch.channels_last).requires_grad_(requires_grad)


def scramble(module, seed=1):
    """Give every parameter and buffer a value that a wrong formula would show."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)
            with torch.no_grad():
                tensor.copy_(noise.abs() + 0.5 if name.endswith(("running_var", "1.weight")) else noise)
    return module


def distance(found, expected):
    """Largest difference relative to the largest value."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-3)).item()


def assert_same(fast, plain, inputs, tolerance=None):
    """Hold outputs, all gradients and all buffers of two modules against each other."""
    tolerance = tolerance or TOLERANCE[inputs.dtype]
    results = []
    for module in (fast, plain):
        given = inputs.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        output = module(given)
        weights = images(*output.shape, dtype=output.dtype, seed=7) if output.dim() == 4 else torch.ones_like(output)
        (output * weights).sum().backward()
        gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
        results.append(
            {"output": output.detach(), "input gradient": given.grad, **gradients, **dict(module.named_buffers())}
        )
    found, expected = results
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None or not value.is_floating_point():
            assert (found[name] is None and value is None) or torch.equal(found[name], value), name
        else:
            assert distance(found[name], value) < tolerance, name


def pair(plain):
    """A module and its accelerated copy."""
    plain = scramble(plain)
    return layers.accelerate(copy.deepcopy(plain)), plain


def block(stride=1, dtype=torch.float64, conv=nn.Conv2d, norm=nn.BatchNorm2d, channels=(5, 24, 11)):
    """An inverted residual block without its residual: odd widths, so that every tail of a vector is met."""
    inputs, hidden, outputs = channels
    padding = 0 if conv is OneSidedConv2d else 1
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(inputs, hidden, 1, bias=False), norm(hidden), nn.ReLU6(inplace=True)),
        nn.Sequential(
            conv(hidden, hidden, 3, stride, padding, groups=hidden, bias=False), norm(hidden), nn.ReLU6(inplace=True)
        ),
        nn.Conv2d(hidden, outputs, 1, bias=False),
        norm(outputs),
    ).to(dtype)


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
def test_the_keras_flavour(size, norm):
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
    ("stem", "flavour"),
    [
        ("stock", "torchvision"),
        ("cifar", "keras"),
        pytest.param("stock", "keras", marks=pytest.mark.slow),
        pytest.param("cifar", "torchvision", marks=pytest.mark.slow),
    ],
)
def test_mobilenet_is_the_plain_one(stem, flavour, either_path):
    plain = model.build(Model(stem=stem, flavour=flavour, width=0.35), classes=10, image_size=32, seed=0).double()
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
    plain = model.build(Model(), classes=10, image_size=32, seed=0).double()
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
    compiled = kernels.Kernels(dtype)
    assert compiled._product, "torch for Linux shows its BLAS"
    monkeypatch.setattr(compiled, "_product", None)
    monkeypatch.setattr(kernels, "load", lambda dtype: compiled)
    first = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1, bias=dtype is torch.float64), nn.BatchNorm2d(5), nn.ReLU6())
    fast, plain = pair(nn.Sequential(first, block()).to(dtype))
    assert_same(fast, plain, images(7, 3, 13, 9, dtype=dtype))


def test_a_layer_that_was_changed_is_looked_at_anew(either_path):
    """After another size, other weights, a hook, other settings; and a layer that is gone is let go."""
    fast, plain = pair(block(channels=(5, 8, 5)))
    assert_same(fast, plain, images(3, 5, 6, 6))
    assert_same(fast, plain, images(2, 5, 4, 8))
    for module in (fast, plain):
        module.zero_grad()
        module[2].weight.data = module[2].weight.data.flip(0)
        module[0][1].eps = 0.5
        module[3].momentum = 0.7
        module[1][0].stride = (2, 2)
    assert_same(fast, plain, images(2, 5, 4, 8))
    for module in (fast, plain):
        module.zero_grad()
        module[2] = scramble(nn.Conv2d(8, 5, 1, bias=True).double())
        module[1][2] = nn.ReLU()
    assert_same(fast, plain, images(2, 5, 4, 8))
    heard = []
    fast[0][0].register_forward_hook(lambda *_: heard.append(1))
    assert_same(fast, plain, images(2, 5, 4, 8))
    assert heard
    layer = layers.accelerate(nn.Conv2d(4, 4, 1))
    layer(torch.ones(1, 4, 2, 2))
    gone = weakref.ref(layer)
    del layer
    gc.collect()
    assert gone() is None


def broken(layer, **tensors):
    for name, tensor in tensors.items():
        is_parameter = isinstance(getattr(layer, name), nn.Parameter)
        setattr(layer, name, nn.Parameter(tensor) if is_parameter else tensor)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        broken(nn.BatchNorm2d(6), running_mean=torch.zeros(2)),
        broken(nn.BatchNorm2d(6), bias=torch.zeros(1)),
        broken(nn.Conv2d(6, 6, 1), weight=torch.zeros(6, 5, 1, 1)),
        broken(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), weight=torch.zeros(6, 1, 1, 3)),
    ],
    ids=["statistics", "a norm's bias", "input channels", "a kernel"],
)
def test_tensors_of_wrong_sizes_are_what_they_are_to_torch(layer, either_path):
    """An error, or a result by torch's own rules; never memory that is not the layer's."""
    results = []
    for module in (copy.deepcopy(layer), layers.accelerate(copy.deepcopy(layer))):
        try:
            results.append(module(torch.ones(2, 6, 4, 4)).shape)
        except RuntimeError:
            results.append(None)
    assert results[0] == results[1]


def test_a_bias_that_is_not_dense(either_path):
    plain = broken(nn.Conv2d(4, 6, 1).double(), bias=torch.arange(12.0).double()[::2])
    fast = layers.accelerate(copy.deepcopy(plain))
    fast.bias = nn.Parameter(torch.arange(12.0).double()[::2])
    assert distance(fast(images(2, 4, 3, 3)).detach(), plain(images(2, 4, 3, 3)).detach()) < 1e-12


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(4), nn.BatchNorm2d(4, bias=False), nn.BatchNorm2d(4, affine=False)], ids=str
)
def test_norms_that_do_not_track_or_lack_a_bias(layer, either_path):
    fast, plain = layers.accelerate(copy.deepcopy(layer).double()), copy.deepcopy(layer).double()
    for module in (fast, plain):
        module.track_running_stats = False
        module(images(3, 4, 2, 2))
    assert distance(fast(images(3, 4, 2, 2)).detach(), plain(images(3, 4, 2, 2)).detach()) < 1e-12
    for name, buffer in plain.named_buffers():
        assert torch.equal(dict(fast.named_buffers())[name], buffer), name


def test_parametrized_weights(either_path):
    fast = torch.nn.utils.parametrizations.weight_norm(layers.accelerate(nn.Conv2d(4, 6, 1)))
    outputs = []
    for _ in range(2):
        outputs.append(fast(torch.ones(2, 4, 3, 3)))
        outputs[-1].sum().backward()
        with torch.no_grad():
            fast.parametrizations.weight.original0.mul_(2)
    assert not torch.allclose(*outputs)


def test_a_parametrization_that_comes_later(either_path):
    """The kernels have taken the layer before, alone and in a sequence."""
    sequence = layers.accelerate(nn.Sequential(nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6)).eval())
    before = [part(torch.ones(2, 4, 3, 3)) for part in (sequence, sequence[0])]
    torch.nn.utils.parametrize.register_parametrization(sequence[0], "weight", Twice())
    after = [part(torch.ones(2, 4, 3, 3)) for part in (sequence, sequence[0])]
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(2 * one, other)


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_weights_replaced_or_cut_behind_autograds_back(either_path):
    layer = layers.accelerate(nn.Conv2d(64, 6, 1))
    inputs = images(8, 64, 4, 4, dtype=torch.float32, requires_grad=True)
    output, weight = layer(inputs), layer.weight.detach().clone()
    layer.weight.data = layer.weight.data * 0
    reused = [torch.full((6, 64, 1, 1), torch.nan) for _ in range(50)]  # where the weight was, if it is gone
    output.sum().backward()
    torch.testing.assert_close(inputs.grad, weight.sum(0).expand_as(inputs))
    del reused
    layer.weight.data, layer.bias.data, layer.out_channels = layer.weight.data[:3], layer.bias.data[:3], 3
    assert layer(inputs).shape == (8, 3, 4, 4)


def test_maps_are_let_go_after_the_way_back():
    needs_kernels()
    fast, _ = pair(block())
    output = fast(images(3, 5, 4, 4)).sum()
    tensors = [*output.grad_fn.next_functions[0][0].saved_tensors]
    kept = [weakref.ref(tensor) for tensor in tensors if tensor.dim() == 1]
    assert kept
    del tensors
    output.backward()
    gc.collect()
    assert all(reference() is None for reference in kept)
    assert output.grad_fn is not None


def test_a_default_device_is_not_ours(either_path):
    fast, plain = (module.eval() for module in pair(block()))
    values = images(2, 5, 4, 4)
    with torch.device("meta"):
        output = fast(values)
    assert distance(output.detach(), plain(values).detach()) < 1e-10


def test_functions_of_functions(either_path):
    fast, _ = pair(block().eval())
    values = torch.stack([images(2, 5, 4, 4, seed=seed) for seed in range(3)])
    mapped = torch.func.vmap(fast)(values)
    for one, several in zip(mapped, values, strict=True):
        torch.testing.assert_close(one, fast(several))


def test_hooks_of_all_modules_are_heard(either_path):
    fast, _ = pair(block())
    heard = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: heard.append(type(module)))
    try:
        fast(images(2, 5, 4, 4))
    finally:
        handle.remove()
    assert nn.ReLU6 in heard


def test_symbolic_tracing(either_path):
    layer = layers.accelerate(nn.Conv2d(4, 6, 1))
    traced = torch.fx.symbolic_trace(nn.Sequential(layer))
    torch.testing.assert_close(traced(torch.ones(2, 4, 3, 3)), layer(torch.ones(2, 4, 3, 3)))


def test_repeats_are_the_same_to_the_bit(either_path):
    def run():
        network = layers.accelerate(model.build(Model(width=0.35), classes=10, image_size=32, seed=0))
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


def test_one_value_a_channel_is_the_same_error(either_path):
    fast, plain = pair(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    for module in (plain, fast):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            module(torch.ones(1, 4, 1, 1))


def test_what_torch_refuses_is_refused(either_path):
    for module in pair(block().float()):
        with pytest.raises(RuntimeError, match="6"):
            module(torch.ones(2, 6, 4, 4))


def test_a_batch_of_no_images(either_path):
    fast, plain = (module.eval() for module in pair(block().float()))
    assert fast(torch.ones(0, 5, 4, 4)).shape == plain(torch.ones(0, 5, 4, 4)).shape == (0, 11, 4, 4)


class Network(nn.Module):
    """A user's own model: a layer used twice, a residual, layers side by side, a subclass, a hook."""

    class OwnConv(nn.Conv2d):
        def forward(self, features):
            return super().forward(features) + 1

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.shared = block(channels=(8, 16, 8)).float()
        self.own = self.OwnConv(8, 8, 1)
        self.norm, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.known = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)])
        self.head = nn.Linear(8, 4)

    def forward(self, pictures):
        features = self.stem(pictures)
        features = features + self.shared(self.shared(features))
        features = self.relu(self.norm(self.own(features)))
        features = self.known[0](features) + self.known[1](features)
        return self.head(features.mean((2, 3)))


def test_a_users_own_model(either_path):
    fast, plain = pair(Network().double())
    assert type(fast.own) is Network.OwnConv
    assert isinstance(fast.shared[0][0], nn.Conv2d)
    assert_same(fast, plain, images(4, 3, 6, 6), tolerance=1e-9)


def test_names_order_and_objects_stay():
    plain = Network()
    parameters, names = list(plain.parameters()), list(plain.state_dict())
    fast = layers.accelerate(plain)
    assert fast is plain
    assert all(one is other for one, other in zip(fast.parameters(), parameters, strict=True))
    assert list(fast.state_dict()) == names
    assert layers.accelerate(fast) is fast  # twice is once
    assert_same(fast.double(), copy.deepcopy(fast), images(2, 3, 5, 5), tolerance=1e-12)


class Doubled(nn.Sequential):
    """A subclass with a method of its own, and no forward pass of its own."""

    def first(self):
        return self[0]


class Backwards(nn.Sequential):
    def forward(self, features):
        for layer in reversed(self):
            features = layer(features)
        return features


def test_subclasses_of_sequential():
    fast = layers.accelerate(Doubled(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    assert isinstance(fast, Doubled)
    assert fast.first() is fast[0]
    assert isinstance(fast, layers.FastSequential)
    assert type(layers.accelerate(Backwards(nn.Conv2d(4, 4, 1)))) is Backwards
    assert fast[:1](torch.ones(2, 4, 1, 1)).shape == (2, 4, 1, 1)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_and_pickles(duplicate):
    fast = layers.accelerate(Doubled(block(), nn.ReLU()))
    other = duplicate(fast)
    assert type(other) is type(fast)
    assert not {id(p) for p in other.parameters()} & {id(p) for p in fast.parameters()}
    assert_same(other, fast, images(2, 5, 4, 4), tolerance=1e-15)
    file = io.BytesIO()
    torch.save(fast.state_dict(), file)
    file.seek(0)
    block_again = Doubled(block(), nn.ReLU())
    block_again.load_state_dict(torch.load(file, weights_only=True))
    fast.load_state_dict(block_again.state_dict())


LEFT_ALONE = {
    "groups": nn.Conv2d(4, 4, 3, padding=1, groups=2),
    "dilation": nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False),
    "padding mode": nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False, padding_mode="reflect"),
    "padding by name": nn.Conv2d(4, 4, 3, padding="same", groups=4, bias=False),
    "two strides": nn.Conv2d(4, 4, 3, stride=(1, 2), padding=1, groups=4, bias=False),
    "strided pointwise": nn.Conv2d(4, 4, 1, stride=2),
    "no affine": nn.BatchNorm2d(4, affine=False),
    "no statistics": nn.BatchNorm2d(4, track_running_stats=False),
    "no momentum": nn.BatchNorm2d(4, momentum=None),
}


@pytest.mark.parametrize("layer", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_settings_that_are_not_known_take_the_plain_path(layer, monkeypatch):
    monkeypatch.setattr(layers.chain, "run", lambda *_: pytest.fail("the kernels were used"))
    plain = copy.deepcopy(layer).double()
    fast = layers.accelerate(nn.Sequential(copy.deepcopy(plain), nn.ReLU6()))
    assert_same(fast, nn.Sequential(plain, nn.ReLU6()), images(3, 4, 6, 6), tolerance=1e-15)


def test_other_dtypes_and_modes_take_the_plain_path(monkeypatch):
    monkeypatch.setattr(layers.chain, "run", lambda *_: pytest.fail("the kernels were used"))
    fast = layers.accelerate(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU6()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fast(torch.ones(2, 4, 3, 3)).isfinite().all()
    assert fast.bfloat16()(torch.ones(2, 4, 3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert fast.float().to("meta")(torch.ones(2, 4, 3, 3, device="meta")).device.type == "meta"
    with pytest.raises(RuntimeError):
        layers.accelerate(nn.Conv2d(4, 4, 1))(torch.ones(2, 4, 3, 3, dtype=torch.float64))


def test_hooks_see_what_they_always_saw(either_path):
    fast, plain = pair(block())
    seen = []
    for module in (fast, plain):
        module[0][1].register_forward_hook(lambda _module, given, output: seen.append((given[0], output)))
        module[1].register_full_backward_hook(lambda _module, given, output: seen.append((given[0], output[0])))
    assert_same(fast, plain, images(2, 5, 4, 4))
    assert len(seen) == 4
    for found, expected in zip(seen[:2], seen[2:], strict=True):
        for one, other in zip(found, expected, strict=True):
            assert distance(one.detach(), other.detach()) < 1e-10


def test_a_forward_pass_put_into_an_object_is_kept():
    sequence = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    sequence[0].forward = lambda features: features * 2
    fast = layers.accelerate(sequence.eval())
    assert torch.allclose(fast(torch.ones(2, 4, 1, 1)), torch.full((2, 4, 1, 1), 2.0), atol=1e-4)


def test_the_output_may_be_changed_in_place(either_path):
    """As an in-place activation does that stands outside the sequence."""
    fast, plain = pair(nn.ModuleList([block(), nn.ReLU(inplace=True)]))
    assert_same(
        nn.Sequential(layers.accelerate(fast[0]), nn.Identity(), fast[1]),
        nn.Sequential(plain[0], nn.Identity(), plain[1]),
        images(2, 5, 4, 4),
    )


@pytest.mark.parametrize("change", ["input", "weight"])
def test_a_tensor_changed_before_the_backward_pass_is_an_error(change):
    needs_kernels()
    fast, _ = pair(block())
    given = images(2, 5, 4, 4, requires_grad=True) * 1
    output = fast(given)
    with torch.no_grad():
        (given if change == "input" else fast[2].weight).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_backward_twice(either_path):
    fast, _ = pair(block())
    output = fast(images(2, 5, 4, 4)).square().sum()
    output.backward(retain_graph=True)
    once = [parameter.grad.clone() for parameter in fast.parameters()]
    output.backward()
    for first, parameter in zip(once, fast.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 2 * first, rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match="second time"):
        output.backward()


def test_frozen_parameters_get_no_gradient(either_path):
    fast, plain = pair(block())
    for module in (fast, plain):
        module[0].requires_grad_(False)
        module[1][0].weight.requires_grad_(False)
    assert_same(fast, plain, images(2, 5, 4, 4))


def test_without_a_gradient_nothing_is_kept(either_path):
    fast, plain = pair(block())
    for mode in (torch.no_grad, torch.inference_mode):
        for training in (True, False):
            with mode():
                found, expected = (module.train(training)(images(2, 5, 4, 4)) for module in (fast, plain))
            assert not found.requires_grad
            assert distance(found, expected) < 1e-10
    assert distance(fast[0][1].running_var, plain[0][1].running_var) < 1e-10


def test_the_input_is_not_written_to():
    needs_kernels()
    fast, _ = pair(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU6()).double())
    given = images(2, 4, 3, 3)
    kept = given.clone()
    with torch.no_grad():
        fast(given)
    fast(given).sum().backward()
    assert torch.equal(given, kept)


def losses(dtype, accelerate, width=0.35):
    """Loss of each step of an epoch on the digits, from the same weights and in the same order, with Adam."""
    network = accelerate(model.build(Model(width=width), classes=10, image_size=32, seed=0).to(dtype))
    optimizer = build_optimizer(Adam(), network.parameters())
    digits, seen = data.load(Data(name="digits")).train, []
    for indices in train.batch_order(0, 1, len(digits)).split(64):
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
