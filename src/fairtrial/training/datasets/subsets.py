"""Choose images by count: balanced over the classes, by a seed, and the same on every machine for ever.

Every draw is a full order of the candidates of which the first ``count`` are taken. So a smaller subset lies
inside every larger one of the same seed, and 5,000 images compared with 10,000 means 5,000 more and not
10,000 others.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairtrial.spec.sections import DataSettings
from fairtrial.training.datasets.layout import Pixels

Indices = NDArray[np.int64]

# Each draw has a random stream of its own, so that no count changes what another draw takes.
_TRAIN, _TEST, _VALIDATION = 1, 2, 3


class Choice(NamedTuple):
    """Which images each part takes: ascending positions in the whole set's array, or None for all of them."""

    train: Indices | None
    test: Indices | None
    validation: Indices | None


def choose(settings: DataSettings, train_labels: Pixels, test_labels: Pixels) -> Choice:
    """The parts that a study's data section asks for.

    The validation images are drawn first, from the training set, by a stream of their own: they don't depend
    on ``train``, and no training image is among them.

    Args:
        settings: the counts and the seed. The counts must fit the labels, as `DataSettings` sees to.
        train_labels: classes of the whole training set.
        test_labels: classes of the whole test set.

    Returns:
        The positions; ``validation`` is None where none is asked for.
    """
    everything = np.arange(len(train_labels))
    validation = None
    left = everything
    if settings.validation:
        validation = _first(settings.validation, everything, train_labels, _VALIDATION, settings.subset_seed)
        left = np.setdiff1d(everything, validation, assume_unique=True)
    train = left if settings.validation else None
    if settings.train is not None:
        train = _first(settings.train, left, train_labels, _TRAIN, settings.subset_seed)
    test = None
    if settings.test is not None:
        test = _first(settings.test, np.arange(len(test_labels)), test_labels, _TEST, settings.subset_seed)
    return Choice(train, test, validation)


def balanced_order(candidates: Indices, labels: Pixels, stream: int, seed: int) -> Indices:
    """Order candidates so that every beginning of the order is as balanced over the classes as can be.

    The classes take turns, in an order drawn once; within a class the images come in random order. Counts per
    class differ by at most one until a class runs out; then the others take its turns.

    The random keys are raw output of PCG64 and not draws of `numpy.random.Generator`: NumPy promises that the
    former never change between its versions, and leaves itself free to change the latter (NEP 19).

    Args:
        candidates: positions to choose among, ascending.
        labels: classes of the whole set.
        stream: which of the independent random streams to use.
        seed: the study's seed of subsets.

    Returns:
        The candidates, reordered.
    """
    bits = np.random.PCG64(np.random.SeedSequence([stream, seed]))
    turn = np.argsort(bits.random_raw(int(labels.max()) + 1), kind="stable")
    # A key for every image of the whole set: an image keeps its key whatever the candidates are.
    keys = bits.random_raw(len(labels))[candidates]
    classes = labels[candidates]
    by_class = np.lexsort((keys, classes))
    counts = np.bincount(classes)
    rank_in_class = np.arange(len(candidates)) - np.repeat(np.cumsum(counts) - counts, counts)
    order: Indices = candidates[by_class[np.lexsort((turn[classes[by_class]], rank_in_class))]]
    return order


def _first(count: int, candidates: Indices, labels: Pixels, stream: int, seed: int) -> Indices:
    return np.sort(balanced_order(candidates, labels, stream, seed)[:count])
