"""Options of charts: each wrong one is one clear line."""

import pytest

from builders import make_results, make_study
from fairtrial.errors import ReportError
from fairtrial.report.chart_options import ChartOptions, parse_size
from fairtrial.report.charts import draw

STUDY = make_study(("a", "b", "c"), seeds=3)
RESULTS = make_results(STUDY)


def drawn(*names, **options):
    return draw(names, STUDY, RESULTS, options=ChartOptions(**options))


def test_arms_are_those_that_are_named():
    (curves,) = drawn("test_accuracy", arms=("c", "a"))
    assert [curve.arm for curve in curves.data.curves] == ["a", "c"]
    (plot,) = drawn("differences", arms=("a", "c"))
    assert [arm.arm for arm in plot.data.arms] == ["c"]
    assert [row.arm for row in plot.data.found.comparisons] == ["b", "c"]  # verdicts stay those of the whole study


def test_an_arm_of_one_color_keeps_it():
    (all_of_them,), (alone,) = drawn("test_accuracy"), drawn("test_accuracy", arms=("c",))
    scales = [
        each.chart.to_dict()["hconcat"][0]["layer"][1]["encoding"]["color"]["scale"] for each in (all_of_them, alone)
    ]
    assert scales[0] == scales[1]


def test_another_measure_is_exploratory():
    (plot,) = drawn("differences", measure="final_train_loss")
    assert (plot.data.found.metric, plot.data.found.larger_is_better) == ("final_train_loss", False)
    assert plot.title == "Final training loss: difference from a"
    assert plot.caption.startswith("Exploratory.")


def test_size_and_title():
    (figure,) = drawn("training_loss", size=(300, 200), title="Mine")
    whole = figure.chart.to_dict()
    assert (figure.title, whole["title"]["text"]) == ("Mine", "Mine")
    assert (whole["hconcat"][0]["width"], whole["hconcat"][0]["height"]) == (300, 200)
    assert drawn("differences", size=(300, 90))[0].chart.to_dict()["height"] == 90


def test_a_logarithmic_axis():
    (figure,) = drawn("training_loss", log=True)
    scale = figure.chart.to_dict()["hconcat"][0]["layer"][1]["encoding"]["y"]["scale"]
    assert scale["type"] == "log"
    assert scale["domain"][0] > 0
    below = make_results(STUDY, lambda arm, seed, epoch: {"train_loss": -1.0})
    with pytest.raises(ReportError, match="a logarithmic axis needs a value above 0; leave --log out"):
        draw(["training_loss"], STUDY, below, options=ChartOptions(log=True))


def test_without_names_charts_are_drawn_that_take_the_options():
    names = [figure.name for figure in drawn(log=True)]
    assert {"test_accuracy", "training_loss"} <= set(names)
    assert "differences" not in names
    assert "differences" in [figure.name for figure in drawn(measure="best_test_acc")]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {"arms": ("aa",)}, r'arm "aa": did you mean `a`\?'),
        ([], {"measure": "best_test_ac"}, r'measure "best_test_ac": did you mean `best_test_acc`\?'),
        ([], {"size": (3, 400)}, r"size = \[3, 400\]: must be two integers, width and height in pixels"),
        ([], {"size": (400.0, 400)}, "must be two integers"),
        ([], {"title": " "}, "title = .*must have 1 to 200 characters"),
        ([], {"title": "x" * 201}, "must have 1 to 200 characters"),
        (["differences"], {"log": True}, r'--log: the chart "differences" does not take it; these do: .*training_loss'),
        (["differences"], {"arms": ("a",)}, "no arm but a, with which the others are compared, was chosen"),
        (["differences", "training_loss"], {"title": "T"}, "title: 2 charts would get the same one; name one of"),
    ],
)
def test_errors_are_one_clear_line(names, options, message):
    with pytest.raises(ReportError, match=message) as caught:
        drawn(*names, **options)
    assert "\n" not in str(caught.value)


def test_sizes_are_read():
    assert parse_size("640x480") == parse_size(" 640 X 480 ") == (640, 480)
    for text in ("640", "640x", "0x400", "640x4001", "1e3x400", "640,480", "-5x400", "٦٤٠x٤٨٠"):
        with pytest.raises(ReportError, match="must be WIDTHxHEIGHT in pixels, such as 600x400, each from 80 to 4000"):
            parse_size(text)
