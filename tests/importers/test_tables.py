"""Tables from files and frames."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from fairtrial.errors import RunsError
from fairtrial.importers.base import open_source
from fairtrial.importers.tables import _BLOCK

TABLE = {"optimizer": ["adam", "sgd", "sgd"], "seed": [0, 0, 1], "acc": [0.8, None, 0.75]}


def rows(source, *columns):
    """What a source has in these columns, as text."""
    tables = pa.Table.from_batches(list(source.read(columns or source.columns)))
    return [tuple(None if cell is None else str(cell) for cell in row.values()) for row in tables.to_pylist()]


EXPECTED = [("adam", "0", "0.8"), ("sgd", "0", None), ("sgd", "1", "0.75")]


def written(name):
    """Write the table as a file of a kind."""
    frame = pd.DataFrame(TABLE)
    if name.endswith(".parquet"):
        parquet.write_table(pa.table(TABLE), name)
    elif name.endswith(".jsonl"):
        frame.to_json(name, orient="records", lines=True)
    else:
        frame.to_csv(name, index=False, sep={"csv": ",", "tsv": "\t", "txt": ";"}[name.split(".")[1]])
    return name


@pytest.mark.parametrize(
    "name", ["a.csv", "a.tsv", "a.txt", "a.csv.gz", "a.parquet", "a.jsonl", "A.CSV"], ids=lambda name: name
)
def test_each_kind_of_file_has_the_same_rows(name):
    source = open_source(written(name.lower()) if name.islower() else Path(written("a.csv")).rename(name).name)
    assert source.name == name
    assert source.columns == ("optimizer", "seed", "acc")
    assert rows(source) == EXPECTED
    assert rows(source, "acc", "optimizer") == [(acc, arm) for arm, _, acc in EXPECTED]
    assert rows(source) == EXPECTED  # read anew


def test_a_data_frame_is_a_table():
    assert rows(open_source(pd.DataFrame(TABLE))) == EXPECTED
    assert rows(open_source(pa.table(TABLE))) == [("adam", "0", "0.8"), ("sgd", "0", None), ("sgd", "1", "0.75")]
    mixed = pd.DataFrame({"seed": [0, "one", None], "optimizer": pd.Categorical(["adam", "sgd", "sgd"])})
    assert rows(open_source(mixed)) == [("0", "adam"), ("one", "sgd"), (None, "sgd")]


def test_a_csv_file_may_be_quoted_and_begin_with_a_mark():
    with Path("a.csv").open("w", encoding="utf-8-sig") as file:
        file.write('"a,b";"c\td,,,"\n"x\ny";2\n')
    assert rows(open_source("a.csv")) == [("x\ny", "2")]
    assert open_source("a.csv").columns == ("a,b", "c\td,,,")


def test_nested_json_has_dotted_columns():
    with Path("a.jsonl").open("w") as file:
        file.write('{"config": {"lr": 0.1, "sizes": [1, 2]}, "ok": true}\n\n{"acc": NaN, "big": 1e999}\n')
    source = open_source("a.jsonl")
    assert source.columns == ("config.lr", "config.sizes", "ok", "acc", "big")
    assert rows(source) == [("0.1", "[1, 2]", "true", None, None), (None, None, None, "nan", "inf")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv: is empty"),
        ("a.csv", b"a,a\n1,2\n", 'a.csv: has two columns "a"; rename one'),
        ("a.csv", b"a,b\n1,2\n1\n", "a.csv: CSV parse error: Row #3: Expected 2 columns, got 1: 1"),
        ("a.csv", b"a,b\n1,\xff\xfe\n", "a.csv: is not UTF-8 text; save it as UTF-8"),
        (
            "a.csv",
            b'a,b\n"' + b"x" * 2 * _BLOCK,
            "a.csv: has a line of more than 4 MiB; is a quotation mark left open?",
        ),
        ("a.csv.gz", b"a,b\n1,2\n", "a.csv.gz: "),
        ("a.csv.gz", gzip.compress(b"a,b\n" * 9999)[:-20], "a.csv.gz: "),
        ("a.parquet", b"PAR1" + b"\0" * 99, "a.parquet: "),
        ("a.jsonl", b'{"a": 1}\n[2]\n', "a.jsonl: line 2 is no JSON object"),
        ("a.jsonl", b"[" * 99999, "a.jsonl: line 1 is no JSON"),
        ("a.jsonl", b"x" * 2 * _BLOCK, "a.jsonl: has a line of more than 4 MiB"),
        ("a.jsonl", b"\n\n", "a.jsonl: has no columns"),
    ],
    ids=range(12),
)
def test_files_that_are_no_tables_are_one_line(name, content, message):
    with Path(name).open("wb") as file:
        file.write(content)
    with pytest.raises(RunsError, match="^" + re.escape(message)) as error:
        rows(open_source(name))
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_one_line():
    os.mkfifo("pipe.csv")
    Path("folder.csv").mkdir()
    for name, reason in {
        "pipe.csv": "not a regular file",
        "folder.csv": "Is a directory",
        "no.csv": "No such file or directory",
        "a\0.csv": "can't be read; it must be ",
        "nothing": "no such file or folder; it must be ",
        7: "int: can't be read; it must be",
    }.items():
        with pytest.raises(RunsError, match=re.escape(reason)):
            open_source(name)


def test_columns_that_are_not_there_are_named_with_those_that_are():
    source = open_source(pd.DataFrame({"optimizer": [], "seed": [], "test\x1b[31m": []}))
    with pytest.raises(RunsError, match=r'^--arm "optimiser": the data frame has no such column; did you mean `opt'):
        source.check_columns(["optimiser"], "--arm")
    with pytest.raises(RunsError, match=r"no such column; its columns: `optimizer`, `seed`, `test\\u001b\[31m`$"):
        source.check_columns(["nothing"])


def test_a_large_file_is_read_in_bounded_memory():
    """A process that may take 40 MiB more than it has reads a file of 80 MiB."""
    with Path("large.csv").open("w") as file:
        file.write("arm,seed,note\n")
        for _ in range(80):
            file.write("adam,1,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n" * (2**20 // 60))
    program = """
import resource
from fairtrial.importers.base import open_source
source = open_source("large.csv")
batches = source.read(["seed"])
rows = next(batches).num_rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows += sum(batch.num_rows for batch in batches)
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 2**10)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    number, more = map(int, done.stdout.split())
    assert number == 80 * (2**20 // 60)
    assert more < 40
