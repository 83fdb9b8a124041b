"""Text of unknown origin, as a terminal may see it."""

import tomllib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.text import one_line, visible

#: Each with what a terminal does with it.
HOSTILE = {
    "\x1b[2J": r"\u001b[2J",  # clears the screen
    "\x1b]0;title\x07": r"\u001b]0;title\u0007",  # renames the window
    "\x1b]52;c;cm0=\x1b\\": r"\u001b]52;c;cm0=\u001b\\"[:-1],  # sets the clipboard
    "\x9b31m": r"\u009b31m",  # the same as ESC [, in one character
    "a\rb": r"a\rb",  # writes over the line
    "a\x08b": r"a\u0008b",
    "\u202egnp.exe": r"\u202egnp.exe",  # turns the text around
    "\u2066x\u2069": r"\u2066x\u2069",
    "a\u200bb\ufeff": r"a\u200bb\ufeff",  # can't be seen
    "a\u2028b": r"a\u2028b",  # a line break to some
    "\ud800": r"\ud800",  # can't be encoded
    "\U000e0041": r"\U000e0041",  # an invisible letter
    "\x7f\x00": r"\u007f\u0000",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_what_a_terminal_obeys_is_shown_as_an_escape(text, shown):
    assert visible(text) == one_line(text) == shown


def test_letters_signs_and_spaces_of_all_languages_stay():
    text = "β₁ = 10⁻³ ± 5\u00a0% → 雪\u3000é naïve 👍 שלום"
    assert visible(text) == one_line(text) == text


def test_line_breaks_stay_unless_one_line_is_due():
    assert visible("a\n\tb") == "a\n\tb"
    assert one_line("a\n\tb") == r"a\n\tb"


@given(st.text(st.characters(exclude_characters='\\"')))
def test_escapes_are_those_of_toml(text):
    shown = one_line(text)
    assert all(char.isprintable() or unicodedata.category(char) == "Zs" for char in shown)
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert tomllib.loads(f'a = "{shown}"')["a"] == text
