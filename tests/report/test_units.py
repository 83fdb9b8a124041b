"""Units and words that people read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.report.units import measure_words, unit
from fairtrial.report.words import count, notes_by_arm, percent


@pytest.mark.parametrize(
    ("measure", "value", "amount"),
    [
        ("best_test_acc", 0.0131, "1.31 points"),
        ("generalisation_gap", -0.002, "-0.20 points"),
        ("test_acc_at_best_val", 0.5, "50.00 points"),
        ("best_my_accuracy", 0.5, "50.00 points"),
        ("final_train_loss", -0.01234, "-0.0123"),
        ("seconds", 12.34, "12.3 s"),
        ("seconds_to_target", 12.34, "12.3 s"),
        ("epochs_to_target", 1.25, "1.2 epochs"),
        ("final_grad_norm", 1234.5, "1.23e+03"),
        ("best_test_acc", -1e-9, "0.00 points"),
    ],
)
def test_measures_have_the_unit_in_which_they_are_read(measure, value, amount):
    assert unit(measure).amount(value) == amount


def test_relative_differences_are_percent():
    assert unit("seconds", relative=True).amount(0.0213) == "2.1%"
    assert unit("seconds", relative=True).between(-0.01, 0.02) == "-1.0 to 2.0"


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ("best_test_acc", "best test accuracy"),
        ("best_train_acc", "best training accuracy"),
        ("final_val_loss", "final validation loss"),
        ("test_acc_at_best_val", "test accuracy at the best validation epoch"),
        ("seconds", "time"),
        ("final_grad_norm", "final grad norm"),
    ],
)
def test_measures_have_names_in_words(measure, words):
    assert measure_words(measure) == words


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
