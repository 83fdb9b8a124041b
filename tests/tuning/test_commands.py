"""Tuning on the command line: what it costs, what was found, and commands that find the tuned study by its file."""

import sys
from pathlib import Path

import pytest

from fairtrial.cli import main as cli

STUDY = """
name = "t"
reference = "low"
seeds = 2
training = { loop = "fairtrial.testing:simulate", epochs = 1 }
evidence = { metric = "final_test_acc", margin = 0.01 }
[tuning]
trials = 3
space.optimizer.lr = { log = [1e-5, 1e-1] }
[arms.low]
params.best_lr = 1e-4
[arms.high]
label = "High rates"
params.best_lr = 1e-2
"""


@pytest.fixture
def fairtrial(monkeypatch, capsys):
    """Run a command, and return its status, output and messages, in one line each."""
    Path("t.toml").write_text(STUDY)

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["fairtrial", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code or 0, " ".join(out.split()), " ".join(err.split())

    return command


def test_a_study_is_planned_tuned_compared_and_found_again(fairtrial):
    code, out, _ = fairtrial("plan", "t.toml")
    assert (code, "10 trials, 0 done, 10 to train" in out) == (0, True)
    assert "tuning: 6 of these trials try 3 values of each arm" in out

    code, _, err = fairtrial("verdict", "t.toml")  # there is no store yet
    assert code != 0

    code, out, err = fairtrial("run", "t.toml", "--executor", "inline")
    assert code == 0
    assert "tuned low: optimizer.lr = " in err
    assert "Each arm was tuned by final_val_acc, on the validation split: 3 values of each (tpe)" in out
    assert "High rates to optimizer.lr = " in out
    assert "The learning rate was" not in out
    label = out.split(":", maxsplit=1)[0].split()[-1]
    assert f"figures: fairtrial plot {label}" in err

    assert fairtrial("digest", "t.toml")[:2] == fairtrial("digest", label)[:2] == fairtrial("digest", "t")[:2]
    assert "found" in fairtrial("show", "t")[1]
    code, out, _ = fairtrial("plan", "t.toml")
    assert "4 trials, 4 done, 0 to train" in out

    code, out, err = fairtrial("run", "t.toml", "--set", "seeds=3", "--executor", "inline")
    assert (code, "t-tuning-1" in err) == (0, False)
    assert "6 trials, 4 already done" in err

    code, out, err = fairtrial("run", "t.toml", "--confirm", "--executor", "inline")
    assert (code, "t-confirmation" in err) == (0, True)


def test_results_of_a_study_that_is_not_tuned_yet_are_an_error_in_a_line(fairtrial):
    fairtrial("run", "quick", "--set", "training.loop=fairtrial.testing:simulate", "--executor", "inline")
    code, _, err = fairtrial("verdict", "t.toml")
    assert (code, "has not been tuned to the end in this store: run it first" in err) == (2, True)
