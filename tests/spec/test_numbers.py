"""Intervals: what they contain follows from how they are written, for any ends."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from fairtrial.spec.numbers import Interval

ends = st.floats(-1e9, 1e9) | st.integers(-9, 9).map(float)


@given(st.lists(ends, min_size=2, max_size=2, unique=True), st.sampled_from("[("), st.sampled_from("])"), ends)
def test_an_interval_contains_what_its_text_says(both, opening, closing, value):
    low, high = sorted(both)
    interval = Interval(f"{opening}{low!r}, {high!r}{closing}")
    assert (low in interval, high in interval) == (opening == "[", closing == "]")
    assert value in both or (value in interval) == (low < value < high)


@given(low=ends, value=ends)
def test_an_end_may_be_infinite(low, value):
    assert (value in Interval(f"[{low!r}, inf)")) == (value >= low)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_neither_nan_nor_infinity_is_in_any(value):
    assert value not in Interval("(-inf, inf)")
    with pytest.raises(PydanticCustomError, match=r"\(-inf, inf\)"):
        Interval("(-inf, inf)")(value)
