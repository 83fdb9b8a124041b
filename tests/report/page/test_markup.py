"""Charts as markup: words, numbers, and nothing that a text could break."""

import base64
import json
import re

import jinja2
import pytest

from builders import make_study
from fairtrial.report.charts import draw
from fairtrial.report.page import arm_controls, environment, figure_markup, render, vega_script
from fairtrial.report.page.assets import in_page
from fairtrial.report.page.behind import ROWS, behind, seed_rows
from fairtrial.report.views import View
from fairtrial.spec import Study
from fairtrial.stats.summary import summarize
from fairtrial.testing import simulated_results
from report.page.pages import EVIL, labeled, small_study
from report.test_xray import LENGTH, xrayed


def content_of(markup):
    return json.loads(re.search(r"data-content>(.*?)</script>", markup)[1])


def test_every_value_is_escaped_and_a_missing_one_is_an_error():
    assert environment().autoescape is True
    assert environment().from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"
    with pytest.raises(jinja2.UndefinedError, match="'x' is undefined"):
        environment().from_string("{{ x }}").render()
    with pytest.raises(jinja2.UndefinedError):
        render("arms.html")


def test_a_grid_has_class_names_instead_of_styles():
    study, results = small_study()
    (grid,) = View(summarize(study, results)).grids()
    page = environment().from_string("{{ grid | grid }}").render(grid=grid)
    assert "style=" not in page
    assert '<th scope="col" class="head left">arm</th>' in page
    assert 'class="scroll" tabindex="0" role="region"' in page


def test_a_chart_has_words_a_picture_and_its_data():
    study, results = small_study()
    (figure,) = draw(["test_accuracy"], study, results)
    markup = figure_markup(figure, study, "a b")
    assert 'id="a_b"' in markup
    assert '<h3 id="a_b-title">Test accuracy per epoch</h3>' in markup
    assert len(re.findall(r'alt="[^"]+"|aria-label="Test accuracy[^"]+"', markup)) >= 2
    assert 'src="data:image/svg+xml;base64,' in markup
    assert "title" not in content_of(markup)["spec"]


def test_the_table_behind_learning_curves_has_their_numbers():
    study, results = small_study()
    (figure,) = draw(["test_accuracy"], study, results)
    table = behind(figure, study)
    assert table.head == ("arm", "epoch", "mean (%)", "lowest (%)", "highest (%)", "seeds")
    own = [result.epochs[2].metrics["test_acc"] for result in results if result.arm == "low_beta2"]
    row = next(row for row in table.rows if row[:2] == ("low_beta2", "3"))
    assert [float(cell) for cell in row[2:]] == pytest.approx(
        [20 * sum(own), 100 * min(own), 100 * max(own), 5], rel=1e-4
    )
    points = seed_rows(figure, study)
    assert len(points) == 3 * 5 * 8 + 4 * 8
    assert {point["y"] for point in points if point["arm"] == "low_beta2" and point["x"] == 3} == {100 * x for x in own}


def test_the_table_behind_the_verdicts_has_every_seed():
    study, results = small_study()
    (figure,) = draw(["differences"], study, results)
    rows = behind(figure, study).rows
    assert [row[0] for row in rows] == ["high_beta1", "low_beta2", "wild"]
    assert rows[2][3] == "undecided; 1 diverged"
    assert [row[4].count(":") for row in rows] == [5, 5, 4]


def test_a_long_table_says_what_it_leaves_out():
    study, results = small_study({"a": {}, "b": {}}, epochs=1000, seeds=2)
    (figure,) = draw(["test_accuracy"], study, results)
    table = behind(figure, study)
    assert len(table.rows) <= ROWS + 2
    assert table.note == (
        f"Every 9th epoch of each arm, and the last: {len(table.rows)} of 2,000 rows. All epochs of all runs: "
        "fairtrial export."
    )
    assert [row[1] for row in table.rows if row[0] == "a"][-1] == "1000"
    assert seed_rows(figure, study)


