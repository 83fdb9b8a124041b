"""Models by path: arguments, what the data give, where weights come from, and what is said before any training."""

import hashlib
import pickle
import random
import sys
from collections import UserDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fairtrial.errors import StudyError, WeightsError
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import loop, prepare
from fairtrial.training.kernels.layers import FastConv2d
from fairtrial.training.learner import Learner
from fairtrial.trial import TrialContext
from fast_layers import needs_kernels

USERS = '''
import random

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    """A small network, written as in many a tutorial."""

    def __init__(self, num_classes, in_channels=1, hidden: int = 8, dropout: float = 0.0, channels=4):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, stride=4)
        self.hidden = nn.Linear(channels * 8 * 8, hidden)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        x = x.view(x.size(0), -1)
        return self.fc(self.dropout(torch.relu(self.hidden(x))))


class Fixed(nn.Linear):
    """As many logits as it says, and no more."""

    def __init__(self, width=10):
        super().__init__(32 * 32 * 3, width)

    def forward(self, images):
        return super().forward(images.view(len(images), -1))


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class Norm(Net):
    def __init__(self, num_classes, in_channels=1):
        super().__init__(num_classes, in_channels)
        self.norm = nn.BatchNorm1d(num_classes)

    def forward(self, x):
        return self.norm(super().forward(x))


class Wild(Net):
    """Draws from every global generator."""

    def __init__(self, num_classes, in_channels=1):
        super().__init__(num_classes, in_channels)
        with torch.no_grad():
            self.fc.bias[0], self.fc.bias[1] = random.random(), np.random.random()


class Unseeded(Net):
    def __init__(self, num_classes, in_channels=1):
        super().__init__(num_classes, in_channels)
        nn.init.normal_(self.fc.weight, generator=_generator)


class NotANumber(Net):
    def forward(self, x):
        return super().forward(x) * float("nan")


class Large(Net):
    """For images of 64 x 64."""

    def __init__(self, num_classes, in_channels=1):
        super().__init__(num_classes, in_channels)
        self.hidden = nn.Linear(4 * 16 * 16, 8)


class Lazy(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))


class Weightless(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x):
        return x[:, 0, 0, : self.num_classes]


class Pointwise(nn.Sequential):
    def __init__(self, num_classes, in_channels=3):
        conv = nn.Conv2d(in_channels, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        super().__init__(*conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))


class Views(nn.Module):
    """Takes a view that fast layers' memory format does not allow."""

    def __init__(self, num_classes, in_channels=3):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(in_channels, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8 * 32 * 32, num_classes)

    def forward(self, x):
        return self.fc(self.conv(x).view(len(x), -1))


_generator = torch.Generator().manual_seed(0)
_one = Net(10, 3)


def make(depth=1, **keywords):
    return Net(hidden=8 * depth, in_channels=3, **keywords)


def shared(num_classes):
    return _one


def nothing():
    return "a network"


def fails(hidden=8):
    raise ValueError("hidden must be\\n16")
'''


RAISES = USERS[: USERS.index("raise ")].count("\n") + 1


@pytest.fixture(autouse=True)
def _users_module(tmp_path, monkeypatch):
    (tmp_path / "users_models.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("users_models", None)


def study(name="Net", training=None, **keys):
    return Study(
        name="s",
        reference="a",
        arms={"a": {}},
        data={"name": "digits", "train": 64, "test": 50},
        model={"name": f"users_models:{name}", **keys},
        training={"epochs": 1, "batch_size": 16} | (training or {}),
        optimizer={"lr": 1e-2},
    )


def build(name="Net", seed=0, classes=10, **keys):
    return study(name, **keys).settings.model.build(classes=classes, image_size=32, channels=3, seed=seed)


def refused(name="Net", training=None, **keys):
    """What is said of a study before it starts."""
    with pytest.raises((StudyError, WeightsError)) as caught:
        prepare.prepare(study(name, training, **keys))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f'model.name = "users_models:{name}": ')


def test_arguments_come_from_the_table_and_sizes_from_the_data():
    network = build(hidden=5, dropout=0.5, classes=7)
    assert (network.fc.in_features, network.fc.out_features, network.conv.in_channels) == (5, 7, 3)
    assert network.conv.out_channels == 4  # `channels` may mean anything, and is not given
    assert network.training
    assert build("make", depth=3).hidden.out_features == 24
    assert build("make", dropout=0.25).dropout.p == 0.25
    assert build("Fixed").out_features == 10


def test_an_unknown_argument_is_an_error_with_the_real_ones():
    with pytest.raises(StudyError) as caught:
        study(hiden=5)
    assert str(caught.value) == "unknown key `hiden` in [model]: did you mean `hidden`?"
    with pytest.raises(StudyError, match=r"unknown key `qqq` in \[model\]: known: .*`hidden`, `dropout`, `channels`"):
        study(qqq=5)
    with pytest.raises(StudyError, match="hidden"):
        study(hidden="many")
    assert refused("make", hiden=3).startswith("can't be made: TypeError: ")


@pytest.mark.parametrize("name", ["Net", "Wild", "make"])
def test_weights_come_from_the_seed_and_leave_the_global_states_alone(name):
    build(name)  # importing the module makes a network
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (build(name, seed=seed).state_dict() for seed in (3, 3, 2**40))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)


