"""Tables: what is predicted from what, scaling against scikit-learn's, and cells that can't be read."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.preprocessing import StandardScaler

from fairtrial.errors import DataError, StudyError
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import datasets, loop, prepare
from fairtrial.training.datasets import table
from fairtrial.training.datasets.table import Table
from fairtrial.trial import TrialContext

RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "rooms": RANDOM.integers(1, 9, 100),
        "area": RANDOM.normal(80, 20, 100),
        "town": RANDOM.choice(["Köln", "Bonn"], 100),
        "new": RANDOM.random(100) < 0.5,
        "price": RANDOM.normal(300, 50, 100),
        "kind": RANDOM.choice(["house", "flat", "hut"], 100),
        "fold": ["test" if row % 5 == 0 else "train" for row in range(100)],
    }
)


@pytest.fixture(params=["csv", "tsv", "parquet"])
def path(request, tmp_path):
    """The same table in each format."""
    path = tmp_path / f"houses.{request.param}"
    if request.param == "parquet":
        FRAME.to_parquet(path)
    else:
        FRAME.to_csv(path, index=False, sep="\t" if request.param == "tsv" else ",")
    return str(path)


def written(folder, text):
    (folder / "t.csv").write_text(text)
    return str(folder / "t.csv")


def test_regression_is_standardized_by_the_training_rows(path):
    settings = Table(path=path, target="price", task="regression", drop=["kind"], split_column="fold")
    dataset = datasets.load(settings)
    inputs = np.column_stack(
        [FRAME.rooms, FRAME.area, FRAME.town == "Bonn", FRAME.town == "Köln", FRAME.new, FRAME.price]
    ).astype(float)
    train, test = inputs[FRAME.fold == "train"], inputs[FRAME.fold == "test"]
    scaler = StandardScaler().fit(train)
    for part, expected in ((dataset.train, train), (dataset.test, test)):
        scaled = scaler.transform(expected)
        np.testing.assert_allclose(part.images, scaled[:, :5], atol=1e-5)
        np.testing.assert_allclose(part.labels, scaled[:, 5:], atol=1e-5)
    assert (dataset.classes, dataset.channels, dataset.image_size, dataset.has_images) == (1, 5, 1, False)


def test_classes_of_texts_in_their_order(path):
    settings = Table(path=path, target="kind", features=["rooms", "area"], standardize=False, split_column="fold")
    dataset = datasets.load(settings)
    train = FRAME[FRAME.fold == "train"]
    np.testing.assert_array_equal(dataset.train.images, train[["rooms", "area"]].to_numpy(np.float32))
    expected = train.kind.map({"flat": 0, "house": 1, "hut": 2})
    np.testing.assert_array_equal(dataset.train.labels, expected)
    assert dataset.classes == 3


def test_several_targets(path):
    dataset = datasets.load(Table(path=path, target=["price", "area"], task="regression", features=["rooms"]))
    assert (dataset.classes, dataset.channels, len(dataset.train), len(dataset.test)) == (2, 1, 80, 20)


LINEAR = '''
from fairtrial import ModelSettings


class Linear(ModelSettings):
    """One linear layer."""

    def build(self, *, classes, image_size, channels, seed):
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.nn.Linear(channels, classes)
'''


def test_a_linear_model_learns_to_predict(tmp_path, monkeypatch):
    """R2 of the test rows rises to that of least squares."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_linear.py").write_text(LINEAR)
    inputs = RANDOM.normal(size=(400, 3))
    frame = pd.DataFrame(inputs, columns=list("abc")).assign(y=inputs @ [3, -2, 1] + 7 + RANDOM.normal(0, 1, 400))
    frame.to_csv("t.csv", index=False)
    study = Study(
        name="s",
        reference="a",
        data={"name": "table", "path": "t.csv", "target": "y", "task": "regression", "validation": 40},
        model={"name": "my_linear:Linear"},
        training={"epochs": 8, "batch_size": 20},
        optimizer={"lr": 0.05},
        evidence={"metric": "final_test_r2"},
        arms={"a": {}},
    )
    (dataset,) = prepare.prepare(study)
    (trial,) = plan(study)
    records = list(loop.train(TrialContext(trial)))
    assert set(records[0]) == set(study.settings.recorded)
    assert "val_r2" in records[0]
    x, y = (np.asarray(one) for one in (dataset.test.images, dataset.test.labels))
    design = np.column_stack([np.asarray(dataset.train.images), np.ones(len(dataset.train))])
    weights = np.linalg.lstsq(design, np.asarray(dataset.train.labels), rcond=None)[0]
    best = 1 - np.square(np.column_stack([x, np.ones(len(x))]) @ weights - y).sum() / np.square(y - y.mean()).sum()
    assert records[-1]["test_r2"] == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("a,y\n1,2\n", {"target": "z"}, "has no column 'z'; known: `a`, `y`"),
        ("a,y\n1,2\n", {"target": "y", "drop": "a"}, "no column is left to predict from"),
        ("a,y\n1,2\n,3\n4,5\n", {"target": "y"}, "column 'a', row 2 is missing in 1 rows; fill it in"),
        ("a,y\n1,2\n3,\n", {"target": "y", "task": "regression"}, "column 'y', row 2 is missing"),
        ("a,y\n1,0\n2,1\n3o,1\n", {"target": "y"}, "column 'a', row 3 is '3o', where most others are numbers"),
        ("a,y\n1,0\ninf,1\n", {"target": "y"}, "column 'a', row 2 is inf"),
        ("a,y\n1,0.5\n2,1\n", {"target": "y"}, "column 'y' has numbers with a fraction; to predict them, set task"),
        ("a,y\n1,b\n2,c\n", {"target": "y", "task": "regression"}, "column 'y' has values of type .*must have numbers"),
        ("a,y\n2020-01-01,1\n2020-01-02,2\n", {"target": "y"}, "column 'a' has values of type date32"),
        (
            "a,y,f\n1,0,train\n2,1,tset\n",
            {"target": "y", "split_column": "f"},
            "column 'f', row 2 is 'tset'; it must be",
        ),
        ("a,a,y\n1,2,3\n", {"target": "y"}, "two columns are called 'a'"),
        ("a,y\n", {"target": "y"}, "has no rows"),
        ("", {"target": "y"}, "not a readable table"),
        ("a,y\n1,2\n3\n", {"target": "y"}, "not a readable table"),
        ("a,b,y\n1,2,0\n1,3,1\n", {"target": ["y", "a"]}, "has several targets"),
        ("a,\x1b[31my\n1,2\n", {"target": "y"}, r"has no column 'y'; .*"),
    ],
)
def test_cells_and_columns_that_can_not_be_used(tmp_path, text, settings, message):
    with pytest.raises(DataError, match=message) as caught:
        Table(path=written(tmp_path, text), **settings).arrays()
    assert "\n" not in str(caught.value)


