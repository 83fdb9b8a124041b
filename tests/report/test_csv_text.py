"""CSV that spreadsheets read: no cell of text is a formula, and numbers stay numbers."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.report.csv_text import csv_text


def cell(value):
    """What a reader of CSV finds for a value."""
    (_, (found,)) = csv.reader(io.StringIO(csv_text(["head"], [[value]])))
    return found


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://x.org")',
        "+cmd|' /C calc'!A0",
        "-2+3+cmd|' /C calc'!A0",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "＝1",
        "-",
    ],
)
def test_a_formula_is_marked_as_text(text):
    assert cell(text).startswith("'")
    assert csv_text([text], []).lstrip('"').startswith("'")


@pytest.mark.parametrize("number", [-0.5, 1e-8, -3, float("-inf"), True])
def test_numbers_stay_numbers(number):
    assert cell(number) == str(number)


@pytest.mark.parametrize("text", ["-0.5", "+1", "-1e-8", ".5", "a", "a=b", "1-2", "", "'=1"])
def test_other_texts_stay(text):
    assert cell(text) == text


def test_no_control_character_is_left_but_line_breaks_within_a_cell():
    assert cell("a\x1b[31m\u202e\rb") == r"a\u001b[31m\u202e\rb"
    assert cell("Traceback\n  boom") == "Traceback\n  boom"


@given(st.text())
def test_no_text_begins_a_formula(text):
    found = cell(text)
    assert found[:1] not in set("=+-@\t\r") or float(found) == float(text)
