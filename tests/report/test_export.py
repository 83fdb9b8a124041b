"""Every epoch record and every trial, in three formats."""

import csv
import io
import json
import math
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fairtrial
from builders import MACHINE, learning, make_results, make_study
from fairtrial.errors import ReportError
from fairtrial.report.export import export
from fairtrial.spec import Study
from fairtrial.trial import Outcome, Snapshot

LEARNED = ["train_loss", "train_acc", "test_loss", "test_acc", "train_seconds", "eval_seconds"]
HEAD = ["study", "hash", "arm", "seed", "epoch"]


def rows(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


def odd_results(study):
    """Metrics of a user's own, one that is missing now and then, NaN and the infinities."""

    def curve(arm, seed, epoch):
        metrics = {"zeta": 1.0, "alpha": -math.inf, "train_loss": math.nan if epoch == 2 else math.inf}
        return metrics if epoch == 1 else metrics | {"test_acc": 0.1 + 0.2}

    return make_results(study, curve, ended={(study.arms[0].name, 0): Outcome.DIVERGED}, skip={("b", 1)})


def test_every_record_in_order_whatever_the_order_of_the_results():
    study = make_study(("b", "a"), seeds=2, epochs=3)
    content = rows(export(study, make_results(study)[::-1], "csv"))
    assert list(content[0]) == [*HEAD, *LEARNED, "outcome"]
    keys = [(row["arm"], int(row["seed"]), int(row["epoch"])) for row in content]
    assert keys == [(arm, seed, epoch) for arm in "ba" for seed in range(2) for epoch in (1, 2, 3)]
    for row, key in zip(content, keys, strict=True):
        assert {metric: float(row[metric]) for metric in LEARNED} == learning(*key)
        assert (row["study"], row["hash"], row["outcome"]) == ("made_up", study.hash, "finished")


def test_the_metrics_of_a_users_own_come_last_and_sorted():
    study = make_study(("a",), seeds=1)
    own = ["alpha", "beta", "delta", "eta", "gamma", "zeta"]
    results = make_results(study, lambda arm, seed, epoch: dict.fromkeys([*own[::-1], "test_acc", "train_loss"], 1.0))
    assert list(rows(export(study, results, "csv"))[0]) == [*HEAD, "train_loss", "test_acc", *own, "outcome"]


def test_csv_tells_what_is_missing_from_what_is_no_number():
    study = make_study(("a", "b"), seeds=2, epochs=2)
    content = rows(export(study, odd_results(study), "csv"))
    assert [row["train_loss"] for row in content] == ["inf", "inf", "nan", "inf", "nan"]
    assert {row["alpha"] for row in content} == {"-inf"}
    assert [row["test_acc"] for row in content] == ["", "", "0.30000000000000004", "", "0.30000000000000004"]


def test_json_has_null_for_what_json_has_no_word_for():
    study = make_study(("a", "b"), seeds=2, epochs=2)
    content = json.loads(
        export(study, odd_results(study), "json"), parse_constant=lambda constant: pytest.fail(f"{constant} in JSON")
    )
    assert len(content) == 1 + 2 + 2
    assert list(content[0]) == [*HEAD, "train_loss", "test_acc", "alpha", "zeta", "outcome"]
    assert content[0] | {"hash": ""} == {
        "study": "made_up",
        "hash": "",
        "arm": "a",
        "seed": 0,
        "epoch": 1,
        "train_loss": None,
        "test_acc": None,
        "alpha": None,
        "zeta": 1.0,
        "outcome": "diverged",
    }


def test_parquet_keeps_types_nan_and_gaps_and_holds_the_study():
    study = make_study(("a", "b"), seeds=2, epochs=2)
    content = export(study, odd_results(study), "parquet")
    table = pq.read_table(io.BytesIO(content))
    types = dict(zip(table.column_names, map(str, table.schema.types), strict=True))
    floats = dict.fromkeys(["train_loss", "test_acc", "alpha", "zeta"], "double")
    strings = dict.fromkeys(["study", "hash", "arm", "outcome"], "string")
    assert types == floats | strings | {"seed": "int64", "epoch": "int64"}
    losses = table.column("train_loss").to_pylist()
    assert losses[1] == math.inf
    assert math.isnan(losses[2])
    assert table.column("test_acc").to_pylist() == [None, None, 0.1 + 0.2, None, 0.1 + 0.2]
    metadata = table.schema.metadata
    assert Study.from_toml(metadata[b"fairtrial.study"].decode()) == study
    assert metadata[b"fairtrial.version"].decode() == fairtrial.__version__


@pytest.mark.parametrize("name", ["csv", "json", "parquet"])
def test_pandas_reads_every_format(tmp_path, name):
    import pandas

    study = make_study(("a", "b"), seeds=2, epochs=2)
    path = tmp_path / f"records.{name}"
    export(study, odd_results(study), name, path)
    frame = getattr(pandas, f"read_{name}")(path)
    assert frame.shape == (5, len(HEAD) + 5)
    assert frame["test_acc"].isna().tolist() == [True, True, False, True, False]
    assert frame["test_acc"][2] == pytest.approx(0.3)
    if name != "json":
        assert frame["train_loss"][1] == math.inf
        assert math.isnan(frame["train_loss"][2])


def test_an_interrupted_trial_has_no_outcome():
    study = make_study(("a",), seeds=1)
    results = make_results(study, ended={("a", 0): None})
    assert {row["outcome"] for row in rows(export(study, results, "csv"))} == {""}
    assert {row["outcome"] for row in json.loads(export(study, results, "json"))} == {None}


def test_a_metric_that_is_called_like_a_column_overwrites_nothing():
    study = make_study(("a",), seeds=1, epochs=1)
    results = make_results(study, lambda arm, seed, epoch: {"seed": 7.0, "outcome": 8.0})
    (row,) = json.loads(export(study, results, "json"))
    assert (row["seed"], row["outcome"]) == (0, "finished")
    assert (row["metrics.seed"], row["metrics.outcome"]) == (7.0, 8.0)


@pytest.mark.parametrize("name", ["csv", "json", "parquet"])
def test_a_study_without_records_is_an_empty_table_and_the_file_is_what_is_returned(tmp_path, name):
    path = tmp_path / f"records.{name}"
    content = export(make_study(("a",)), [], name, path)
    assert path.read_bytes() == content
    empty = {
        "csv": b"study,hash,arm,seed,epoch,outcome\n",
        "json": b"[]\n",
    }
    if name in empty:
        assert content == empty[name]
    else:
        table = pq.read_table(path)
        assert (table.column_names, table.num_rows) == ([*HEAD, "outcome"], 0)


def test_errors_are_one_line(tmp_path):
    study = make_study(("a",))
    with pytest.raises(ReportError, match=r'"xlsx": must be one of csv, parquet, json$'):
        export(study, [], "xlsx")
    with pytest.raises(ReportError, match=r"can't be written: No such file or directory$"):
        export(study, [], "csv", tmp_path / "missing" / "records.csv")


def test_a_row_for_each_trial_has_its_outcome_settings_machine_and_code():
    arms = {"a": {}, "b": {"params": {"x": True}}, "c": {"optimizer": {"name": "sgd", "lr": 1}, "params": {"x": [1]}}}
    study = make_study(arms, seeds=2, training={"loop": "mine:train"})
    ended = {("b", 0): Outcome.FAILED, ("b", 1): Outcome.DIVERGED, ("c", 0): None}
    code = {"mine.py": "1f2e", "library": "3.1"}
    machine = replace(MACHINE, code=code)
    results = [replace(result, machine=machine) for result in make_results(study, ended=ended, skip={("c", 1)})]
    table = json.loads(export(study, results[::-1], "json", rows="trials"))
    assert [(row["arm"], row["seed"], row["outcome"], row["epochs"]) for row in table] == [
        ("a", 0, "finished", 4),
        ("a", 1, "finished", 4),
        ("b", 0, "failed", 2),
        ("b", 1, "diverged", 2),
        ("c", 0, None, 2),
    ]
    failed = table[2]
    (result,) = (one for one in results if (one.arm, one.seed) == ("b", 0))
    assert (failed["detail"], failed["trial"], failed["hash"]) == (
        "what failed means",
        result.trial,
        study.hash,
    )
    assert (table[4]["ended"], failed["ended"]) == (None, result.ended.isoformat())
    assert {key: value for key, value in failed.items() if key.startswith("machine.code.")} == {
        f"machine.code.{name}": digest for name, digest in code.items()
    }
    assert failed["machine.processor"] == MACHINE.processor
    assert [row["optimizer.betas"] for row in table[::2]] == [[0.9, 0.999], [0.9, 0.999], None]
    assert [row["params.x"] for row in table[::2]] == [None, True, [1]]
    assert {tuple(row) for row in table} == {tuple(table[0])}


def test_columns_of_trials_have_one_type_each_in_parquet_and_csv(tmp_path):
    arms = {"a": {"params": {"x": 1, "y": 1, "z": True}}, "b": {"params": {"x": "one", "y": 1.5, "z": False}}}
    study = make_study(arms, seeds=1, training={"loop": "mine:train"})
    results = make_results(study)
    export(study, results, "parquet", tmp_path / "trials.parquet", rows="trials")
    table = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert [(row["params.x"], row["params.y"], row["params.z"]) for row in table] == [
        ("1", 1.0, True),
        ("one", 1.5, False),
    ]
    assert [row["params.x"] for row in rows(export(study, results, "csv", rows="trials"))] == ["1", "one"]
    assert rows(export(study, [], "csv", rows="trials")) == []


def test_there_are_rows_of_three_kinds():
    study = make_study(("a",))
    with pytest.raises(ReportError, match=r'^rows = "seeds": must be one of epochs, trials, snapshots$'):
        export(study, [], "csv", rows="seeds")


def with_snapshots(study):
    """Results of which the first has two snapshots."""
    first, *others = make_results(study)
    parts = {"linear": {"eps_1": 0.25}}, {"=0.weight": {"eps_1": 0.5, "update": math.inf}}
    taken = (Snapshot(first.arm, first.seed, 1, 1, {"eps_1": 0.125}, *parts, ("no cosine", "no update")),)
    taken += (Snapshot(first.arm, first.seed, 2, 8, {"update": math.nan}),)
    return [replace(first, snapshots=taken), *others]


def test_each_part_of_a_snapshot_is_a_row():
    study = make_study(("a", "b"))
    rows = json.loads(export(study, with_snapshots(study), "json", rows="snapshots"))
    head = {"study": study.name, "hash": study.hash, "arm": "a", "seed": 0, "epoch": 1, "step": 1}
    assert rows[0] == head | {
        "scope": "overall",
        "part": None,
        "eps_1": 0.125,
        "update": None,
        "notes": "no cosine; no update",
    }
    assert [(row["step"], row["scope"], row["part"]) for row in rows] == [
        (1, "overall", None),
        (1, "kind", "linear"),
        (1, "tensor", "=0.weight"),
        (8, "overall", None),
    ]
    table = pq.read_table(io.BytesIO(export(study, with_snapshots(study), "parquet", rows="snapshots")))
    assert table.schema.field("step").type == pa.int64()
    assert table.column("update").to_pylist()[2] == math.inf
    text = export(study, with_snapshots(study), "csv", rows="snapshots").decode()
    assert "'=0.weight" in text


def test_without_snapshots_there_are_no_rows():
    study = make_study(("a",))
    assert json.loads(export(study, make_results(study), "json", rows="snapshots")) == []
    assert export(study, make_results(study), "csv", rows="snapshots").decode().startswith("study,hash,arm,seed,epoch")
