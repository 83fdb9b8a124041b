"""What a user gets of each library's files: a verdict, beside the same numbers judged by hand with SciPy."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from scipy import stats

import fairtrial as ft
import tracked_runs as tracked
from fairtrial.cli import main as cli

SOURCES = {
    "mlflow/mlruns": ("optimizer", "test_acc"),
    "mlflow/mlflow.db#optimizers": ("optimizer", "test_acc"),
    "wandb/wandb": ("optimizer", "test_acc"),
    "tensorboard/torch": ("optimizer", "test_acc"),
    "tensorboard/folders": ("folder1", "test_acc"),
    "tensorboard/tensors": ("optimizer", "validation/epoch_accuracy"),
    "lightning/lightning_logs": ("optimizer", "test_acc"),
    "keras": ("optimizer", "val_accuracy"),
    "transformers": ("folder1", "eval_accuracy"),
}


@pytest.mark.parametrize(("family", "values"), [("final", tracked.final_values), ("best", tracked.best_values)])
@pytest.mark.parametrize("source", SOURCES)
def test_a_verdict_is_that_of_scipy(asset, source, family, values):
    arm, metric = SOURCES[source]
    library, _, rest = source.partition("/")
    view = ft.judge_runs(
        f"{asset(library)}/{rest}", arm=arm, seed="seed", measure=f"{family}_{metric}", reference="adam"
    )
    (found,) = view.data.comparisons
    by_hand = stats.ttest_rel(values("sgd"), values("adam"))
    interval = by_hand.confidence_interval(0.95)
    precision = 1e-6 if library == "tensorboard" else 1e-12  # event files have single precision
    assert found.seeds == len(tracked.SEEDS)
    assert found.interval == pytest.approx((interval.low, interval.high), abs=precision)
    assert found.p_adjusted == pytest.approx(by_hand.pvalue, rel=100 * precision)
    assert found.verdict.value == "worse"


#: Where the page's examples have their runs.
PLACES = {
    "wandb": "wandb/wandb",
    "mlruns": "mlflow/mlruns",
    "mlflow.db": "mlflow/mlflow.db",
    "runs": "tensorboard/torch",
    "lightning_logs": "lightning/lightning_logs",
    "logs": "keras",
    "outputs": "transformers",
}


@pytest.mark.parametrize("place", PLACES)
def test_the_commands_of_the_page_find_the_difference(asset, place, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text()
    words = shlex.split(re.search(rf"^    fairtrial (judge {place} .*)$", page, flags=re.MULTILINE)[1])
    library, _, rest = PLACES[place].partition("/")
    shutil.move(asset(library) / rest, tmp_path / "here")
    (tmp_path / "page").mkdir()
    shutil.move(tmp_path / "here", tmp_path / "page" / place)
    monkeypatch.chdir(tmp_path / "page")
    monkeypatch.setattr(sys, "argv", ["fairtrial", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(rf"\(`{place}`\) \| (.*) \|$", page, flags=re.MULTILINE)[1] in printed
    if place == "wandb":
        (shown,) = re.findall(r"((?:^    .*\n|\n)*)^and notes below it", page, flags=re.MULTILINE)
        assert printed.startswith(" ".join(shown.split()))


def test_the_page_says_what_scipy_says_and_which_versions_wrote_the_files():
    page = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text()
    low, high = stats.ttest_rel(tracked.final_values("sgd"), tracked.final_values("adam")).confidence_interval(0.95)
    assert f"which gives {low:.4f} to {high:.4f}" in page
    assert all(str(tracked.final_values(arm)) in page for arm in tracked.OPTIMIZERS)
    versions = json.loads((Path(__file__).parent / "assets" / "versions.json").read_text())
    named = dict(re.findall(r"^\| ([\w&]+) ([\d.]+)[, ]", page, flags=re.MULTILINE))
    libraries = {"W&B": "wandb", "MLflow": "mlflow-skinny", "Lightning": "pytorch-lightning"}
    assert len(named) == 7
    assert {name: number for name, number in named.items() if name != "Optuna"} == {
        name: versions[libraries.get(name, name.lower())] for name in named if name != "Optuna"
    }
