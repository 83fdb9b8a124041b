"""Optuna's studies, written by the real library."""

import logging
import re
import shutil
import sqlite3
import sys
import warnings
from pathlib import Path

import optuna
import pytest
from scipy import stats

import fairtrial as ft
import tracked_runs as tracked
from fairtrial.cli import main as cli
from fairtrial.errors import RunsError
from fairtrial.importers.base import open_source

EXPECTED = {optimizer: tracked.final_values(optimizer) for optimizer in tracked.OPTIMIZERS}


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.get_logger("optuna").setLevel(logging.ERROR)


def objective(trial):
    optimizer = trial.suggest_categorical("optimizer", list(tracked.OPTIMIZERS))
    seed = trial.suggest_int("seed", 0, len(tracked.SEEDS) - 1)
    for epoch in tracked.EPOCHS:
        trial.report(tracked.test_acc(optimizer, seed, epoch), epoch)
    trial.set_user_attr("lr", tracked.LEARNING_RATE[optimizer])
    return tracked.final_values(optimizer)[seed]


def run_study(storage, name="optimizers"):
    grid = {"optimizer": list(tracked.OPTIMIZERS), "seed": list(tracked.SEEDS)}
    sampler = optuna.samplers.GridSampler(grid, seed=0)
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=len(tracked.runs()))
    return study


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("optuna") / "study.db"
    run_study(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(written, tmp_path):
    return shutil.copy(written, tmp_path / "study.db")


@pytest.mark.parametrize("form", ["{}", "{}#optimizers", "optuna:sqlite:///{}", "optuna:sqlite:///{}#optimizers"])
def test_a_study_in_a_database(database, finals, form):
    source = open_source(form.format(database))
    assert finals(source, "value") == EXPECTED
    assert source.name.endswith("study.db#optimizers")
    assert (set(source.settings), source.notes) == ({"optimizer", "seed"}, ("The study maximizes value.",))


def test_intermediate_values_are_those_of_steps(database, frame):
    rows = frame(open_source(database), "run", "step", "optimizer", "seed", "intermediate", "lr")
    assert len(rows) == len(tracked.runs()) * len(tracked.EPOCHS)
    for row in rows.itertuples():
        assert row.intermediate == tracked.test_acc(row.optimizer, int(row.seed), row.step)
        assert float(row.lr) == tracked.LEARNING_RATE[row.optimizer]


def test_a_study_in_a_journal(tmp_path, finals):
    path = tmp_path / "journal.log"
    run_study(optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path))))
    before = path.read_bytes()
    assert finals(open_source(f"optuna:{path}"), "value") == EXPECTED
    path.write_bytes(before + b'{"op_code": 4, "wor')  # a line that is being written
    assert finals(open_source(f"optuna:{path}#optimizers"), "value") == EXPECTED
    path.write_bytes(before[:100] + b"\n" + before[101:])
    with pytest.raises(RunsError, match=r"journal.log: can't be read as a storage of Optuna: "):
        open_source(f"optuna:{path}")


def test_trials_that_did_not_end_are_marked_and_what_chose_them_is_said(tmp_path, frame):
    def pruned(trial):
        trial.suggest_float("lr", 0, 1)
        trial.report(0.1, 1)
        raise optuna.TrialPruned

    def failing(trial):
        trial.suggest_float("lr", 0, 1)
        raise ZeroDivisionError

    study = optuna.create_study(study_name="a", storage=f"sqlite:///{tmp_path / 'study.db'}")
    study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=1)
    study.optimize(pruned, n_trials=1)
    study.optimize(failing, n_trials=1, catch=ZeroDivisionError)
    study.enqueue_trial({"lr": 0.5})
    study.ask()
    study.enqueue_trial({"lr": 0.5})
    source = open_source(tmp_path / "study.db")
    statuses = frame(source, "run", "status").drop_duplicates()["status"]
    assert list(statuses) == ["finished", "failed", "failed", "running"]
    assert source.notes == (
        "The study minimizes value.",
        "Optuna may have chosen trials by earlier results; then those of an arm are not independent of each other.",
        "1 of 4 trials were pruned for their bad results; they count as failed.",
        "1 trial never started left out.",
    )


