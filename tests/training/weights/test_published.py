"""Published weights by name: where they come from, what is checked, and what is said where they can't be had."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairtrial.errors import StudyError, WeightsError
from fairtrial.loading import load
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import machine, prepare
from fairtrial.training.datasets.download import UnreachableError, WebArchive
from fairtrial.training.models.mobilenet_v2 import MobileNetV2
from fairtrial.training.weights import published
from fairtrial.training.weights.published import MOBILENET_V2

TORCHVISION, KERAS = "torchvision:IMAGENET1K_V1", "keras:imagenet"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def offline(monkeypatch):
    def fail(self, folder, progress):
        raise UnreachableError("download.pytorch.org: Name or service not known")

    monkeypatch.setattr(WebArchive, "download", fail)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A file of torch's for the network, as torchvision's is: with 1000 classes, in the older format."""
    network = MobileNetV2().build(classes=1000, image_size=32, channels=3, seed=9)
    path = tmp_path_factory.mktemp("torchvision") / "weights.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


@pytest.fixture
def known(monkeypatch, content):
    """As if this were torchvision's file."""
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(MOBILENET_V2, TORCHVISION, replace(MOBILENET_V2[TORCHVISION], sha256=digest[:8]))
    return content


def build(**settings):
    return MobileNetV2(**settings).build(classes=10, image_size=32, channels=3, seed=0)


def study(**model):
    data = {"name": "digits", "train": 128, "test": 100}
    return Study(name="s", reference="a", arms={"a": {}}, data=data, model=model)


def test_the_digests_are_those_in_torchvisions_file_names():
    for one in MOBILENET_V2.values():
        if one.library == "torchvision":
            assert re.search(r"-([0-9a-f]{8})\.pth$", one.url)[1] == one.sha256


def test_it_is_fetched_once_and_checked(cache, known, monkeypatch):
    urls = []

    def download(self, folder, progress):
        urls.append((self.url, self.bytes))
        (folder / "file").write_bytes(known)
        return folder / "file"

    monkeypatch.setattr(WebArchive, "download", download)
    networks = [build(weights=TORCHVISION) for _ in range(2)]
    assert urls == [("https://download.pytorch.org/models/mobilenet_v2-b0353104.pth", MOBILENET_V2[TORCHVISION].size)]
    assert (cache / "mobilenet_v2-b0353104.pth").read_bytes() == known
    expected = MobileNetV2().build(classes=1000, image_size=32, channels=3, seed=9).state_dict()
    seeded = build().state_dict()
    for name, value in networks[1].state_dict().items():
        assert torch.equal(value, (seeded if name.startswith("classifier") else expected)[name]), name


def test_another_file_is_not_kept(cache, content, monkeypatch):
    monkeypatch.setattr(
        WebArchive, "download", lambda self, folder, _: Path(folder / "f").write_bytes(content) and folder / "f"
    )
    with pytest.raises(WeightsError) as caught:
        build(weights=TORCHVISION)
    path = cache / "mobilenet_v2-b0353104.pth"
    found = hashlib.sha256(content).hexdigest()
    assert str(caught.value) == (
        f"{path}: not the file of torchvision:IMAGENET1K_V1: its SHA-256 is {found}, which must begin with b0353104; "
        "remove it to fetch it again"
    )
    assert not path.exists()


def test_where_the_address_cant_be_reached_a_line_says_where_to_put_the_file(cache, offline, known):
    with pytest.raises(WeightsError) as caught:
        prepare.prepare(study(weights=TORCHVISION))
    path = cache / "mobilenet_v2-b0353104.pth"
    assert str(caught.value) == (
        "torchvision:IMAGENET1K_V1 can't be fetched from https://download.pytorch.org/models/mobilenet_v2-b0353104.pth "
        "(download.pytorch.org: Name or service not known); download it by other means and put it at "
        f"{path}, or name another file in model.weights"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(known)
    assert prepare.prepare(study(weights=TORCHVISION))


def test_kerass_file_is_known_by_its_size_alone(cache, offline):
    path = cache / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"short")
    with pytest.raises(WeightsError, match="it has 5 bytes instead of 14,536,120; remove it to fetch it again"):
        build(weights=KERAS, flavor="keras")


