"""Charts by name, and that their files are what their names say."""

import base64
import json
import struct
import sys

import pytest

from builders import make_results, make_study
from fairtrial.errors import ReportError, StudyError
from fairtrial.registry import CHARTS
from fairtrial.report.charts import draw, write
from fairtrial.trial import Outcome

OWN = """
from fairtrial.report.charts.learning_curves import learning_curves
mine = learning_curves("test_loss", name="mine")
"""


def test_a_chart_is_drawn_by_its_name():
    study = make_study(("a", "b"), seeds=2)
    results = make_results(study)
    assert {"test_accuracy", "training_loss"} <= set(CHARTS.names())
    assert [each.name for each in draw(["training_loss", "test_loss"], study, results)] == [
        "training_loss",
        "test_loss",
    ]


def test_an_unknown_name_is_told_what_there_is():
    study = make_study(("a",), seeds=1)
    with pytest.raises(ReportError, match=r"did you mean `test_accuracy`\?"):
        draw(["test_acuracy"], study, make_results(study))
    with pytest.raises(ReportError, match=r"known: .*`training_loss`.*`train_acc`"):
        draw(["xyz"], study, make_results(study))


def test_a_chart_without_data_is_refused_by_name_and_left_out_else():
    study = make_study(("a",), seeds=1)
    results = make_results(study, lambda arm, seed, epoch: {"train_loss": 1.0})
    assert [figure.name for figure in draw([], study, results)] == ["seeds", "training_loss"]
    with pytest.raises(ReportError, match="no finished or diverged trial has recorded `test_acc`"):
        draw(["test_accuracy"], study, results)


def test_nothing_to_draw():
    study = make_study(("a",))
    for results in ([], make_results(study, ended={("a", seed): None for seed in range(3)})):
        with pytest.raises(ReportError, match=r"^made_up@\w{8}: nothing to draw: [^\n]*`test_acc`[^\n]*`train_loss`"):
            draw([], study, results)


def test_a_users_own_chart(tmp_path, monkeypatch):
    (tmp_path / "own_charts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    study = make_study(("a",), seeds=1)
    (figure,) = draw(["own_charts:mine"], study, make_results(study))
    assert figure.name == "mine"
    with pytest.raises(StudyError, match="own_charts has no yours"):
        draw(["own_charts:yours"], study, make_results(study))
    del sys.modules["own_charts"]


def test_a_notebook_shows_a_figure(figure):
    data, metadata = figure._repr_mimebundle_()
    (interactive,) = [value for kind, value in data.items() if kind.startswith("application/vnd.vegalite.")]
    assert interactive["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == data["text/plain"] == figure.alt
    assert 300 < metadata["image/png"]["width"] < 900  # as wide as on a screen, three pixels each


@pytest.fixture(scope="module")
def figure():
    study = make_study(("a", "b"), seeds=2)
    return draw(["test_accuracy"], study, make_results(study))[0]


class TestFiles:
    def test_files_are_what_their_names_say(self, figure, tmp_path):
        paths = write(figure, tmp_path / "made" / "here")
        assert [path.name for path in paths] == ["test_accuracy.png", "test_accuracy.svg", "test_accuracy.pdf"]
        png, svg, pdf = (path.read_bytes() for path in paths)
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", png[16:24])
        assert width > 3 * 420
        assert height > 3 * 270
        resolution = png.index(b"pHYs") + 4
        assert struct.unpack(">I", png[resolution : resolution + 4])[0] == pytest.approx(216 / 0.0254, rel=0.01)
        assert svg.startswith(b"<svg")
        assert b"Test accuracy (%)" in svg
        assert b"<image" not in svg
        assert pdf.startswith(b"%PDF-")
        assert b"/LiberationSans" in pdf.replace(b"+", b"/")

    def test_a_diverged_trial_can_be_drawn(self, tmp_path):
        study = make_study(("a", "b"), seeds=1)
        (accuracy,) = draw(["test_accuracy"], study, make_results(study, ended={("b", 0): Outcome.DIVERGED}))
        _, svg, _ = write(accuracy, tmp_path)
        assert "1 of 1 diverged" in svg.read_text()

    def test_a_link_of_a_files_name_is_replaced_and_not_followed(self, figure, tmp_path):
        (tmp_path / "victim").write_text("mine")
        stem = write(figure, tmp_path / "f")[1]
        stem.unlink()
        stem.symlink_to(tmp_path / "victim")
        write(figure, tmp_path / "f")
        assert stem.read_text().startswith("<svg")
        assert not stem.is_symlink()
        assert (tmp_path / "victim").read_text() == "mine"

    def test_errors_are_one_line(self, figure, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ReportError, match=r"file: can't be made: File exists$"):
            write(figure, tmp_path / "file")

    def test_the_specification_holds_no_nan(self, figure):
        json.dumps(figure.chart.to_dict(), allow_nan=False)
