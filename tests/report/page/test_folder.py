"""The report's folder: files that other programs read, and nothing of the user's lost."""

import json
import os
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from builders import make_study
from fairtrial.errors import ReportError
from fairtrial.report.page.folder import folder_name, write_report
from fairtrial.report.page.material import Material
from fairtrial.report.page.rows import claims_csv, verdicts_csv
from fairtrial.results import StudyResults
from fairtrial.spec import Study
from report.page.pages import small_study
from report.test_xray import xrayed

CLAIM = {
    "id": "1",
    "text": "=cmd() low_beta2\nis behind.",
    "arm": "low_beta2",
    "against": "baseline",
    "direction": "lower",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    study, results = small_study(claims=[CLAIM])
    folder = tmp_path_factory.mktemp("report") / "made" / "here"
    return folder, StudyResults(study, tuple(results)).report(folder)


def test_page_figures_tables_and_data(written):
    folder, paths = written
    assert paths[0] == folder / "index.html"
    assert all(path.is_file() for path in paths)
    names = {path.relative_to(folder).as_posix() for path in paths}
    assert {f"figures/differences.{form}" for form in ("png", "svg", "pdf")} <= names
    assert {
        f"tables/{name}.{form}" for name in ("results", "verdicts", "claims") for form in ("csv", "md", "tex")
    } <= names
    assert {"data/study.toml", "data/epochs.parquet", "data/epochs.csv", "data/trials.parquet"} <= names
    assert sorted(json.loads((folder / "report.json").read_text())["files"]) == sorted(names)
    assert Study.from_toml((folder / "data/study.toml").read_text()).hash == small_study(claims=[CLAIM])[0].hash


def test_verdicts_and_claims_are_tables_that_pandas_parses(written):
    folder, _ = written
    verdicts = pd.read_csv(folder / "tables/verdicts.csv")
    assert list(verdicts["arm"]) == ["high_beta1", "low_beta2", "wild"]
    assert verdicts.loc[1, "verdict"] == "worse"
    numbers = verdicts[["mean_difference", "interval_low", "interval_high", "confidence", "margin", "seeds", "lost"]]
    assert all(kind.kind in "fi" for kind in numbers.dtypes)
    assert verdicts.loc[1, "mean_difference"] < 0
    claims = pd.read_csv(folder / "tables/claims.csv")
    assert list(claims["finding"]) == ["supported"]
    assert claims.loc[0, "measured"] == pytest.approx(verdicts.loc[1, "mean_difference"])
    assert claims.loc[0, "text"] == "'=cmd() low_beta2 is behind."
    assert len((folder / "tables/claims.csv").read_text().splitlines()) == 2


def test_a_number_that_does_not_exist_is_an_empty_field():
    study, results = small_study({"a": {}, "b": {}}, seeds=1, claims=[{**CLAIM, "arm": "b", "against": "a"}])
    named = Material.of(study, results).named
    assert pd.read_csv(StringIO(verdicts_csv(named.verdict.data)))["interval_low"].isna().all()
    assert pd.read_csv(StringIO(claims_csv(named.claims)))["interval_low"].isna().all()


def test_the_data_are_those_of_the_store(written):
    folder, _ = written
    epochs = pd.read_parquet(folder / "data/epochs.parquet")
    _, results = small_study(claims=[CLAIM])
    assert len(epochs) == sum(len(result.epochs) for result in results)
    assert len(pd.read_csv(folder / "data/trials.csv")) == len(results)


def test_the_x_ray_is_in_words_and_tables_on_the_page_and_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr("fairtrial.report.page.folder.write", lambda figure, folder: [])
    table = make_study(("baseline", "large_eps"), seeds=2).to_dict()
    table["arms"]["large_eps"]["label"] = "Large ε"
    study = Study.from_dict(table)
    results = xrayed(study)
    write_report(study, results, tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    section = page.partition('<section id="xray"')[2].partition("</section>")[0]
    assert "<li>Large ε:<br>epsilon 1e-8 exceeds 10% of sqrt(vhat) in 1% of coordinates" in section
    assert section.index("mostly noise") < section.index("<figure") < section.index("x-ray by kind of layer")
    rows = pd.read_csv(tmp_path / "r/tables/xray.csv")
    assert set(rows["arm"]) == {"baseline", "large_eps"}
    assert "Large ε" in (tmp_path / "r/tables/xray.md").read_text(encoding="utf-8")
    assert "\\begin{table}" in (tmp_path / "r/tables/xray.tex").read_text(encoding="utf-8")
    write_report(study, [replace(one, snapshots=()) for one in results], tmp_path / "without")
    assert not (tmp_path / "without/tables/xray.csv").exists()


class TestFolders:
    @pytest.fixture
    def small(self, monkeypatch):
        monkeypatch.setattr("fairtrial.report.page.folder.write", lambda figure, folder: [])
        study, results = small_study({"a": {}, "b": {}}, seeds=1, epochs=1)
        return study, results

    def test_a_folder_with_other_files_is_refused_and_keeps_them(self, small, tmp_path):
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "index.html").write_text("my own page")
        with pytest.raises(ReportError, match=r"mine: holds other files; name an empty or a new folder"):
            write_report(*small, mine)
        assert [path.name for path in mine.iterdir()] == ["index.html"]
        assert (mine / "index.html").read_text() == "my own page"

    def test_an_earlier_report_is_written_over(self, small, tmp_path):
        write_report(*small, tmp_path / "r")
        first = (tmp_path / "r" / "index.html").read_text()
        study, results = small
        write_report(study, results[:1], tmp_path / "r")
        assert (tmp_path / "r" / "index.html").read_text() != first

    def test_other_files_within_an_earlier_report_stay(self, small, tmp_path):
        write_report(*small, tmp_path / "r")
        (tmp_path / "r" / "notes.txt").write_text("mine")
        write_report(*small, tmp_path / "r")
        assert (tmp_path / "r" / "notes.txt").read_text() == "mine"

    def test_a_link_or_a_pipe_in_a_files_place_is_replaced_and_not_followed(self, small, tmp_path):
        write_report(*small, tmp_path / "r")
        victim = tmp_path / "victim"
        victim.write_text("mine")
        for name in ("tables/results.csv", "data/study.toml", "index.html"):
            (tmp_path / "r" / name).unlink()
            (tmp_path / "r" / name).symlink_to(victim)
        (tmp_path / "r/tables/results.md").unlink()
        os.mkfifo(tmp_path / "r/tables/results.md")
        for path in write_report(*small, tmp_path / "r"):
            assert path.is_file()
            assert not path.is_symlink()
        assert victim.read_text() == "mine"

    @pytest.mark.parametrize("name", ["figures", "tables", "data"])
    def test_a_linked_folder_is_refused(self, small, tmp_path, name):
        write_report(*small, tmp_path / "r")
        (tmp_path / "elsewhere").mkdir()
        shutil.rmtree(tmp_path / "r" / name)
        (tmp_path / "r" / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ReportError, match=rf"^\S*/r/{name}: is a link, which would lead out of [^\n]*$"):
            write_report(*small, tmp_path / "r")
        assert not list((tmp_path / "elsewhere").iterdir())

    def test_a_pipe_is_no_mark_of_a_report(self, small, tmp_path):
        os.mkfifo(tmp_path / "report.json")
        with pytest.raises(ReportError, match="holds other files"):
            write_report(*small, tmp_path)

    def test_a_file_is_no_folder(self, small, tmp_path):
        (tmp_path / "r").write_text("mine")
        with pytest.raises(ReportError, match=r"r: is a file; name a folder for the report"):
            write_report(*small, tmp_path / "r")
        with pytest.raises(ReportError, match=r"r/x: can't be (read|made): Not a directory"):
            write_report(*small, tmp_path / "r" / "x")
        assert (tmp_path / "r").read_text() == "mine"

    def test_a_folder_where_nothing_can_be_made(self, small):
        with pytest.raises(ReportError, match=r"^/proc/r: can't be made: "):
            write_report(*small, Path("/proc/r"))

    def test_the_default_folder_is_named_after_the_study(self, small):
        study, _ = small
        assert folder_name(study) == f"simulated-{study.hash[:8]}-report"


def test_a_diverged_arm_and_an_own_metric_are_in_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr("fairtrial.report.page.folder.write", lambda figure, folder: [])
    study, results = small_study({"a": {}, "b": {"diverge_seeds": [0, 1]}}, seeds=2)
    results = [
        replace(result, epochs=tuple(replace(one, metrics={**one.metrics, "../x": 1.0}) for one in result.epochs))
        for result in results
    ]
    write_report(study, results, tmp_path / "r")
    assert "../x" in pd.read_csv(tmp_path / "r/data/epochs.csv").columns
    assert set(pd.read_csv(tmp_path / "r/data/trials.csv")["outcome"]) == {"finished", "diverged"}
