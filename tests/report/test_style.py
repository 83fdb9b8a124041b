"""Arms must be told apart in color, in gray, and by color-blind readers."""

from itertools import combinations

from fairtrial.report.style import PALETTE, line_styles


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


def test_every_color_stands_out_against_white_and_against_the_others():
    def rgb(color):
        return [int(color[index : index + 2], 16) for index in (1, 3, 5)]

    for color in PALETTE:
        assert sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), rgb(color), strict=True)) < 175
    for one, other in combinations(PALETTE, 2):
        assert sum(abs(a - b) for a, b in zip(rgb(one), rgb(other), strict=True)) > 75
