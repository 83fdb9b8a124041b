"""Subsets: balanced, seeded, nested, apart from each other, and the same for ever."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.training.datasets import subsets
from fairtrial.training.datasets.cifar10 import Cifar10

labels = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda given: np.array(given, np.uint8))
seeds = st.integers(0, 2**64)


def section(train=None, test=None, validation=0, subset_seed=0):
    """A data section of any size, past the limits of the real data sets."""
    return SimpleNamespace(train=train, test=test, validation=validation, subset_seed=subset_seed)


def assert_balanced(taken, available):
    """No class could give one of its images for one of a class that has two more."""
    for one in range(len(taken)):
        for other in range(len(taken)):
            assert taken[one] <= taken[other] + 1 or taken[other] == available[other]


@given(labels=labels, seed=seeds, stream=st.integers(1, 3), data=st.data())
def test_every_beginning_of_the_order_is_balanced(labels, seed, stream, data):
    candidates = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    order = subsets.balanced_order(candidates, labels, stream, seed)
    assert sorted(order) == candidates.tolist()
    available = np.bincount(labels[candidates], minlength=5)
    for count in range(len(order) + 1):
        assert_balanced(np.bincount(labels[order[:count]], minlength=5), available)


@given(labels=labels, seed=seeds, data=st.data())
def test_the_parts_of_a_study(labels, seed, data):
    validation = data.draw(st.integers(0, len(labels) - 1))
    train = data.draw(st.none() | st.integers(1, len(labels) - validation))
    test = data.draw(st.none() | st.integers(1, len(labels)))
    choice = subsets.choose(section(train, test, validation, seed), labels, labels)
    held_out = [] if choice.validation is None else choice.validation.tolist()
    trained = range(len(labels)) if choice.train is None else choice.train.tolist()
    assert len(held_out) == validation
    assert len(trained) == (len(labels) - validation if train is None else train)
    assert not set(held_out) & set(trained)
    for part in choice:
        assert part is None or (np.diff(part) > 0).all()
    assert (choice.test is None) == (test is None)
    assert test is None or len(choice.test) == test


@given(labels=labels, seed=seeds, data=st.data())
def test_smaller_subsets_lie_inside_larger_ones_and_validation_stays(labels, seed, data):
    validation = data.draw(st.integers(0, len(labels) - 1))
    large = data.draw(st.integers(1, len(labels) - validation))
    small = data.draw(st.integers(1, large))
    one = subsets.choose(section(small, small, validation, seed), labels, labels)
    two = subsets.choose(section(large, large, validation, seed), labels, labels)
    assert set(one.train) <= set(two.train)
    assert set(one.test) <= set(two.test)
    np.testing.assert_array_equal(one.validation, two.validation)


def test_everything_by_default():
    some = np.arange(20, dtype=np.uint8) % 10
    assert subsets.choose(Cifar10(), some, some) == (None, None, None)


def test_counts_per_class_as_equal_as_can_be():
    some = np.random.default_rng(0).permutation(np.arange(1000) % 10).astype(np.uint8)
    choice = subsets.choose(section(train=105), some, some)
    assert sorted(np.bincount(some[choice.train])) == [10] * 5 + [11] * 5
    scarce = np.array([0] * 50 + [1] * 50 + [2] * 3, np.uint8)
    choice = subsets.choose(section(train=43), scarce, scarce)
    assert np.bincount(scarce[choice.train]).tolist() == [20, 20, 3]


def test_seeds_and_parts_draw_differently():
    some = np.arange(1000, dtype=np.uint8) % 10
    first = subsets.choose(section(100, 100, 100, 0), some, some)
    other = subsets.choose(section(100, 100, 100, 1), some, some)
    taken = [*first, *other]
    assert len({tuple(part) for part in taken}) == len(taken)


def test_large_seeds_do_not_run_into_each_other():
    some = np.arange(1000, dtype=np.uint8) % 10
    drawn = {tuple(subsets.choose(section(10, subset_seed=s), some, some).train) for s in (0, 2**32, 2**64, 2**96)}
    assert len(drawn) == 4


@pytest.mark.parametrize(
    ("spec", "part", "expected"),
    [
        (section(train=10), "train", [18, 21, 26, 29, 42, 51, 60, 81, 83, 86]),
        (section(test=10), "test", [14, 19, 53, 54, 70, 74, 76, 79, 83, 87]),
        (section(validation=10), "validation", [10, 21, 24, 37, 43, 55, 64, 70, 79, 94]),
        (section(train=10, validation=10), "train", [18, 26, 29, 42, 51, 60, 77, 81, 83, 86]),
        (section(train=10, subset_seed=1), "train", [2, 4, 5, 11, 13, 45, 58, 82, 94, 95]),
    ],
)
def test_recorded_choices(spec, part, expected):
    """Studies name their images by count and seed alone, so these must never change."""
    some = np.arange(100, dtype=np.uint8) * 7 % 10
    assert getattr(subsets.choose(spec, some, some), part).tolist() == expected


def test_images_are_drawn_from_all_over_the_set():
    """Each image is taken about as often as any other: a bias to the front would show at once."""
    some = np.arange(100, dtype=np.uint8) % 10
    taken = np.zeros(100)
    for seed in range(400):
        taken[subsets.choose(section(train=20, subset_seed=seed), some, some).train] += 1
    assert taken.sum() == 8000
    # Each count is binomial (400, 0.2): mean 80, standard deviation 8. Seeds are fixed: this can't flicker.
    assert taken.min() > 80 - 4.5 * 8
    assert taken.max() < 80 + 4.5 * 8
