"""Fast layers as modules: changed, copied, broken, in users' own models, or with settings that they do not know."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn

from fairtrial.training.kernels import layers
from fast_layers import assert_same, block, distance, images, pair, scramble


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
    monkeypatch.setattr(layers.library, "compute", lambda *_: pytest.fail("the kernels were used"))
    plain = copy.deepcopy(layer).double()
    fast = layers.accelerate(nn.Sequential(copy.deepcopy(plain), nn.ReLU6()))
    assert_same(fast, nn.Sequential(plain, nn.ReLU6()), images(3, 4, 6, 6), tolerance=1e-15)


def test_other_dtypes_and_modes_take_the_plain_path(monkeypatch):
    monkeypatch.setattr(layers.library, "compute", lambda *_: pytest.fail("the kernels were used"))
    fast = layers.accelerate(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU6()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fast(torch.ones(2, 4, 3, 3)).isfinite().all()
    assert fast.bfloat16()(torch.ones(2, 4, 3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert fast.float().to("meta")(torch.ones(2, 4, 3, 3, device="meta")).device.type == "meta"
    with pytest.raises(RuntimeError):
        layers.accelerate(nn.Conv2d(4, 4, 1))(torch.ones(2, 4, 3, 3, dtype=torch.float64))


def test_a_forward_pass_put_into_an_object_is_kept():
    sequence = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    sequence[0].forward = lambda features: features * 2
    fast = layers.accelerate(sequence.eval())
    assert torch.allclose(fast(torch.ones(2, 4, 1, 1)), torch.full((2, 4, 1, 1), 2.0), atol=1e-4)