def test_the_study_needs_no_file_to_be_read_and_its_hash_is_the_same_everywhere(cache, offline):
    shipped = load("paper-pretrained")
    assert shipped.settings.model.weights == KERAS
    assert shipped.settings.model.weights_sha256 is None
    assert {arm.settings.model.label for arm in shipped.arms} == {"mobilenet_v2 with stock stem, from keras:imagenet"}
    assert load("paper", ["model.weights=torchvision:IMAGENET1K_V1"]).hash != load("paper").hash


def test_the_digest_of_the_file_is_recorded_with_every_trial(cache, known):
    from fairtrial.scheduler import plan

    MOBILENET_V2[TORCHVISION].path.parent.mkdir(parents=True)
    MOBILENET_V2[TORCHVISION].path.write_bytes(known)
    trial = plan(study(weights=TORCHVISION))[0]
    assert machine.describe_machine(trial).weights == hashlib.sha256(known).hexdigest()
    assert machine.describe_machine(plan(study())[0]).weights == ""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"weights": "torchvision:IMAGENET1K_V3"}, "did you mean `torchvision:IMAGENET1K_V2`?"),
        ({"weights": "keras:imagenet"}, 'are for flavor = "keras": padding and batch norm differ'),
        (
            {"weights": "torchvision:IMAGENET1K_V1", "flavor": "keras"},
            'are for flavor = "torchvision": padding and batch norm differ',
        ),
        ({"weights": "torchvision:IMAGENET1K_V1", "width": 0.5}, "are for width = 1; name a file instead"),
        ({"weights": "mine.h5"}, 'is of Keras\'s, for flavor = "keras": padding and batch norm differ'),
    ],
)
def test_names_that_do_not_fit_are_one_line(model, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.h5").touch()
    with pytest.raises(StudyError) as caught:
        study(**model)
    assert str(caught.value) == f'model: weights = "{model["weights"]}": {message}'


@pytest.mark.parametrize(
    ("model", "scaling", "expected"),
    [
        ({}, "unit", [0.0, 1.0]),
        ({"scaling": "symmetric"}, "symmetric", [-1.0, 1.0]),
        ({"weights": KERAS, "flavor": "keras"}, "symmetric", [-1.0, 1.0]),
        ({"weights": KERAS, "flavor": "keras", "scaling": "unit"}, "unit", [0.0, 1.0]),
        ({"weights": TORCHVISION}, "imagenet", [-0.485 / 0.229, (1 - 0.485) / 0.229]),
    ],
)
def test_pixels_are_scaled_as_the_weights_expect_unless_stated(model, scaling, expected):
    from fairtrial.training.weights.scaling import Scaling

    settings = MobileNetV2(**model)
    assert settings.pixels == scaling
    images = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 1, 1)
    assert Scaling(settings.pixels, channels=3)(images)[:, 0, 0, 0].tolist() == pytest.approx(expected)


def test_scaling_reaches_the_network():
    plain, scaled = build(), build(scaling="symmetric")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert plain.state_dict().keys() == scaled.state_dict().keys()
    torch.testing.assert_close(scaled.eval()(images), plain.eval()(images * 2 - 1))
    with pytest.raises(StudyError, match="is for images of 3 channels; these have 1"):
        MobileNetV2(scaling="imagenet").build(classes=10, image_size=32, channels=1, seed=0)


def test_a_path_may_look_like_a_name():
    assert published.is_name("keras:imagenet")
    assert not published.is_name("./keras:imagenet.h5")


def test_a_name_is_not_hashed_as_a_file_of_the_same_content():
    """Pixels are scaled as published weights were trained; those of a file are not."""
    weights = {"name": TORCHVISION, "file": "copy.pth"}
    arms = {arm: {"model": {"weights": one, "weights_sha256": "b0353104" + "0" * 56}} for arm, one in weights.items()}
    study = Study(name="s", reference="name", arms=arms)
    name, file = (trial.hash for trial in plan(study) if trial.seed == 0)
    assert name != file