def test_a_constant_target_and_a_constant_feature(tmp_path):
    rows = "".join(f"{number},{number % 2},0.1\n" for number in range(20))
    dataset = datasets.load(Table(path=written(tmp_path, "a,y,c\n" + rows), target="y"))
    assert np.array_equal(dataset.train.images[:, 1], np.zeros(16))
    with pytest.raises(DataError, match="train_labels are all 0; there is nothing to predict"):
        datasets.load(Table(path=written(tmp_path, "a,y,c\n" + rows), target="c", task="regression"))


@pytest.mark.parametrize(
    ("name", "limit", "text"),
    [
        ("MOST_COLUMNS", 3, "a,b,c,y\n1,2,3,4\n"),
        ("MOST_TEXTS", 2, "a,y\nu,0\nv,1\nw,0\n"),
        ("MOST_NUMBERS", 5, "a,b,y\n1,2,0\n1,2,1\n1,2,0\n"),
    ],
)
def test_too_many_columns_texts_and_numbers(tmp_path, monkeypatch, name, limit, text):
    monkeypatch.setattr(table, name, limit)
    with pytest.raises(DataError, match=rf"{limit:,} (columns|numbers|are allowed)"):
        Table(path=written(tmp_path, text), target="y").arrays()


def test_a_nested_column(tmp_path):
    pd.DataFrame({"a": [[1, 2], [3]], "y": [0, 1]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'a' is nested; keep one value in a cell"):
        Table(path=str(tmp_path / "t.parquet"), target="y").arrays()
    (tmp_path / "t.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"the end of its name must be \.csv, \.tsv or \.parquet"):
        Table(path=str(tmp_path / "t.xlsx"), target="y").arrays()


@pytest.mark.parametrize("target", [[], 3, ["a", "a"]])
def test_a_target_is_a_name_or_some(target):
    with pytest.raises(ValidationError, match="must be the name of a column, or a list of different ones"):
        Table(path="t.csv", target=target)


def regression(folder, monkeypatch, **table):
    monkeypatch.chdir(folder)
    FRAME.drop(columns="fold").to_csv("houses.csv", index=False)
    data = {"name": "table", "path": "houses.csv", "target": "price", "task": "regression"}
    table = {"evidence": {"metric": "final_test_r2"}, "arms": {"a": {}, "b": {"optimizer": {"lr": 0.1}}}} | table
    return Study(name="s", reference="a", data=data, **{"model": {"name": "mlp", "hidden": [4]}} | table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evidence": {}}, 'evidence.metric = "best_test_acc": the task is regression, which has no accuracy; write'),
        ({"evidence": {"metric": "final_val_r2"}}, r"is recorded only with data\.validation"),
        (
            {"evidence": {"metric": "final_test_r2", "direction": "lower"}},
            "final_test_r2 is better higher; leave it out",
        ),
        ({"evidence": {"metric": "final_test_r2", "lost_below": "chance"}}, "final_test_r2 is no accuracy"),
    ],
)
def test_measures_follow_the_task(tmp_path, monkeypatch, change, message):
    with pytest.raises(StudyError, match=message):
        regression(tmp_path, monkeypatch, **change)


def test_chance_needs_a_known_number_of_classes(tmp_path):
    path = written(tmp_path, "a,y\n1,2\n")
    table = {"name": "s", "reference": "a", "arms": {"a": {}}, "evidence": {"lost_below": "chance"}}
    data = {"name": "table", "path": path, "target": "y"}
    with pytest.raises(StudyError, match=r"needs data\.classes, the number of classes"):
        Study(**table, data=data)
    assert Study(**table, data=data | {"classes": 2}).settings.data.class_count == 2


def test_a_model_of_images_is_refused_before_any_training(tmp_path, monkeypatch):
    study = regression(tmp_path, monkeypatch, model={"name": "small_cnn"})
    with pytest.raises(StudyError, match=r'^model\.name = "small_cnn": takes images, and table has none; use another'):
        prepare.prepare(study)


def test_batches_are_checked_once_the_rows_are_counted(tmp_path, monkeypatch):
    study = regression(tmp_path, monkeypatch, training={"batch_size": 40, "evaluations_last_epoch": 3})
    with pytest.raises(StudyError, match="evaluations_last_epoch = 3: must not exceed the 2 batches of an epoch"):
        prepare.prepare(study)