def test_several_objectives_and_their_names(tmp_path, frame):
    study = optuna.create_study(
        study_name="a", storage=f"sqlite:///{tmp_path / 'study.db'}", directions=["maximize", "minimize"]
    )
    study.add_trial(optuna.trial.create_trial(values=[0.9, 12.0]))
    assert frame(open_source(tmp_path / "study.db"), "value0", "value1").to_numpy().tolist() == [[0.9, 12.0]]
    with warnings.catch_warnings(action="ignore"):
        study.set_metric_names(["acc", "seconds"])
    source = open_source(tmp_path / "study.db")
    assert frame(source, "acc", "seconds").to_numpy().tolist() == [[0.9, 12.0]]
    assert source.notes[0] == "The study maximizes acc and minimizes seconds."


def test_of_several_studies_one_must_be_named(database, finals):
    optuna.create_study(study_name="other", storage=f"sqlite:///{database}")
    with pytest.raises(
        RunsError, match=r'study.db: has 2 studies; name one: .*study.db#NAME, of "optimizers", "other"$'
    ):
        open_source(database)
    with pytest.raises(RunsError, match=r'study.db: has no study "third"; it has "optimizers", "other"$'):
        open_source(f"{database}#third")
    with pytest.raises(RunsError, match=r"study.db#other: has no runs$"):
        open_source(f"{database}#other")
    assert finals(open_source(f"{database}#optimizers"), "value") == EXPECTED


def test_reading_changes_nothing(database, frame):
    before = database.read_bytes()
    frame(open_source(database))
    assert database.read_bytes() == before


def test_storages_of_other_kinds_and_versions_are_one_line(database, tmp_path):
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE version_info SET schema_version = 1")
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    connection.close()
    with pytest.raises(RunsError, match=r"study.db: can't be read as a storage of Optuna: The runtime optuna version"):
        open_source(database)
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(RunsError, match=r"other: is no storage of Optuna, neither a database nor a journal$"):
        open_source(f"optuna:{tmp_path / 'other'}")
    with pytest.raises(RunsError, match=r"missing.db: no such file$"):
        open_source("optuna:sqlite:///missing.db")
    with pytest.raises(
        RunsError, match=r"^nonsense://\*\*\*@host/x: can't be read as a storage of Optuna: Can't load plugin"
    ):
        open_source("optuna:nonsense://me:secret@host/x#a")


def test_a_server_that_is_down_is_one_line():
    with pytest.raises(RunsError, match=r"^postgresql\+psycopg://\*\*\*@127.0.0.1:9/x: can't be read .*refused"):
        open_source("optuna:postgresql+psycopg://me:secret@127.0.0.1:9/x#a")


def test_without_the_library_it_is_one_line(database, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RunsError, match=r"study.db: needs Optuna: pip install 'fairtrial\[optuna\]'$"):
        open_source(database)


def test_a_verdict_is_that_of_scipy(database):
    view = ft.judge_runs(
        database, arm="optimizer", seed="seed", measure="final_value", direction="higher", reference="adam"
    )
    (found,) = view.data.comparisons
    by_hand = stats.ttest_rel(EXPECTED["sgd"], EXPECTED["adam"])
    assert found.p_adjusted == pytest.approx(by_hand.pvalue)
    assert found.interval == pytest.approx(tuple(by_hand.confidence_interval(0.95)))


def test_the_command_of_the_page_finds_the_difference(database, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text()
    words = re.search(r"^    fairtrial (judge study.db .*)$", page, flags=re.MULTILINE)[1].split()
    monkeypatch.chdir(database.parent)
    monkeypatch.setattr(sys, "argv", ["fairtrial", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    verdict = re.search(r"\(`study.db`\) \| (.*) \|$", page, flags=re.MULTILINE)[1]
    assert verdict in " ".join(capsys.readouterr().out.split())
