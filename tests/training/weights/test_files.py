"""Files of weights: what is loaded, and the one line for each thing that can be wrong with one."""

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fairtrial.errors import WeightsError
from fairtrial.training.models.mobilenet_v2 import MobileNetV2
from fairtrial.training.weights import files, fitting

State = dict[str, torch.Tensor]
SUFFIXES = (".safetensors", ".pt", ".pth")
CLASSIFIER = ("classifier.1.weight", "classifier.1.bias")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def build(path: Path | None = None, *, sha256: str | None = None, classes: int = 10, seed: int = 0) -> nn.Module:
    spec = MobileNetV2(width=0.1, weights=None if path is None else str(path), weights_sha256=sha256)
    return spec.build(classes=classes, image_size=32, channels=3, seed=seed)


@functools.cache
def _initial(classes: int) -> State:
    return build(classes=classes, seed=9).state_dict()


def trained(classes: int = 10) -> State:
    """A state_dict that differs from every initial one in every tensor, running statistics and counts included."""
    return {name: value + 1 for name, value in _initial(classes).items()}


def save(state: State, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def read(path: Path) -> State:
    return files.decode(files.read(path), path, nn.Module())


def refused(path: Path, message: str, **settings: object) -> None:
    """The file is refused with this one line, which starts with its path."""
    with pytest.raises(WeightsError) as caught:
        build(path, **settings)  # type: ignore[arg-type]
    assert str(caught.value) == f"{path}: {message}"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    state = trained()
    path = save(state, tmp_path / f"weights{suffix}")
    network = build(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert network.training
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convolutions)


def test_torchs_older_file_format(tmp_path: Path) -> None:
    """torchvision's ImageNet weights for this network are in it."""
    torch.save(trained(), path := tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(build(path).state_dict()["classifier.1.bias"], trained()["classifier.1.bias"])


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = {name: value.half() if value.is_floating_point() else value for name, value in trained().items()}
    loaded = build(save(state, tmp_path / "half.safetensors")).state_dict()
    assert loaded["features.0.0.weight"].dtype == torch.float32
    assert torch.equal(loaded["features.0.0.weight"], state["features.0.0.weight"].float())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_number_of_classes_keeps_the_seeded_classifier(tmp_path: Path, suffix: str) -> None:
    state = trained(classes=1000)
    loaded = build(save(state, tmp_path / f"imagenet{suffix}"), seed=5).state_dict()
    seeded = build(seed=5).state_dict()
    for name, value in loaded.items():
        expected = seeded if name in CLASSIFIER else state
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_a_classifier_keeps_the_seeded_one(tmp_path: Path, suffix: str) -> None:
    state = {name: value for name, value in trained().items() if name not in CLASSIFIER}
    loaded = build(save(state, tmp_path / f"headless{suffix}"), seed=5).state_dict()
    seeded = build(seed=5).state_dict()
    for name, value in loaded.items():
        expected = seeded if name in CLASSIFIER else state
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("features.1.conv.1.weight"),
            "1 missing, the first is features.1.conv.1.weight",
        ),
        (
            lambda state: state.update({"head\n": torch.zeros(1)}),
            "1 unexpected, the first is 'head\\n'",
        ),
        (
            lambda state: state.update({"features.0.0.weight": torch.zeros(8, 1, 3, 3)}),
            "1 of another shape, the first is features.0.0.weight: (8, 1, 3, 3) in the file, (8, 3, 3, 3) in the model",
        ),
        (
            lambda state: state.update({"features.0.1.bias": torch.zeros(8, dtype=torch.int64)}),
            "1 of another type, the first is features.0.1.bias: torch.int64 in the file",
        ),
        # A classifier for other classes is passed over only if it is whole and fits otherwise.
        (
            lambda state: state.update({"classifier.1.bias": torch.zeros(7)}),
            "1 of another shape, the first is classifier.1.bias: (7,) in the file, (10,) in the model",
        ),
        (
            lambda state: state.update({"classifier.1.weight": torch.zeros(7, 9), "classifier.1.bias": torch.zeros(7)}),
            "2 of another shape, the first is classifier.1.weight: (7, 9) in the file, (10, 1280) in the model",
        ),
        (
            lambda state: state.pop("classifier.1.weight"),
            "1 missing, the first is classifier.1.weight",
        ),
        (
            lambda state: (state.pop("features.0.0.weight"), state.update({"conv": torch.zeros(1)})),
            "1 missing, the first is features.0.0.weight; 1 unexpected, the first is 'conv'",
        ),
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, change: Callable[[State], object], message: str) -> None:
    state = trained()
    change(state)
    refused(save(state, tmp_path / "weights.safetensors"), f"does not fit the model: {message}")


def test_a_refused_file_changes_nothing(tmp_path: Path) -> None:
    network, state = build(), trained()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state["features.0.0.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError):
        fitting.load(network, save(state, tmp_path / "weights.pt"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_wrong_digest(tmp_path: Path) -> None:
    path = save(trained(), tmp_path / "weights.pt")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    stated = "0" * 64
    refused(path, f"the file's SHA-256 is {found}, not {stated} as weights_sha256 states", sha256=stated)


def test_no_such_file(tmp_path: Path) -> None:
    refused(tmp_path / "weights.pt", "can't read the weights: No such file or directory")
    (tmp_path / "folder.pt").mkdir()
    refused(tmp_path / "folder.pt", "can't read the weights: Is a directory")


def test_unknown_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    refused(tmp_path / "weights.bin", "the name of a weights file must end in one of .safetensors, .pt, .pth, .h5")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([torch.zeros(1)], "holds a list, not a state_dict (names to tensors)"),
        ({"epoch": 3}, "not a state_dict (names to tensors): 'epoch' is a int"),
        ({3: torch.zeros(1)}, "not a state_dict (names to tensors): 3 is a Tensor"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "a is not a dense tensor"),
        ({"a": torch.empty(2, device="meta")}, "a is not a dense tensor"),
    ],
)
def test_not_a_state_dict(tmp_path: Path, held: object, message: str) -> None:
    torch.save(held, path := tmp_path / "weights.pt")
    refused(path, message)


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, zipped: bool) -> None:
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    torch.save({"a": Payload(trace)}, path, _use_new_zipfile_serialization=zipped)
    refused(path, "damaged, not a file of torch's, or one that holds more than tensors and plain containers")
    assert not trace.exists()


@pytest.fixture(scope="module", params=[*SUFFIXES, "older.pth"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """The bytes of a small good file in each format, and a path of the same format to write to."""
    path = tmp_path_factory.mktemp("weights") / f"file{request.param}"
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
    if request.param == "older.pth":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        save(state, path)
    return path.read_bytes(), path


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_truncated_file(good: tuple[bytes, Path], data: st.DataObject) -> None:
    content, path = good
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(WeightsError, match=re.escape(f"{path}: damaged")):
        read(path)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(good: tuple[bytes, Path], data: st.DataObject) -> None:
    """Not every changed byte can be seen without a digest; but nothing other than a WeightsError may come of it."""
    content, path = good
    place = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :])
    with contextlib.suppress(WeightsError):
        assert all(isinstance(value, torch.Tensor) for value in read(path).values())


@settings(deadline=None, max_examples=30)
@given(content=st.binary(max_size=200))
def test_any_bytes(good: tuple[bytes, Path], content: bytes) -> None:
    path = good[1]
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(f"{path}: ")):
        read(path)
