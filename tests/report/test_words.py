"""Small phrases that reports share."""

from hypothesis import given
from hypothesis import strategies as st

from fairtrial.report.words import count, notes_by_arm, percent


@given(st.floats(0, 1))
def test_what_is_neither_sure_nor_impossible_is_not_written_so(fraction):
    assert (percent(fraction) == "100%") == (fraction == 1.0)
    assert (percent(fraction) == "0%") == (fraction == 0.0)


def test_notes_stand_once_after_the_names_they_are_about():
    notes = {"a": ["One.", "Two.", "All."], "b": ["One.", "All."], "c": ["Two.", "All."]}
    assert notes_by_arm(notes, ["All."]) == ["a, b: One.", "a, c: Two."]
    assert notes_by_arm({"a": ["One.", "Two."]}, []) == ["a: One. Two."]


def test_things_are_counted():
    assert (count(1, "seed"), count(3, "seed")) == ("1 seed", "3 seeds")
