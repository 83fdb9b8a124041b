"""Axes fit the data, and nothing far off squashes the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.report.axes import clipped, epoch_axis, joined, padded, robust

NUMBERS = st.floats(-1e3, 1e3, allow_nan=False)
SPANS = st.lists(st.tuples(NUMBERS, NUMBERS).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=12)


@given(SPANS)
def test_what_is_left_out_is_at_most_a_third_and_would_squash_the_rest(spans):
    span, out = robust(spans)
    assert len(out) <= len(spans) / 3
    kept = [each for at, each in enumerate(spans) if at not in out]
    assert span == joined(kept)
    whole = joined(spans)
    assert not out or (whole[1] - whole[0]) >= 5 * (span[1] - span[0])


def test_one_far_off_is_left_out_and_two_of_three_are_not():
    close = [(0.0, 1.0), (0.1, 1.1), (0.2, 0.9)]
    assert robust([*close, (-30.0, -20.0)]) == ((0.0, 1.1), {3})
    assert robust([(0.0, 1.0), (30.0, 31.0), (60.0, 61.0)])[1] == frozenset()
    assert robust([(0.0, 1.0)]) == ((0.0, 1.0), frozenset())


def test_two_at_the_same_place_go_together():
    assert robust([(0.0, 1.0)] * 5 + [(50.0, 51.0)] * 2) == ((0.0, 1.0), {5, 6})


def test_what_must_be_on_the_axis_stays():
    assert robust([(50.0, 51.0), (50.0, 51.5), (49.0, 50.0)], keep=(-1.0, 1.0))[0] == (-1.0, 51.5)


def test_of_very_many_a_twentieth_at_either_end_may_be_left_out():
    many = [(at / 1000, at / 1000 + 0.1) for at in range(1000)] + [(500.0, 501.0)] * 20
    span, out = robust(many)
    assert span[1] < 2
    assert out >= set(range(1000, 1020))


def test_an_axis_does_not_leave_what_is_possible_unless_the_data_do():
    assert padded((0.0, 98.0), limits=(0.0, 100.0)) == (0.0, 100.0)
    assert padded((-1.0, 98.0), limits=(0.0, 100.0))[0] == -1.0
    assert padded((3.0, 3.0)) == pytest.approx((2.88, 3.12))
    assert padded((0.0, 0.0)) == (-1.0, 1.0)


def test_clipping():
    assert clipped((-5.0, 0.5), (0.0, 1.0)) == (0.0, 0.5)
    assert clipped((2.0, 3.0), (0.0, 1.0)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("first", "last", "ticks"),
    [
        (1, 1, [1]),
        (1, 2, [1, 2]),
        (7, 10, [7, 8, 9, 10]),
        (667, 1000, list(range(700, 1001, 50))),
        (1, 24, [*range(2, 25, 2)]),
    ],
)
def test_epochs_are_whole_numbers_and_not_too_many(first, last, ticks):
    axis = epoch_axis(last, first)
    assert (axis.to_dict()["values"], axis.to_dict()["format"]) == (ticks, "d")
