"""The Python interface: what a script or a notebook can do, with the protection that the command line has."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

import fairtrial as ft
from builders import make_results
from fairtrial.errors import ProvenanceError, ReportError, StoreMissingError, StudyNotFoundError
from fairtrial.report.export import export
from fairtrial.stats.comparison import paired_spread

STUDY = """
name = "mine"
reference = "a"
seeds = 2
[training]
epochs = 3
loop = "loops:mixed"
[params]
end = "well"
[arms.a]
[arms.b]
params.end = "interrupt"
[[claims]]
id = "1"
text = "b is better."
arm = "b"
against = "a"
direction = "higher"
"""


def run(study, **options):
    return ft.run(study, executor=ft.InlineExecutor(), **options)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def runs(file):
    return run(ft.load(file))


@pytest.fixture
def interrupted(file, monkeypatch):
    """A study that was interrupted in its second trial."""
    with monkeypatch.context() as patch:
        patch.setenv("FAIRTRIAL_TEST_INTERRUPT", "1")
        with pytest.raises(KeyboardInterrupt):
            run(ft.load(file))
    return file


def test_a_study_is_trained_once_and_its_results_can_be_opened_again(file, runs):
    assert (runs.trained, runs.count(ft.Outcome.FINISHED)) == (4, 4)
    again = run(ft.load(file))
    assert (again.trained, again.results) == (0, runs.results)
    for study in (file, str(file), "mine", runs.study.label, runs.study):
        opened = ft.open_results(study)
        assert (opened.study, opened.results, opened.trained) == (runs.study, runs.results, 0)


def test_results_of_a_study_that_was_not_run_are_an_error(file):
    with pytest.raises(StoreMissingError):
        ft.open_results(file)
    run(ft.load(file))
    with pytest.raises(StudyNotFoundError, match="has not been run in this store; this store has mine@"):
        ft.open_results(file, ["seeds=5"])


def test_a_store_is_a_path_or_an_object_that_stays_open(file):
    study = ft.load(file)
    run(study, store=Path("path.db"))
    with ft.SQLStore("object.db") as store:
        runs = run(study, store=store)
        assert ft.open_results("mine", store=store).results == tuple(store.results(study)) == runs.results
    assert Path("path.db").exists()


def test_studies_in_a_store_are_listed_and_can_be_loaded_from_it(file):
    assert ft.list_studies() == []
    assert list(Path().glob("*.db")) == []
    changed = run(ft.load(file, ["seeds=1"])).study
    assert [study.label for study in ft.list_studies()] == [changed.label]
    assert ft.load(changed.label, store="fairtrial.db") == ft.load("mine", store="fairtrial.db") == changed


def test_a_changed_file_is_refused_with_the_difference(interrupted):
    interrupted.write_text(STUDY.replace("epochs = 3", "epochs = 4"))
    with pytest.raises(ProvenanceError, match=r"mine\.toml has changed since mine@.*: training\.epochs 3, now 4"):
        run(ft.load(interrupted))
    assert len(ft.list_studies()) == 1


def test_a_changed_file_is_run_by_force_and_every_trial_says_so(interrupted):
    interrupted.write_text(STUDY.replace("epochs = 3", "epochs = 4"))
    runs = run(ft.load(interrupted), force=True)
    assert runs.count(ft.Outcome.FINISHED) == 4
    assert "training.epochs 3, now 4" in " ".join(runs.verdict().data.alerts)


def test_overrides_and_studies_built_in_python_abandon_nothing(interrupted):
    assert run(ft.load(interrupted, ["training.epochs=4"])).trained == 4
    built = ft.Study.from_toml(STUDY.replace("epochs = 3", "epochs = 5"))
    assert run(built).trained == 4


def test_trials_record_the_git_commit_of_their_studys_file(file):
    git = ["git", "-C", str(file.parent), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init"], ["add", "mine.toml"], ["commit", "-m", "m"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert {result.machine.git_commit for result in run(ft.load(file)).results} == {head}
    assert {result.machine.git_commit for result in run(ft.Study.from_toml(STUDY), store="b.db").results} == {None}


def test_a_training_loop_beside_the_studys_file_is_found_from_anywhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "loop_of_elsewhere.py").write_text("def train(trial):\n    yield {'test_acc': 0.5}\n")
    (folder / "s.toml").write_text(STUDY.replace("loops:mixed", "loop_of_elsewhere:train"))
    before = list(sys.path)
    assert run(ft.load("elsewhere/s.toml")).count(ft.Outcome.FINISHED) == 4
    assert sys.path == before


def test_results_show_themselves(runs):
    assert repr(runs) == f"<StudyResults {runs.study.label}: 4 of 4 trials>"
    assert "<table" in runs._repr_html_()
    assert "±" in repr(runs.table())
    assert "b: undecided" in repr(runs.verdict())
    assert "<table" in runs.verdict()._repr_html_()
    assert "1 undecided: b is better." in repr(runs.claims())
    assert "final test accuracy" in repr(runs.verdict("final_test_acc"))
    assert runs.verdict().data.comparisons == ft.compare(runs.study, runs.results).comparisons


def test_how_trials_ended_is_shown(file):
    file.write_text(STUDY.replace('"interrupt"', '"raises"').replace('"well"', '"nan"'))
    runs = run(ft.load(file))
    assert repr(runs) == f"<StudyResults {runs.study.label}: 4 of 4 trials, 2 diverged, 2 failed>"
    assert [(result.arm, result.detail.splitlines()[0]) for result in runs.failures()] == [
        ("b", "RuntimeError: boom")
    ] * 2


def test_an_interrupted_study_says_how_far_it_is(interrupted):
    opened = ft.open_results(interrupted)
    assert repr(opened) == f"<StudyResults {opened.study.label}: 1 of 4 trials, 1 interrupted or running>"


def test_charts_are_drawn_by_name(runs):
    assert runs.plot("test_accuracy").name == "test_accuracy"
    assert {"test_accuracy", "training_loss"} <= {figure.name for figure in runs.plots()}
    with pytest.raises(ReportError, match="test_acuracy"):
        runs.plot("test_acuracy")


def test_records_as_a_data_frame_and_as_files(runs):
    frame = runs.to_pandas()
    assert list(frame.columns[:5]) == ["study", "hash", "arm", "seed", "epoch"]
    assert len(frame) == 2 * 2 * 3
    runs.export("r.parquet")
    pd.testing.assert_frame_equal(frame, pd.read_parquet("r.parquet"))
    runs.export(Path("r.csv"))
    assert Path("r.csv").read_bytes() == export(runs.study, runs.results, "csv")
    with pytest.raises(ReportError, match=r'export format "xls": must be one of csv, parquet, json'):
        runs.export("r.xls")


def test_a_data_frame_without_pandas_is_an_error_that_says_what_to_install(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ReportError, match="pip install pandas"):
        runs.to_pandas()


def test_the_digest_is_that_of_the_results(runs):
    assert runs.digest() == ft.digest_results(runs.results)


def test_costs_are_estimated_from_what_the_store_holds(file):
    assert ft.estimate_cost(ft.load(file)).seconds is None
    runs = run(ft.load(file))
    cost = ft.estimate_cost(ft.load(file, ["seeds=3"]), workers=1)
    assert (cost.missing, cost.workers) == (2, 1)
    assert cost.seconds is not None
    assert cost.spread == paired_spread(runs.study, runs.results)
    with pytest.raises(ft.FairtrialError, match="spread = -1: must be a positive number"):
        ft.estimate_cost(runs.study, spread=-1)


def test_data_are_fetched_and_the_installation_is_checked():
    assert ft.fetch_data("digits").name == "digits"
    assert next(ft.check_installation()).part == "versions"


def test_a_judgment_is_short_to_read():
    (found,) = ft.judge([[0.021], [0.019], [0.022]], margin=0.01)
    assert repr(found).startswith("<Comparison arm_1: better, difference 0.0207 (0.0")
    assert len(repr(found)) < 80


def made(level):
    def loop(trial):
        for _ in range(trial.epochs):
            yield {"test_acc": level}

    return loop


def test_functions_that_differ_in_what_they_captured_are_different_loops():
    """Their results must not be taken for each other's; the same function resumes its own."""
    studies = [
        ft.Study(name="s", reference="a", arms={"a": {}}, training={"loop": loop, "epochs": 1})
        for loop in (made(0.1), made(0.9), partial(fixed, level=0.1), partial(fixed, level=0.9), made(0.1))
    ]
    assert len({study.hash for study in studies}) == 4
    assert studies[0].hash == studies[-1].hash
    for study, level in zip(studies, (0.1, 0.9, 0.1, 0.9, 0.1), strict=True):
        (result,) = ft.run(study, executor=ft.InlineExecutor()).results
        assert result.epochs[0].metrics["test_acc"] == level


