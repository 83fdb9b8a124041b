"""Arms must be told apart in color, in gray, and by color-blind readers."""

from itertools import combinations

import pytest

from fairtrial.report.style import DARK_PALETTE, PALETTE, channels, config, line_styles, shortened


def test_no_two_of_two_hundred_arms_look_the_same():
    arms = [f"arm{index}" for index in range(200)]
    assert len(set(line_styles(arms, "arm0").values())) == 200


def test_arms_that_are_close_together_differ_in_dash_or_shape_even_without_color():
    styles = list(line_styles([f"arm{index}" for index in range(20)], "arm0").values())
    assert len({(style.dash, style.shape) for style in styles}) == 20


def test_the_reference_is_solid_black_wherever_it_stands():
    styles = line_styles(["a", "b", "c"], "c")
    assert (styles["c"].color, styles["c"].dash, styles["c"].shape) == ("#000000", (1, 0), "circle")
    assert list(styles) == ["a", "b", "c"]


def rgb(color):
    return [int(color[index : index + 2], 16) for index in (1, 3, 5)]


def luminance(color):
    """Relative luminance by WCAG 2."""
    parts = [part / 255 for part in rgb(color)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("theme", "palette"), [("light", PALETTE), ("dark", DARK_PALETTE)])
def test_every_color_stands_out_against_its_page_and_against_the_others(theme, palette):
    page = config(theme)["background"]
    assert config(theme)["range"]["category"] == list(palette)
    for color in palette:
        assert contrast(color, page) > 2
    for one, other in combinations(palette, 2):
        assert sum(abs(a - b) for a, b in zip(rgb(one), rgb(other), strict=True)) > 75


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read_on_their_page(theme):
    """4.5 is the contrast that WCAG asks of small text."""
    look = config(theme)
    words = ("ink", "text", "better", "worse", "equivalent", "undecided", "non-inferior", "refused", "reference")
    assert all(contrast(look["style"][name]["color"], look["background"]) > 4.5 for name in words)
    for part, key in (("axis", "labelColor"), ("legend", "labelColor"), ("title", "subtitleColor")):
        assert contrast(look[part][key], look["background"]) > 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_verdicts_are_told_apart_by_readers_who_do_not_see_red_and_green(theme):
    """Viénot, Brettel & Mollon 1999: what a deuteranope sees of a color, in linear light."""
    look = config(theme)["style"]

    def seen(color):
        red, green, blue = (part**2.2 for part in rgb(color))
        mixed = 0.29275 * red + 0.70725 * green
        return [part ** (1 / 2.2) for part in (mixed, mixed, -0.02234 * red + 0.02234 * green + blue)]

    for one, other in combinations(("better", "worse", "equivalent"), 2):
        pair = [seen(look[name]["color"]) for name in (one, other)]
        assert sum(abs(a - b) for a, b in zip(*pair, strict=True)) > 60


def test_both_themes_have_the_same_keys():
    def keys(table):
        return {
            (key, *rest) for key, each in table.items() for rest in (keys(each) if isinstance(each, dict) else [()])
        }

    assert keys(config("light")) == keys(config("dark"))


def test_an_arm_keeps_its_color_wherever_the_reference_stands():
    color, dash, shape = channels(["a", "b", "c"], "b")
    assert color.to_dict()["scale"] == {"domain": ["b", "a", "c"], "range": "category"}
    assert (dash.to_dict()["scale"]["range"][0], shape.to_dict()["scale"]["range"][0]) == ([1, 0], "circle")


def test_a_long_name_loses_its_middle():
    assert shortened("x" * 30 + "y" * 30, 11) == "xxxxx…yyyyy"
    assert shortened("short", 11) == "short"
