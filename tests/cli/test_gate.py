"""The command `gate`: exit status, summaries, and one line for each wrong option."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.usefixtures("inline")

STUDY = """
name = "mine"
reference = "adam"
seeds = { min = 3, max = 12 }
training = { loop = "fairtrial.testing:simulate", epochs = 2 }
evidence.metric = "final_test_acc"
[arms.adam]
[arms.sgd]
params.mean = 0.7
[arms.same]
params.mean = 0.8004
"""


@pytest.fixture(autouse=True)
def study():
    Path("mine.toml").write_text(STUDY)


@pytest.fixture
def fairtrial(invoke):
    """The command line, under its name."""
    return invoke


def test_worse_is_status_1_with_the_text_on_standard_output(fairtrial):
    status, out, _ = fairtrial("gate", "mine.toml", "--not-worse-than", "0.01")
    assert status == 1
    assert out.startswith("Gate failed: mine-gate@")


def test_not_worse_is_status_0_and_undecided_2(fairtrial):
    better = ["--set", "arms.sgd.params.mean=0.82"]
    assert fairtrial("gate", "mine.toml", "--not-worse-than", "0.01", *better)[0] == 0
    status, out, _ = fairtrial("gate", "mine.toml", "--not-worse-than", "0.0001", *better, "--max-seeds", "4")
    assert status == 2
    assert "Undecided: all 4 seeds of the plan were trained; about " in out


def test_summaries_go_to_files_or_one_to_standard_output(fairtrial):
    words = ("gate", "mine.toml", "--not-worse-than", "0.01")
    status, out, _ = fairtrial(*words, "--markdown", "-", "--junit", "junit.xml")
    assert status == 1
    assert out.startswith("**Gate failed: mine-gate@")
    assert ElementTree.parse("junit.xml").getroot().get("failures") == "1"
    status, out, _ = fairtrial(*words, "--markdown", "summary.md")
    assert Path("summary.md").read_text().startswith("**Gate failed")
    assert out.startswith("Gate failed")


def test_a_baseline_is_saved_and_compared_with(fairtrial):
    status, out, _ = fairtrial("gate", "mine.toml", "--save", "b.parquet", "--seeds", "5")
    assert status == 0
    assert out.startswith("b.parquet: 5 seeds of adam, digest ")
    status, out, _ = fairtrial("gate", "mine.toml", "--baseline", "b.parquet", "--not-worse-than", "0.01")
    assert status == 0
    assert out.startswith("Nothing known differs from the baseline")


REFUSED = {
    "--not-worse-than: is missing": [],
    "--not-worse-than -1.0: must be a positive number": ["--not-worse-than", "-1"],
    "--not-worse-than nan: must be a positive number": ["--not-worse-than", "nan"],
    "evidence.not_worse_than = 5: must be below 1": ["--not-worse-than", "5"],
    "--seeds: is for --save; --max-seeds limits a gate": ["--not-worse-than", "0.01", "--seeds", "3"],
    "--baseline: is not for --save, which decides nothing": ["--save", "a.parquet", "--baseline", "b.parquet"],
    "--not-worse-than: is not for --save": ["--save", "a.parquet", "--not-worse-than", "0.01"],
    "--save nowhere/a.parquet: there is no folder nowhere": ["--save", "nowhere/a.parquet"],
    "nowhere/a.md: there is no folder nowhere": ["--not-worse-than", "0.01", "--markdown", "nowhere/a.md"],
    "only one of them can go to standard output": ["--not-worse-than", "0.1", "--markdown", "-", "--junit", "-"],
    "b.parquet: can't be read: No such file": ["--not-worse-than", "0.01", "--baseline", "b.parquet"],
    "'soon' is not a duration such as 90s, 30m or 2h": ["--not-worse-than", "0.01", "--max-time", "soon"],
    "evidence.alpha = 0.6: must be below 0.5": ["--not-worse-than", "0.01", "--alpha", "0.6"],
    "No such option: --margin": ["--margin", "0.01"],
    "--arm: is for a table of runs, and mine.toml is a study": ["--not-worse-than", "0.01", "--arm", "optimizer"],
    "Invalid value for '--max-seeds'": ["--not-worse-than", "0.01", "--max-seeds", "1"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_options_are_one_line_and_status_3_which_is_no_decision(fairtrial, message):
    status, out, err = fairtrial("gate", "mine.toml", *REFUSED[message])
    assert (status, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert not Path("fairtrial.db").exists()


def test_a_table_without_its_columns_is_refused(fairtrial):
    Path("runs.csv").write_text("optimizer,seed,acc\n")
    status, _, err = fairtrial("gate", "runs.csv", "--not-worse-than", "0.01")
    assert status == 3
    assert "runs.csv: a table of runs needs --arm, --measure and --reference" in err
    status, _, err = fairtrial("gate", "runs.csv", "--not-worse-than", "0.01", "--arm", "optimizer")
    assert "runs.csv: a table of runs needs --measure and --reference" in err
    status, _, err = fairtrial("gate", "runs.csv", "--not-worse-than", "0.01", "--arm", "a", "--max-time", "3m")
    assert "--max-time: is for a study, and --arm for a table of runs" in err


def test_a_table_with_a_column_for_each_arm(fairtrial):
    Path("wide.csv").write_text("seed,adam,sgd\n0,0.80,0.81\n1,0.82,0.825\n2,0.81,0.82\n3,0.80,0.805\n")
    words = ("gate", "wide.csv", "--wide", "adam,sgd", "--measure", "acc", "--not-worse-than", "0.01")
    status, out, _ = fairtrial(*words, "--seed", "seed", "--reference", "adam")
    assert status == 0
    assert "Gate passed: wide-gate@" in out
    assert "wide.csv: a table of runs needs --reference" in fairtrial(*words)[2]


@pytest.mark.slow
def test_an_error_of_the_users_own_code_is_no_decision():
    """A traceback ends a Python program with status 1, which would say that the change is worse."""
    Path("broken.py").write_text("raise RuntimeError('boom')\n")
    Path("mine.toml").write_text(STUDY.replace("fairtrial.testing:simulate", "broken:train"))
    words = [sys.executable, "-m", "fairtrial", "gate", "mine.toml", "--not-worse-than", "0.01"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "RuntimeError: boom" in done.stderr