def test_a_settings_key_changes_the_hash_and_pickles():
    one, other = study(), study(hidden=9)
    assert one.hash != other.hash
    assert pickle.loads(pickle.dumps(other.settings.model)) == other.settings.model
    assert Study.from_toml(other.to_toml()) == other


def test_it_trains_and_is_the_same_to_the_bit_again():
    records = [
        [{key: value for key, value in one.items() if "seconds" not in key} for one in loop.train(context)]
        for context in (TrialContext(plan(study(dropout=0.5, training={"epochs": 3}))[0]) for _ in range(2))
    ]
    assert records[0] == records[1]
    assert records[0][-1]["train_loss"] < records[0][0]["train_loss"]


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("Fixed", {"width": 7}, "gives float32 (2, 7) in training mode; it must give logits of shape (2, 10)"),
        ("Pair", {}, "gives tuple in training mode; it must give logits of shape (2, 10)"),
        ("NotANumber", {}, "gives numbers that are not finite in training mode"),
        ("Lazy", {}, "has lazy layers, which draw their weights in the first step; name their sizes"),
        ("Weightless", {}, "has no weights to train"),
        ("nothing", {}, "gave str, not a torch.nn.Module"),
        ("fails", {}, f"can't be made: ValueError: hidden must be 16 (users_models.py, line {RAISES})"),
        ("shared", {}, "gives the same network twice, which trials would share; make a new one in each call"),
        (
            "Unseeded",
            {},
            "two networks of one seed differ in fc.weight; draw initial weights from torch's global generator",
        ),
    ],
)
def test_what_cant_be_trained_is_one_line_before_any_training(name, keys, message):
    assert refused(name, **keys) == message


def test_images_of_another_size_are_one_line():
    message = refused("Large")
    assert message.startswith("fails on inputs of shape (2, 3, 32, 32) in training mode: RuntimeError: mat1 and mat2")
    assert message.endswith(")")


def test_a_last_batch_of_one_image_is_tried_too():
    assert prepare.prepare(study("Norm"))
    message = refused("Norm", training={"batch_size": 63})
    assert message.startswith(
        "fails on inputs of shape (1, 3, 32, 32) in training mode: ValueError: Expected more than 1"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("_one", "is one network, which all trials would share; name its class, or a function that makes one"),
        ("_generator", "must be a torch.nn.Module, a function that makes one, or a ModelSettings"),
        ("torch", "must be a torch.nn.Module, a function that makes one, or a ModelSettings"),
        ("Nett", "users_models has no Nett"),
    ],
)
def test_what_is_no_model_is_one_line(name, message):
    with pytest.raises(StudyError) as caught:
        study(name)
    assert str(caught.value) == f'model.name = "users_models:{name}": {message}'


def test_weights_from_a_file_with_another_classifier(tmp_path):
    state = build(seed=7, classes=100).state_dict()
    torch.save(state, tmp_path / "w.pt")
    loaded, seeded = build(weights=str(tmp_path / "w.pt")).state_dict(), build().state_dict()
    for key, value in loaded.items():
        assert torch.equal(value, (seeded if key.startswith("fc.") else state)[key]), key
    torch.save({"conv": torch.zeros(1)}, tmp_path / "w.pt")
    assert "does not fit the model: " in refused(weights=str(tmp_path / "w.pt"))
    assert refused(weights="torchvision:IMAGENET1K_V1") == (
        'model.weights = "torchvision:IMAGENET1K_V1": users_models:Net is no model of torchvision\'s'
    )


def test_fast_layers_are_used_where_they_gain_and_suit():
    def learner(name):
        return Learner.build(plan(study(name))[0], loop.load_once(study(name).settings.data))

    needs_kernels()
    assert isinstance(learner("Pointwise").network[0], FastConv2d)
    assert not any(isinstance(one, FastConv2d) for one in learner("Net").network.modules())  # nothing to gain
    views = learner("Views")
    assert not any(isinstance(one, FastConv2d) for one in views.network.modules())  # they would fail
    assert views.step(torch.rand(4, 3, 32, 32), torch.arange(4))[0].isfinite()


def test_published_weights_of_torchvisions_models(tmp_path, monkeypatch):
    """What torchvision says of a model's weights is all that is used of it; here a module stands in for it."""
    import users_models

    monkeypatch.setenv("FAIRTRIAL_CACHE", str(tmp_path))
    file = tmp_path / "weights" / "net-00000000.pth"
    file.parent.mkdir()
    torch.save(build(seed=7, classes=100).state_dict(), file)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    file = file.rename(file.with_name(f"net-{digits}.pth"))
    known = SimpleNamespace(url=f"https://download.pytorch.org/models/{file.name}", meta={"_file_size": 0.1})

    class Weights(UserDict):
        __members__ = property(lambda self: self.data)

    def get_model_weights(thing):
        if thing is not users_models.Net:
            raise ValueError
        return Weights(V1=known)

    models = SimpleNamespace(get_model_weights=get_model_weights)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    network, plain = build(weights="torchvision:V1"), build(seed=7, classes=100)
    assert torch.equal(network.conv.weight, plain.conv.weight)
    images = torch.rand(2, 3, 32, 32)
    plain.fc = network.fc
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = plain.eval()((images - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(network.eval()(images), expected)
    assert study(weights="torchvision:V1").settings.model.fetch().startswith(digits)
    assert refused(weights="torchvision:V2") == 'model.weights = "torchvision:V2": did you mean `torchvision:V1`?'
