"""Choose subsets of images: class-balanced, by a seed, and the same on every machine.

Every draw orders all candidates and takes the first ones. So a smaller subset is part of every larger one of the same
seed: 10,000 images are the 5,000 and 5,000 more, not 10,000 others.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairtrial.spec.sections import DataSettings

Indices = NDArray[np.int64]
Labels = NDArray[Any]

# Each draw has its own random stream, so that its count does not affect the other draws.
_TRAIN, _TEST, _VALIDATION = 1, 2, 3


class Choice(NamedTuple):
    """The images of each part: ascending positions in the whole set; None for all, or for no validation set."""

    train: Indices | None
    test: Indices | None
    validation: Indices | None


def choose(settings: DataSettings, train_labels: Labels, test_labels: Labels) -> Choice:
    """Choose the parts that a study's data section asks for; its counts must fit the labels.

    The validation images are drawn first, from the training set: they don't depend on ``train``, and no training image
    is among them.
    """
    rest = np.arange(len(train_labels))
    train = validation = test = None
    if settings.validation:
        validation = _first(settings.validation, rest, train_labels, _VALIDATION, settings.subset_seed)
        train = rest = np.setdiff1d(rest, validation, assume_unique=True)
    if settings.train is not None:
        train = _first(settings.train, rest, train_labels, _TRAIN, settings.subset_seed)
    if settings.test is not None:
        test = _first(settings.test, np.arange(len(test_labels)), test_labels, _TEST, settings.subset_seed)
    return Choice(train, test, validation)


def balanced_order(candidates: Indices, labels: Labels, stream: int, seed: int) -> Indices:
    """Order candidates so that every beginning of the order is as class-balanced as possible.

    The classes take turns, in an order drawn once; within a class the images come in random order. Counts per
    class differ by at most one until a class runs out; then the others take its turns.

    The random keys are raw output of PCG64 and not draws of `numpy.random.Generator`: NumPy promises that the
    former never change between its versions, but may change the latter (NEP 19).

    Candidates are ascending positions in the whole set, whose classes are ``labels``.
    """
    bits = np.random.PCG64(np.random.SeedSequence([stream, seed]))
    turn = np.argsort(bits.random_raw(int(labels.max()) + 1), kind="stable")
    # One key per image of the whole set, so that an image has the same key among any candidates.
    keys = bits.random_raw(len(labels))[candidates]
    classes = labels[candidates]
    by_class = np.lexsort((keys, classes))
    counts = np.bincount(classes)
    rank_in_class = np.arange(len(candidates)) - np.repeat(np.cumsum(counts) - counts, counts)
    order: Indices = candidates[by_class[np.lexsort((turn[classes[by_class]], rank_in_class))]]
    return order


def random_keys(number: int, stream: int, seed: int) -> NDArray[np.uint64]:
    """Draw a random key for each of so many images, as `balanced_order` does."""
    keys: NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence([stream, seed])).random_raw(number)
    return keys


def _first(count: int, candidates: Indices, labels: Labels, stream: int, seed: int) -> Indices:
    return np.sort(balanced_order(candidates, labels, stream, seed)[:count])
