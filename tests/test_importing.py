"""Runs from elsewhere in a store: as a study of their own, and as trials of the user's."""

import sys
from pathlib import Path

import pandas as pd
import pytest

import fairtrial as ft
from fairtrial.cli import main as cli
from fairtrial.errors import FairtrialError, RunsError
from fairtrial.spec import Study
from fairtrial.testing import executor, simulated_study

ROWS = [
    {"optimizer": arm, "seed": seed, "epoch": epoch, "test_acc": 0.1 * epoch + mean + 0.003 * (seed * 7 % 5)}
    for arm, mean in (("usual", 0.5), ("slow", 0.45))
    for seed in range(3)
    for epoch in (1, 2, 3)
]
ASKED = {"arm": "optimizer", "seed": "seed", "epoch": "epoch", "measure": "final_test_acc", "reference": "usual"}


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run a command beside `runs.csv`; return exit status, standard output and standard error."""
    pd.DataFrame(ROWS).to_csv(tmp_path / "runs.csv", index=False)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["fairtrial", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return call


OPTIONS = [f"--{key}={value}" for key, value in ASKED.items()]


def test_imported_runs_are_a_study_in_a_store(command):
    status, out, err = command("import", "runs.csv", *OPTIONS, "--margin=0.01", "--store", "mine.db")
    assert (status, out) == (0, "")
    assert err.startswith("runs@")
    assert ": 6 of 6 trials are in the store: fairtrial verdict runs@" in err
    label = err.split("verdict ")[1].split()[0]
    verdict = ft.open_results(label, store="mine.db").verdict()
    there = ft.judge_runs("runs.csv", **ASKED, margin=0.01)
    assert verdict.data.comparisons == there.data.comparisons
    assert "6 runs of runs.csv, made elsewhere" in "\n".join(verdict.data.alerts)
    assert not verdict.data.set_beforehand
    for words in (
        ["ls"],
        ["show", label],
        ["verdict", label],
        ["table", label],
        ["export", label],
        ["failures", label],
    ):
        assert command(*words, "--store", "mine.db")[0] == 0
    assert command("plot", label, "--store", "mine.db")[0] == 0
    status, out, err = command("import", "runs.csv", *OPTIONS, "--margin=0.01", "--store", "mine.db")  # once more
    assert status == 0
    assert len(ft.list_studies("mine.db")) == 1
    assert command("run", label, "--store", "mine.db")[0] == 0  # nothing is missing


def test_nothing_is_imported_if_something_is_wrong(command):
    with Path("runs.csv").open("a") as file:
        file.write("slow,2,3,oops\n")
    status, out, err = command("import", "runs.csv", *OPTIONS, "--store", "mine.db")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert not Path("mine.db").exists()


def mine(**arms):
    return simulated_study(arms or {"usual": {}, "slow": {"mean": 0.7}}, seeds=5, evidence={"metric": "final_test_acc"})


def test_a_study_of_ones_own_trains_only_what_is_missing():
    study = mine()
    columns = {key: ASKED[key] for key in ("arm", "seed", "epoch")}
    runs = ft.extend_study(study, pd.DataFrame(ROWS), store="mine.db", **columns)
    assert len(runs.results) == 6
    went_on = ft.run(study, store="mine.db", executor=executor())
    assert (went_on.trained, len(went_on.results)) == (4, 10)
    alerts = went_on.verdict().data.alerts
    assert [line for line in alerts if line.startswith("6 of 10 trials were imported from the data frame")]
    assert ft.extend_study(study, pd.DataFrame(ROWS), store="mine.db", **columns).count(ft.Outcome.FINISHED) == 10


def test_a_run_that_contradicts_a_trial_is_refused():
    study = mine()
    before = ft.run(study, store="mine.db", executor=executor())
    with pytest.raises(FairtrialError) as error:
        ft.extend_study(study, pd.DataFrame(ROWS), store="mine.db", arm="optimizer", seed="seed", epoch="epoch")
    assert "the store has other results of 6 of these trials (usual at seed 0, usual at seed 1" in str(error.value)
    assert ft.open_results(study, store="mine.db").digest() == before.digest()


def test_arms_are_known_by_label_or_by_the_key_in_which_they_differ():
    table = mine().to_dict()
    table["arms"]["slow"] = {"label": "rather slow", "params": {"mean": 0.70}}
    table["arms"]["usual"]["params"] = {"mean": 0.8}
    study = Study.from_dict(table)
    for labels in ({"slow": "rather slow", "usual": "usual"}, {"slow": "0.7", "usual": "8e-1"}):
        rows = pd.DataFrame(ROWS).replace({"optimizer": labels})
        runs = ft.extend_study(study, rows, store=f"{labels['usual']}.db", arm="optimizer", seed="seed", epoch="epoch")
        assert {run.arm for run in runs.results} == {"usual", "slow"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"optimizer": "other"}, 'has no arm "other"; known: '),
        ({"seed": 7}, "seed 7 of usual is none of simulated@"),
        ({"epoch": 1}, "several values of one run (usual, seed 0, epoch 1: 0.6 in row 1 and 0.7 in row 2)"),
        ({"test_acc": 45.0}, "usual, seed 0: test_acc = 45 in epoch 1: must be a fraction, from 0 to 1; write 0.45"),
    ],
    ids=range(4),
)
def test_runs_that_are_none_of_the_studys_are_refused(change, line):
    with pytest.raises(RunsError) as error:
        ft.extend_study(
            mine(),
            pd.DataFrame(ROWS[:3]).assign(**change),
            store="mine.db",
            arm="optimizer",
            seed="seed",
            epoch="epoch",
        )
    assert line in str(error.value)
    assert not Path("mine.db").exists()


def test_runs_have_as_many_epochs_as_the_study_trains():
    with pytest.raises(RunsError, match=r"usual, seed 0 has 2 epochs with a value; the study trains 3"):
        ft.extend_study(
            mine(), pd.DataFrame(ROWS).query("epoch < 3"), store="m.db", arm="optimizer", seed="seed", epoch="epoch"
        )
