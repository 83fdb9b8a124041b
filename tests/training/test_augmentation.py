"""Augmentation of whole batches, against loops over single images."""

import numpy as np
import pytest
import torch

from fairtrial.errors import Stopped, StudyError
from fairtrial.spec import Settings
from fairtrial.training import augmentation, datasets, loop
from fairtrial.training.augmentation import augment
from fairtrial.training.datasets.digits import Digits
from fairtrial.trial import Trial, TrialContext


@pytest.fixture
def images():
    return torch.rand(64, 3, 8, 8, generator=torch.manual_seed(0)).contiguous(memory_format=torch.channels_last)


LABELS = torch.arange(64) % 4


def augmented(images, *names, labels=LABELS, **place):
    settings = Digits(augment=names, crop_padding=2, cutout_size=4)
    return augment(images, labels, settings, **{"classes": 4, "seed": 1, "epoch": 1, "batch": 0, **place})


def shifts(image, padding):
    """All images that a crop can give."""
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    size = image.shape[1]
    return [padded[:, y : y + size, x : x + size] for y in range(2 * padding + 1) for x in range(2 * padding + 1)]


def test_crop_moves_each_image_by_its_own_offset(images):
    moved, labels = augmented(images, "crop")
    assert torch.equal(labels, LABELS)
    assert moved.is_contiguous(memory_format=torch.channels_last)
    found = set()
    for before, after in zip(images.numpy(), moved.numpy(), strict=True):
        (which,) = [index for index, one in enumerate(shifts(before, 2)) if np.array_equal(one, after)]
        found.add(which)
    assert len(found) > 15  # of 25


def test_flip_mirrors_about_half(images):
    flipped, _ = augmented(images, "flip")
    same = [torch.equal(after, before) for before, after in zip(images, flipped, strict=True)]
    mirrored = [torch.equal(after, before.flip(2)) for before, after in zip(images, flipped, strict=True)]
    assert all(one != other for one, other in zip(same, mirrored, strict=True))
    assert 20 < sum(mirrored) < 44
    assert flipped.is_contiguous(memory_format=torch.channels_last)


def test_cutout_blanks_one_square_within_the_image(images):
    cut, _ = augmented(images + 1, "cutout")
    sizes = set()
    for image in cut:
        rows, columns = (image[0] == 0).any(1).nonzero(), (image[0] == 0).any(0).nonzero()
        height, width = (int(one.max() - one.min()) + 1 for one in (rows, columns))
        assert int((image == 0).sum()) == 3 * height * width
        sizes.add((height, width))
    assert (4, 4) in sizes
    assert all(2 <= side <= 4 for size in sizes for side in size)


def test_mixup_mixes_images_and_labels_alike(images):
    """Each image's color says its class, so that the mixed one says the shares."""
    colors = torch.eye(4)[LABELS][:, :, None, None].expand(-1, -1, 8, 8).contiguous()
    mixed, shares = augmented(colors, "mixup")
    assert torch.allclose(mixed.mean((2, 3)), shares)
    assert torch.allclose(shares.sum(1), torch.ones(64))
    assert len(shares.unique()) <= 4  # 0, one share, the other and 1: one for the batch
    numbers = torch.rand(64, 2)
    rows, targets = augmented(numbers, "mixup", labels=numbers)
    assert torch.equal(rows, targets)


def test_what_arms_share_and_what_differs(images):
    again = augmented(images, "crop", "flip", "cutout")[0]
    assert torch.equal(augmented(images, "crop", "flip", "cutout")[0], again)
    for change in ({"seed": 2}, {"epoch": 2}, {"batch": 1}):
        assert not torch.equal(augmented(images, "crop", "flip", "cutout", **change)[0], again)
    cropped = augmented(images, "crop")[0]
    both = augmented(images, "crop", "flip")[0]
    assert all(
        torch.equal(one, other) or torch.equal(one.flip(2), other) for one, other in zip(cropped, both, strict=True)
    )


def settings(**data):
    table = {
        "data": {"name": "digits", "train": 64, "test": 20, **data},
        "model": {"name": "small_cnn", "width": 4},
        "training": {"epochs": 2, "batch_size": 16, "checkpoint_seconds": 0},
        "optimizer": {"name": "sgd", "lr": 0.1},
    }
    return Settings.model_validate(table)


class Interrupted(TrialContext):
    """Saves after each step, and stops after the third."""

    steps, state, stops = 0, None, True

    @property
    def checkpoint_due(self):
        self.steps += 1
        return True

    def save(self, state):
        self.state = state
        if self.stops and self.steps == 3:
            raise Stopped

    def load(self):
        return self.state


def test_a_resumed_trial_gives_the_same_bits():
    trial = Trial("a", 0, settings(augment=["crop", "flip", "cutout", "mixup"]))
    expected = [record["train_loss"] for record in loop.train(TrialContext(trial))]
    stopped = Interrupted(trial)
    with pytest.raises(Stopped):
        list(loop.train(stopped))
    resumed = Interrupted(trial)
    resumed.state, resumed.stops = stopped.state, False
    assert [record["train_loss"] for record in loop.train(resumed)] == expected
    plain = [record["train_loss"] for record in loop.train(TrialContext(Trial("a", 0, settings())))]
    assert plain != expected
    assert len(expected) == 2


def test_arms_share_the_data_in_memory():
    plain, cropped = settings(), settings(augment="crop")
    assert loop.load_once(plain.data) is loop.load_once(cropped.data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"augment": "crop", "crop_padding": 33}, "data.crop_padding = 33: the images have 32 pixels a side"),
        ({"augment": "cutout", "cutout_size": 33}, "data.cutout_size = 33: the images have 32 pixels a side"),
    ],
)
def test_what_does_not_fit_the_images(data, message):
    chosen = settings(**data).data
    with pytest.raises(StudyError, match=f"^{message}$"):
        augmentation.check(chosen, datasets.load(chosen))
