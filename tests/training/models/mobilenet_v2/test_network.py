"""The model against torchvision's and Keras's own, by vectors recorded with the scripts in reference/."""

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fairtrial.training.models.mobilenet_v2 import MobileNetV2
from fairtrial.training.models.mobilenet_v2.network import Network

REFERENCE = Path(__file__).parents[2] / "reference"
FLAVORS = ("torchvision", "keras")


def _formula() -> ModuleType:
    found = importlib.util.spec_from_file_location("reference_formula", REFERENCE / "formula.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


formula = _formula()
RECORDS: dict[str, dict[str, Any]] = {
    flavor: json.loads((REFERENCE / f"{flavor}.json").read_text(encoding="utf-8")) for flavor in FLAVORS
}
CASES = [
    pytest.param(flavor, case, id=f"{flavor}-{'x'.join(map(str, case['size']))}-{case['width']}-{case['stem']}")
    for flavor, record in RECORDS.items()
    for case in record["cases"]
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def small(**settings: Any) -> MobileNetV2:
    return MobileNetV2(**({"width": 0.1} | settings))


def build(spec: MobileNetV2, *, seed: int = 0, classes: int = 10, image_size: int = 32, channels: int = 3) -> nn.Module:
    return spec.build(classes=classes, image_size=image_size, seed=seed, channels=channels)


def with_formula_weights(flavor: str, case: dict[str, Any]) -> nn.Module:
    network = build(MobileNetV2(flavor=flavor, width=case["width"], stem=case["stem"]))
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict({name: torch.as_tensor(formula.tensor(name, shape)) for name, shape in shapes.items()})
    return network


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def run(network: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """What the scripts record of one pass, in their form."""
    stages: list[list[float]] = []
    hooks = [
        stage.register_forward_hook(lambda _, __, output: stages.append(formula.summary(output.double().numpy())))
        for stage in network.features
    ]
    with torch.no_grad():
        logits = network(images)
    for hook in hooks:
        hook.remove()
    return {"logits": logits.double().numpy().ravel(), "stages": stages}


# Against the libraries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flavor", "case"), CASES)
def test_outputs_and_running_statistics_are_the_librarys(flavor: str, case: dict[str, Any]) -> None:
    network = with_formula_weights(flavor, case).double()
    images = torch.from_numpy(formula.images(*case["size"]))
    for mode in ("inference", "training"):
        found = run(network.train(mode == "training"), images)
        np.testing.assert_allclose(found["stages"], case[mode]["stages"], rtol=1e-9, atol=1e-11, err_msg=mode)
        np.testing.assert_allclose(found["logits"], case[mode]["logits"], rtol=1e-9, atol=1e-11, err_msg=mode)
    state, running = network.state_dict(), case["training"]["running"]
    assert {name for name in state if ".running_" in name} == set(running)
    for name, recorded in running.items():
        np.testing.assert_allclose(formula.summary(state[name].numpy()), recorded, rtol=1e-9, atol=1e-11, err_msg=name)
    assert {int(value) for name, value in state.items() if name.endswith("num_batches_tracked")} == {1}


@pytest.mark.parametrize("flavor", FLAVORS)
def test_float32_agrees_to_rounding(flavor: str) -> None:
    case = RECORDS[flavor]["cases"][0]
    network = with_formula_weights(flavor, case).eval()
    found = run(network, torch.from_numpy(formula.images(*case["size"])).float())
    expected = np.asarray(case["inference"]["logits"])
    # Sums of fifty layers round differently on each processor; what remains near 0 has the error of its large parts.
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_names_and_shapes_are_torchvisions() -> None:
    state = build(MobileNetV2()).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == RECORDS["torchvision"]["shapes"]
    assert list(state) == list(RECORDS["torchvision"]["shapes"])


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("stem", ["stock", "cifar"])
def test_flavor_and_stem_change_no_name_and_no_shape(flavor: str, stem: str) -> None:
    state = build(MobileNetV2(flavor=flavor, stem=stem)).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == RECORDS["torchvision"]["shapes"]


@pytest.mark.parametrize("flavor", FLAVORS)
def test_parameter_counts(flavor: str) -> None:
    ten = parameter_count(build(MobileNetV2(flavor=flavor)))
    assert ten == 2_236_682 == RECORDS[flavor]["parameters"]["10"]
    assert parameter_count(build(MobileNetV2(flavor=flavor), classes=1000)) == 3_504_872


@pytest.mark.parametrize(
    ("flavor", "width"), [(flavor, width) for flavor in FLAVORS for width in RECORDS[flavor]["channels"]]
)
def test_widths_are_the_librarys(flavor: str, width: str) -> None:
    with torch.device("meta"):  # the shapes alone
        network = Network(MobileNetV2(flavor=flavor, width=float(width)), classes=10, channels=3)
    channels = [module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert channels == RECORDS[flavor]["channels"][width]


def test_the_libraries_round_one_recorded_width_differently() -> None:
    assert RECORDS["torchvision"]["channels"]["0.742"] != RECORDS["keras"]["channels"]["0.742"]


# Initial weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavor", FLAVORS)
def test_initial_weights_are_spread_as_the_librarys(flavor: str) -> None:
    """Two samples of n draws from one distribution: compared within six standard errors of their difference."""
    state = build(MobileNetV2(flavor=flavor)).state_dict()
    kurtosis = {"torchvision": 3.0, "keras": 1.8}[flavor]
    for name, (mean, deviation, largest) in RECORDS[flavor]["initial"].items():
        ours = state[name].double()
        if deviation == 0:
            assert (ours == mean).all(), name
            continue
        count = ours.numel()
        assert ours.mean().item() == pytest.approx(mean, abs=6 * deviation * math.sqrt(2 / count)), name
        error = 6 * math.sqrt(2 * (kurtosis - 1) / (4 * count))
        assert ours.std(correction=0).item() == pytest.approx(deviation, rel=error), name
        if flavor == "keras":
            # The largest of n uniform magnitudes falls short of the limit by more than 20 / n once in e^20 times.
            assert ours.abs().max().item() == pytest.approx(largest, rel=20 / count), name


def test_keras_limits() -> None:
    """Glorot's limits with Keras's own fans, of a depthwise kernel (3, 3, C, 1) too: a bound that no weight exceeds."""
    network = build(MobileNetV2(flavor="keras"))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            outputs, inputs, *_ = module.weight.shape
            depthwise = module.groups > 1
            fans = 9 * outputs + 9 if depthwise else (inputs + outputs) * module.kernel_size[0] ** 2
            limit = math.sqrt(6 / fans)
            assert 0.9 * limit < module.weight.abs().max().item() <= limit


@pytest.mark.parametrize("flavor", FLAVORS)
def test_weights_come_from_the_seed(flavor: str) -> None:
    first, again = (build(small(flavor=flavor), seed=3).state_dict() for _ in range(2))
    other = build(small(flavor=flavor), seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = {name for name, value in first.items() if value.dim() > 1}
    assert {name for name in first if not torch.equal(first[name], other[name])} == drawn


def test_weights_ignore_and_keep_the_global_state() -> None:
    torch.manual_seed(1)
    first = build(small()).state_dict()
    before = torch.get_rng_state()
    second = build(small()).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_ignore_the_default_dtype_and_device() -> None:
    expected = build(small()).state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = build(small()).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(found[name].dtype == expected[name].dtype for name in expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_stems_and_numbers_of_classes_share_weights() -> None:
    stock, cifar = build(small()).state_dict(), build(small(stem="cifar")).state_dict()
    hundred = build(small(), classes=100).state_dict()
    assert all(torch.equal(stock[name], cifar[name]) for name in stock)
    assert {name for name in stock if not torch.equal(stock[name], hundred[name])} == {
        "classifier.1.weight",
        "classifier.1.bias",
    }


# The network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize(("stem", "stride"), [("stock", 32), ("cifar", 8)])
def test_total_stride(flavor: str, stem: str, stride: int) -> None:
    network = build(small(flavor=flavor, stem=stem)).eval()
    for height, width in ((1, 2), (7, 8), (9, 16), (17, 31), (32, 33), (64, 65)):
        with torch.no_grad():
            features = network.features(torch.zeros(1, 3, height, width))
        assert features.shape[2:] == (math.ceil(height / stride), math.ceil(width / stride))


def test_sizes_of_the_feature_maps_at_32() -> None:
    sizes = {}
    for stem in ("stock", "cifar"):
        features, sizes[stem] = torch.zeros(1, 3, 32, 32), []
        for stage in build(small(stem=stem)).eval().features:
            features = stage(features)
            sizes[stem].append(features.shape[-1])
    assert sizes["stock"] == [16] * 2 + [8] * 2 + [4] * 3 + [2] * 7 + [1] * 5
    assert sizes["cifar"] == [32] * 4 + [16] * 3 + [8] * 7 + [4] * 5


@pytest.mark.parametrize("flavor", FLAVORS)
def test_form(flavor: str) -> None:
    network = build(small(flavor=flavor, dropout=0.3))
    assert network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
    assert network.classifier[0].p == 0.3
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
    features = network.features[0](torch.zeros(2, 3, 8, 8))
    assert features.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("stem", ["stock", "cifar"])
def test_every_parameter_gets_a_gradient(flavor: str, stem: str) -> None:
    network = build(small(flavor=flavor, stem=stem))
    images = torch.from_numpy(formula.images(32, 32)).float()
    # Two passes before one backward: autograd must keep what the first pass gave it.
    loss = nn.functional.cross_entropy(network(images), torch.arange(4)) + network(images.flip(3)).square().mean()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_gray_images() -> None:
    network = build(small(), channels=1)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
