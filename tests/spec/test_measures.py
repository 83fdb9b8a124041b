"""How studies name measures, and what follows from an entry."""

import sys
from pathlib import Path

import pytest

from fairtrial.errors import StudyError
from fairtrial.registry import MEASURES
from fairtrial.spec import Study
from fairtrial.spec.measures import Measure, better, find_measure, measures_of
from fairtrial.spec.metrics import METRICS, PERCENT, PLAIN, Metric
from fairtrial.trial import EpochRecord

OWN = """
from fairtrial.spec.measures import Measure
from fairtrial.spec.metrics import PERCENT

def last_f1(epochs):
    return epochs[-1].metrics["f1"]

better_f1 = Measure("better_f1", "better F1", PERCENT, "higher", last_f1)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_measures.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_measures", None)


@pytest.mark.parametrize(
    ("name", "direction"),
    {
        "test_acc": "higher",
        "best_test_acc": "higher",
        "final_top5_accuracy": "higher",
        "test_acc_at_best_val": "higher",
        "loss": "lower",
        "final_train_loss": "lower",
        "seconds": "lower",
        "best_train_seconds": "lower",
        "generalization_gap": "lower",
        "generalisation_gap": "lower",
        "epochs_to_target": "lower",
        "seconds_to_target": "lower",
        "final_error": "lower",
        "final_grad_norm": None,
        "final_lossy": None,
        "final_accent": None,
    }.items(),
)
def test_a_name_says_which_way_is_better(name, direction):
    assert better(name) == direction


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("best_test_acc", "best test accuracy"),
        ("best_train_acc", "best training accuracy"),
        ("final_val_loss", "final validation loss"),
        ("test_acc_at_best_val", "test accuracy at the best validation epoch"),
        ("seconds", "time"),
        ("final_grad_norm", "final grad norm"),
    ],
)
def test_measures_have_names_in_words(name, label):
    assert find_measure(name).label == label


def test_every_measure_of_fairtrials_own_loop_can_be_found_and_has_a_direction():
    assert None not in {better(name) for name in measures_of(METRICS)}
    assert all(find_measure(name) for name in measures_of(METRICS))


def test_measures_follow_from_metrics():
    assert {"best_grad_norm", "final_grad_norm", "epochs_to_target"} <= set(measures_of(("grad_norm",)))
    assert "test_acc_at_best_val" not in set(measures_of(("test_acc",)))
    assert "test_acc_at_best_val" in set(measures_of(METRICS))


@pytest.mark.parametrize("name", ["best_", "x", "best_a b", "finally", "final_1", "test_acc", "best_NAME "])
def test_what_is_no_measure_is_not_found(name):
    assert find_measure(name) is None


@pytest.mark.parametrize(
    ("label", "unit", "head"),
    [
        ("final test accuracy", PERCENT, ("final test", "accuracy (%)")),
        ("time", PLAIN, ("time",)),
        ("last F1", PLAIN, ("last", "F1")),
    ],
)
def test_the_head_of_a_column_follows_from_the_label(label, unit, head):
    assert Measure("x", label, unit, "higher", lambda epochs: None).head == head


@pytest.mark.usefixtures("own")
def test_a_users_own_measure_is_named_by_its_module():
    table = {"name": "s", "reference": "a", "training": {"loop": "x:y"}, "arms": {"a": {}}}
    study = Study.from_dict({**table, "evidence": {"metric": "own_measures:better_f1"}})
    assert study.evidence.larger_is_better
    record = EpochRecord("a", 0, 1, {"f1": 0.5})
    assert find_measure("own_measures:better_f1").of([record]) == 0.5
    with pytest.raises(StudyError, match=r'^evidence\.metric = "own_measures:last_f1": must be a Measure'):
        Study.from_dict({**table, "evidence": {"metric": "own_measures:last_f1"}})


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["own_measures:last_f1", "own_measures:nothing", "no_such_module:f"])
def test_what_can_not_be_imported_or_is_no_measure_is_refused(name):
    with pytest.raises(StudyError, match=name):
        find_measure(name)


def test_the_documents_table_of_measures_says_what_each_is():
    lines = MEASURES.table().splitlines()
    assert '| `"best_NAME"` | Best value over the epochs that have one' in lines[2]
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    assert MEASURES.table() in page
    assert any(line.startswith('| `"generalization_gap"` | Best training accuracy minus') for line in lines)


def test_a_declared_metric_has_the_direction_that_the_study_states():
    """Its best epoch is the lowest, then, and not the highest."""
    declared = {"regret": Metric("regret")}
    records = [EpochRecord("a", 0, epoch, {"regret": value}) for epoch, value in enumerate((3.0, 1.0, 2.0), start=1)]
    assert find_measure("best_regret", "lower", declared).of(records) == 1.0
