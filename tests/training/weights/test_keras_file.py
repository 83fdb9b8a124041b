"""Files that Keras itself wrote (see reference/make_keras_file.py): what a network made of them computes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fairtrial.errors import WeightsError
from fairtrial.training.weights import fitting
from fairtrial.training.weights.keras_file import Layer, state_dict

REFERENCE = Path(__file__).parents[1] / "reference"
FORMS = ("weights.h5", "whole_model.h5")


def network(classes=5):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, bias=False),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.ReLU6(),
        nn.Conv2d(4, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_network_computes_what_kerass_own_does(form):
    pytest.importorskip("h5py")
    loaded = network().eval()
    fitting.load(loaded, REFERENCE / form)
    record = json.loads((REFERENCE / "keras_file.json").read_text())
    with torch.no_grad():
        logits = loaded(torch.tensor(record["images"]))
    np.testing.assert_allclose(logits.numpy(), record["logits"], rtol=1e-5, atol=1e-5)


def test_another_number_of_classes_keeps_the_classifier():
    pytest.importorskip("h5py")
    loaded = network(classes=3)
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    fitting.load(loaded, REFERENCE / FORMS[0])
    same = {name for name, value in loaded.state_dict().items() if torch.equal(value, before[name])}
    assert same == {"8.weight", "8.bias", "1.num_batches_tracked", "3.num_batches_tracked"}


def layers():
    """What `keras_file.read` gives for the network."""
    norm = {name: np.ones(4, np.float32) for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    kernels = [np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for shape in ((3, 3, 3, 4), (3, 3, 4, 1))]
    return [
        Layer("stem", {"kernel": kernels[0]}),
        Layer("stem_norm", norm),
        Layer("depthwise", {"depthwise_kernel": kernels[1]}),
        Layer("depthwise_norm", norm),
        Layer("pointwise", {"kernel": np.zeros((1, 1, 4, 6)), "bias": np.zeros(6)}),
        Layer("predictions", {"kernel": np.zeros((6, 5)), "bias": np.zeros(5)}),
    ]


def test_kernels_are_turned_into_torchs_order_of_axes():
    found = state_dict(layers(), network())
    dense, depthwise = (layers()[index].arrays for index in (0, 2))
    assert found["0.weight"][3, 1, 0, 2] == dense["kernel"][0, 2, 1, 3]
    assert found["2.weight"][3, 0, 0, 2] == depthwise["depthwise_kernel"][0, 2, 3, 0]
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: tuple(value.shape) for name, value in network().state_dict().items()
    }


def test_a_file_without_a_classifier_or_with_more_layers():
    headless = state_dict(layers()[:-1], network())
    assert set(network().state_dict()) - set(headless) == {"8.weight", "8.bias"}
    more = state_dict([*layers(), Layer("more", {"kernel": np.zeros((5, 5))})], network())
    assert set(more) - set(network().state_dict()) == {"more.weight"}


def damaged(change):
    """The bytes of the file after a change to it."""
    h5py = pytest.importorskip("h5py")
    file = io.BytesIO((REFERENCE / "weights.h5").read_bytes())
    with h5py.File(file, "r+") as opened:
        change(opened, h5py)
    return file.getvalue()


def elsewhere(file, h5py):
    del file["stem/sequential/stem/kernel"]
    file["stem/sequential/stem/kernel"] = h5py.ExternalLink("/etc/other.h5", "/kernel")


def compressed(file, h5py):
    del file["stem/sequential/stem/kernel"]
    file.create_dataset("stem/sequential/stem/kernel", data=np.zeros((3, 3, 3, 4)), compression="gzip")


def unwritten(file, h5py):
    """A hole as large as one likes, which takes no space in the file."""
    del file["stem/sequential/stem/kernel"]
    file.create_dataset("stem/sequential/stem/kernel", shape=(2**40,), dtype="f4")


def whole_numbers(file, h5py):
    del file["stem/sequential/stem/kernel"]
    file.create_dataset("stem/sequential/stem/kernel", data=np.zeros((3, 3, 3, 4), np.int64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (elsewhere, "lacks 'sequential/stem/kernel', which it names"),
        (compressed, "holds something other than plain numbers at 'sequential/stem/kernel'"),
        (whole_numbers, "holds something other than plain numbers at 'sequential/stem/kernel'"),
        (unwritten, "has more numbers than bytes"),
        (lambda file, _: file.__delitem__("stem"), "lacks 'stem', which it names"),
        (
            lambda file, _: file.attrs.__delitem__("layer_names"),
            'names no layers: Keras 3\'s ".weights.h5" is another format; save the model as ".h5"',
        ),
    ],
)
def test_a_file_that_is_not_kerass_is_one_line(tmp_path, change, message):
    path = tmp_path / "w.h5"
    path.write_bytes(damaged(change))
    with pytest.raises(WeightsError) as caught:
        fitting.load(network(), path)
    assert str(caught.value) == f"{path}: {message}"


def test_no_hdf5_file(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(WeightsError, match="damaged, or not an HDF5 file"):
        fitting.load(network(), tmp_path / "w.h5")


def test_without_h5py_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "w.h5").touch()
    with pytest.raises(WeightsError, match=r"w\.h5: Keras's weights need h5py: pip install 'fairtrial\[keras\]'$"):
        fitting.load(network(), tmp_path / "w.h5")
