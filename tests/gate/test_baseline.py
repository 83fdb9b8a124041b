"""Stored baselines: what is written is read again to the bit, and nothing else is."""

import math
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairtrial.gate import baseline as baselines
from fairtrial.gate.baseline import BaselineError, read_baseline, write_baseline
from fairtrial.testing import simulated_results, simulated_study

STUDY = simulated_study({"adam": {"diverge_seeds": [1]}}, seeds=4)


@pytest.fixture
def path():
    write_baseline(Path("b.parquet"), STUDY, simulated_results(STUDY))
    return Path("b.parquet")


def test_runs_are_read_as_they_were_written(path):
    read = read_baseline(path)
    written = simulated_results(STUDY)
    for one, other in zip(read.results, written, strict=True):
        names = ("arm", "seed", "trial", "outcome", "detail", "machine", "epochs", "fingerprints")
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    assert read.head.saved <= datetime.now(UTC)
    assert read.table == {**STUDY.to_dict()}


def test_other_programs_read_the_table(path):
    frame = pd.read_parquet(path)
    assert set(frame["arm"]) == {"adam"}
    assert frame.groupby("seed")["test_acc"].last()[0] == simulated_results(STUDY)[0].epochs[-1].metrics["test_acc"]


def test_nan_and_missing_metrics_stay_apart(tmp_path):
    from dataclasses import replace

    first, *others = simulated_results(STUDY)
    record = first.epochs[0]
    odd = replace(record, metrics={**record.metrics, "grad_norm": math.nan, "seed": 3.0})
    results = (replace(first, epochs=(odd, *first.epochs[1:])), *others)
    write_baseline(tmp_path / "b.parquet", STUDY, results)
    metrics = [one.metrics for one in read_baseline(tmp_path / "b.parquet").results[0].epochs]
    assert math.isnan(metrics[0]["grad_norm"])
    assert metrics[0]["seed"] == 3.0
    assert "grad_norm" not in metrics[1]


def changed(path, **metadata):
    """Write the table again with other metadata."""
    table = pq.read_table(path)
    known = dict(table.schema.metadata) | {f"fairtrial.{key}".encode(): value for key, value in metadata.items()}
    pq.write_table(
        table.replace_schema_metadata({key: value for key, value in known.items() if value is not None}), path
    )


def head(path):
    return pq.read_schema(path).metadata[b"fairtrial.baseline"].decode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "b.parquet: can't be read: No such file"),
        (lambda path: path.write_bytes(b"PAR1 not"), "b.parquet: is no Parquet file, or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "b.parquet: is no Parquet file, or damaged"),
        (lambda path: pq.write_table(pa.table({"seed": [0]}), path), "b.parquet: is no baseline; fairtrial gate STUDY"),
        (lambda path: changed(path, baseline='{"format": 9}'), "b.parquet: was written by another release"),
        (lambda path: changed(path, baseline="[" * 100_000), "b.parquet: is damaged: its metadata"),
        (lambda path: changed(path, baseline="{}"), "b.parquet: is damaged: its metadata"),
        (lambda path: changed(path, baseline=head(path).replace('"seed":3', '"seed":4')), "is damaged or was edited"),
        (lambda path: changed(path, baseline=head(path).replace("simulate", "other")), "is damaged or was edited"),
    ],
)
def test_anything_else_is_refused_in_one_line(path, damage, message):
    damage(path)
    with pytest.raises(BaselineError, match=message) as refusal:
        read_baseline(path)
    assert "\n" not in str(refusal.value)


def test_edited_numbers_are_noticed(path):
    table = pq.read_table(path)
    column = table.schema.get_field_index("test_acc")
    better = pa.array([value + 0.1 for value in table["test_acc"].to_pylist()])
    pq.write_table(table.set_column(column, "test_acc", better), path)
    with pytest.raises(BaselineError, match="is damaged or was edited"):
        read_baseline(path)


def test_text_in_place_of_numbers_is_refused(path):
    table = pq.read_table(path)
    words = pa.array(["x"] * len(table))
    pq.write_table(table.set_column(table.schema.get_field_index("test_acc"), "test_acc", words), path)
    with pytest.raises(BaselineError, match="its records are no numbers"):
        read_baseline(path)


def test_what_is_read_is_bounded(path, monkeypatch):
    monkeypatch.setattr(baselines, "MOST_NUMBERS", 5)
    with pytest.raises(BaselineError, match="has more than 5 numbers"):
        read_baseline(path)
    monkeypatch.setattr(baselines, "MOST_BYTES", 100)
    with pytest.raises(BaselineError, match="the most that is read"):
        read_baseline(path)


def test_a_large_table_of_few_bytes_is_not_read(path):
    """A column that is one number a million times takes a few bytes in the file."""
    metadata = pq.read_schema(path).metadata
    rows = baselines.MOST_NUMBERS // 2
    table = pa.table({"seed": pa.array([0]).take(pa.array([0] * 1)), "epoch": pa.array([1])})
    table = pa.concat_tables([table] * 1).replace_schema_metadata(metadata)
    out = BytesIO()
    with pq.ParquetWriter(out, table.schema) as writer:
        for _ in range(3):
            writer.write_table(pa.table({name: pa.repeat(1, rows) for name in ("seed", "epoch")}, schema=table.schema))
    path.write_bytes(out.getvalue())
    assert path.stat().st_size < 2**20
    with pytest.raises(BaselineError, match="numbers, the most that is read"):
        read_baseline(path)