def test_no_table_leaves_rows_out_without_saying_so():
    arms = {f"arm{number:02d}": {"mean": 0.6 + number / 100} for number in range(20)}
    study, results = small_study(arms, epochs=9, seeds=2)
    (figure,) = draw(["overfitting"], study, results)
    table = behind(figure, study)
    assert len({row[:2] for row in table.rows}) == 40
    assert {row[2] for row in table.rows} == {"1", "3", "5", "7", "9"}
    assert table.note.startswith("Every second epoch of each arm and metric, and the last: 200 of 360 rows.")
    few, results = small_study({"a": {}, "b": {}}, epochs=100, seeds=2)
    (figure,) = draw(["test_accuracy"], few, results)
    assert (len(behind(figure, few).rows), behind(figure, few).note) == (200, "")


def test_the_tables_behind_the_x_ray_have_every_panel():
    study = make_study(("baseline", "large_eps"), seeds=1)
    for figure in draw(
        ["xray_sqrt_vhat", "xray_epsilon", "xray_updates", "xray_layers", "xray_losses"], study, xrayed(study)
    ):
        table = behind(figure, study)
        kinds = 2 if figure.name == "xray_layers" else 1
        assert len(table.rows) == 2 * 5 * kinds
        assert len(table.head) == len(table.rows[0])
        assert "-" not in {cell for row in table.rows for cell in row}
    (figure,) = draw(["xray_epsilon"], study, xrayed(study))
    assert behind(figure, study).rows[2] == ("baseline", "1", str(LENGTH), "20", "1", "0")


def test_the_table_behind_a_sensitivity_has_each_value_with_its_interval():
    grid = {"optimizer": {"beta2": [0.9, 0.99, 0.999, 0.9999], "eps": [1e-8, 1e-6, 1e-4]}}
    table = {"name": "s", "reference": "default", "seeds": 3, "arms": {"default": {}}, "grid": grid}
    study = Study.from_dict(table | {"training": {"loop": "fairtrial.testing:simulate", "epochs": 1}})
    results = simulated_results(study)
    figures = draw(["sensitivity", "heat_map"], study, results)
    tables = [behind(figure, study) for figure in figures]
    assert tables[0].head == ("setting", "value", "arm", "mean difference (points)", "interval (points)", "verdict")
    assert {row[0] for row in tables[0].rows} == {"beta2", "eps"}
    assert tables[1].head[2:] == tables[0].head[2:]
    assert len(tables[1].rows) == 12
    assert sum(" to " in row[4] for row in tables[1].rows) == 11


def test_texts_end_no_script_and_no_attribute():
    study, results = labeled({"evil": EVIL})
    for figure in draw([], study, results):
        markup = figure_markup(figure, study)
        assert markup.count("</script>") == 1
        assert "<img src=x" not in markup
        content_of(markup)
    assert "<img" not in arm_controls(study)


def test_the_script_can_stand_in_a_page():
    assert "</script" not in in_page(vega_script()).lower()
    assert "<!--" not in in_page(vega_script())
    assert "expressionInterpreter" in vega_script()


def test_pictures_keep_a_hundredth_of_a_pixel_and_rows_six_digits():
    study, results = small_study()
    (figure,) = draw(["test_accuracy"], study, results)
    markup = figure_markup(figure, study)
    svg = base64.b64decode(re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', markup)[1]).decode()
    drawn = " ".join(re.findall(r' d="([^"]*)"', svg))
    assert len(drawn) > 1000
    assert not re.search(r"\.\d{3}", drawn)
    before = figure.spec()["datasets"]
    for name, rows in content_of(markup)["spec"]["datasets"].items():
        for row, whole in zip(rows, json.loads(before[name]), strict=True):
            assert row.keys() == whole.keys()
            for key, value in whole.items():
                assert row[key] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)