def test_a_function_that_captures_itself_has_a_name():
    def loop(trial):
        yield from loop(trial) if trial is None else [{"test_acc": 0.5}]

    assert "#" in ft.Study(name="s", reference="a", arms={"a": {}}, training={"loop": loop}).settings.training.loop


def fixed(trial, level):
    yield {"test_acc": level}


@pytest.mark.parametrize(
    ("study", "executor", "message"),
    [
        ("quick", None, "needs a study"),
        (None, "local", "must be an exec"),
        (None, ft.LocalExecutor, "must be an exec"),
    ],
)
def test_what_is_no_study_or_no_executor_is_one_line(make_study, study, executor, message):
    with pytest.raises(ft.FairtrialError, match=message):
        ft.run(study or make_study(), executor=executor)


def test_people_read_labels_and_programs_names(make_study):
    arms = {"a": {"label": "Adam, β₁ = 0.9"}, "b": {"label": "slow (β₁ = 0.5)", "optimizer": {"betas": [0.5, 0.999]}}}
    claim = {"id": "1", "text": "b is better.", "arm": "b", "against": "a", "direction": "higher"}
    study = make_study(seeds=3, arms=arms, claims=[claim])
    runs = ft.StudyResults(study, tuple(make_results(study)))
    for view in (runs.table(), runs.verdict(), runs.claims()):
        for form in ("text", "markdown", "latex", "html"):
            assert "slow (" in view.write(form)
        assert "slow (" not in view.write("json")
    assert "slow (β₁ = 0.5)" in json.dumps(runs.plot("test_accuracy").chart.to_dict(), ensure_ascii=False)
    assert runs.table().write("csv").splitlines()[2].startswith("b,")
