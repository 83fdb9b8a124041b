"""Records that become runs: arms, seeds, epochs, repeated measurements, and what is refused."""

import json
import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fairtrial.errors import RunsError
from fairtrial.importers import records
from fairtrial.importers.base import Source, open_source
from fairtrial.importers.question import Question
from fairtrial.importers.runs import collect

ASKED = {"arm": "optimizer", "seed": "seed", "measure": "acc"}


def collected(table, **asked):
    return collect(Question.of(open_source(pd.DataFrame(table)), **{**ASKED, **asked}))


def values(runs):
    """The values of each run, by arm and seed."""
    return {(run.arm, run.seed): run.values for run in runs.runs}


def refusal(table, **asked):
    """The one line with which runs are refused."""
    with pytest.raises(RunsError) as error:
        collected(table, **asked)
    assert "\n" not in str(error.value)
    return str(error.value)


TWO = {"optimizer": ["sgd", "adam", "sgd", "adam"], "seed": [1, 1, 0, 0], "acc": [0.7, 0.8, 0.71, 0.82]}


def test_a_row_is_a_run():
    runs = collected(TWO)
    assert runs.arms == ("sgd", "adam")
    assert values(runs) == {("sgd", "0"): (0.71,), ("sgd", "1"): (0.7,), ("adam", "0"): (0.82,), ("adam", "1"): (0.8,)}
    assert [run.seed for run in runs.runs] == ["0", "1", "0", "1"]


def test_several_columns_make_arms():
    table = {**TWO, "lr": [0.1, 0.001, 0.1, 0.001]}
    assert collected(table, arm="optimizer, lr").arms == ("sgd, 0.1", "adam, 0.001")
    assert collected({**table, "a,b": ["x", "y", "x", "y"]}, arm="a,b").arms == ("x", "y")


def test_seeds_that_pandas_turned_into_fractions_are_whole_numbers():
    table = {"optimizer": ["a", "a", None], "seed": [10.0, 9.0, None], "acc": [1, 2, 3]}
    runs = collected(table)
    assert [run.seed for run in runs.runs] == ["9", "10"]
    assert runs.unnamed == 1


def test_runs_are_lost_that_have_no_value():
    runs = collected({**TWO, "acc": [0.7, None, math.nan, math.inf]})
    assert [(run.values, run.ended) for run in runs.runs] == [
        ((), "failed"),
        ((0.7,), "finished"),
        ((math.inf,), "finished"),
        ((), "failed"),
    ]
    text = collected({**TWO, "acc": ["0.7", "NA", "nan", " 0.5 "]})
    assert [run.values for run in text.runs][1::2] == [(0.7,), ()]
    assert math.isnan(text.runs[0].values[0])  # NaN was written: a run that broke, not one that is missing


CURVES = {
    "optimizer": ["a"] * 6 + ["b"] * 3,
    "seed": [0, 0, 0, 1, 1, 1, 0, 0, 0],
    "epoch": [3, 1, 2, 1, 2, 3, 10, 20, 30],
    "acc": [0.3, 0.1, 0.9, 0.2, None, 0.4, 0.5, 0.6, 0.7],
}


def test_epochs_are_sorted_and_those_without_a_value_left_out():
    runs = collected(CURVES, measure="final_acc", epoch="epoch")
    assert values(runs) == {("a", "0"): (0.1, 0.9, 0.3), ("a", "1"): (0.2, 0.4), ("b", "0"): (0.5, 0.6, 0.7)}
    assert runs.runs[0].epochs == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("family", ["best", "final", "mean_last2", "mean_last_2"])
def test_a_small_memory_gives_the_same_measures(family, monkeypatch):
    """What is thinned out is what the measure does not need."""
    rng = np.random.default_rng(0)
    size = 3_000
    table = pd.DataFrame({"optimizer": rng.integers(0, 3, size), "seed": 0, "epoch": 0, "acc": rng.random(size)})
    table["epoch"] = table.groupby("optimizer").cumcount()
    batches = pa.Table.from_pandas(table.sample(frac=1.0, random_state=1)).to_batches(max_chunksize=100)
    source = Source("t", tuple(table.columns), lambda columns: (batch.select(list(columns)) for batch in batches))
    asked = {**ASKED, "measure": f"{family}_acc", "epoch": "epoch"}
    whole = collect(Question.of(source, **asked))
    monkeypatch.setattr(records, "MOST_READ", 200)
    monkeypatch.setattr(records, "MOST_KEPT", 20)
    small = collect(Question.of(source, **asked))
    assert small.thinned
    assert not whole.thinned
    assert [run.epochs[-1] for run in small.runs] == [run.epochs[-1] for run in whole.runs]
    last = whole.question.last
    for few, many in zip(small.runs, whole.runs, strict=True):
        assert few.values[-last:] == many.values[-last:] if last else max(few.values) == max(many.values)
        assert len(few.values) <= max(last, 2) < len(many.values)


def test_more_records_than_can_be_kept_are_refused(monkeypatch):
    monkeypatch.setattr(records, "MOST_READ", 4)
    assert "more than 2 records count" in refusal({**CURVES, "seed": range(9)}, measure="best_acc", epoch="epoch")


EPISODES = {
    "optimizer": ["a", "a", "a", "b", "b", "b"],
    "seed": [0, 0, 1, 0, 0, 1],
    "episode": [0, 1, 0, 0, 1, 0],
    "acc": [1.0, 3.0, 5.0, 2.0, 2.0, 4.0],
}


@pytest.mark.parametrize("group", ["episode", "rows"])
def test_repeated_measurements_of_a_run_count_once_by_their_mean(group):
    runs = collected(EPISODES, group=group)
    assert values(runs) == {("a", "0"): (2.0,), ("a", "1"): (5.0,), ("b", "0"): (2.0,), ("b", "1"): (4.0,)}


def test_repeated_measurements_may_have_epochs(monkeypatch):
    table = pd.concat([pd.DataFrame(EPISODES).assign(epoch=epoch) for epoch in range(5)])
    table["acc"] += table["epoch"]
    runs = collected(table, measure="final_acc", epoch="epoch", group="episode")
    assert values(runs)["a", "0"] == (2.0, 3.0, 4.0, 5.0, 6.0)
    monkeypatch.setattr(records, "MOST_READ", 41)
    assert values(collected(table, measure="final_acc", epoch="epoch", group="episode")) == values(runs)


def test_rows_that_contradict_each_other_are_shown_with_what_to_write():
    assert refusal(EPISODES) == (
        "the data frame: several values of one run (a, seed 0: 1 in row 1 and 3 in row 2); write --epoch and one of "
        "optimizer, seed, episode, acc if they are epochs or steps, or --group episode if rows are repeated "
        "measurements, such as episodes or folds"
    )
    twice = pd.concat([pd.DataFrame(CURVES), pd.DataFrame(CURVES).assign(acc=0.77)])
    line = refusal(twice, measure="best_acc", epoch="epoch")
    assert "a, seed 0, epoch 1: 0.1 in row 2 and 0.77 in row 11" in line
    assert "they differ in nothing that was named" in refusal({**EPISODES, "episode": 0}, group="episode")


def test_exact_repetitions_count_once():
    runs = collected(pd.concat([pd.DataFrame(TWO)] * 3))
    assert values(runs) == values(collected(TWO))
    assert runs.repeated == 8


@pytest.mark.parametrize("column", ["seed", "run_id", "Random_State", "config/seed", "fold", "data_seed"])
def test_rows_of_one_seed_are_no_runs_although_no_seed_is_named(column):
    table = {"optimizer": ["a", "b"] * 6, column: [0, 0, 1, 1, 2, 2] * 2, "acc": range(12), "episode": range(12)}
    line = refusal(table, seed=None)
    assert f'a has 6 rows and only 3 different values of "{column}"' in line
    assert f"write --seed {column}, and --group episode if they are repeated measurements" in line


def test_rows_of_one_seed_are_no_runs_although_another_column_is_named():
    table = {"optimizer": ["a", "b"] * 6, "seed": [0, 0, 1, 1, 2, 2] * 2, "acc": range(12), "episode_id": range(12)}
    assert 'a has 6 rows and only 3 different values of "seed"' in refusal(table, seed="episode_id")
    folds = {**table, "seed": range(12), "fold": [0, 0, 1, 1, 2, 2] * 2}
    assert len(collected(folds).runs) == 12


@pytest.mark.parametrize("name", ["run", "run_id"])
def test_epochs_of_several_runs_of_a_seed_are_not_those_of_one(name):
    rows = [("a", 0, "x", 10, 0.5), ("a", 0, "y", 15, 0.6), ("a", 0, "x", 20, 0.7), ("b", 0, "z", 20, 0.7)]
    table = pd.DataFrame(rows, columns=["optimizer", "seed", name, "step", "acc"])
    asked = {"measure": "final_acc", "epoch": "step"}
    line = refusal(table, **asked)
    assert f"a, seed 0 has several runs ({name} x and y); leave out all but one, or write --group {name}" in line
    assert len(collected(table, group=name, **asked).runs) == 2
    assert len(collected(table[table[name] != "y"], **asked).runs) == 2
    empty = table.assign(acc=[0.5, None, 0.7, 0.7])  # a run that logs something else
    assert values(collected(empty, **asked))["a", "0"] == (0.5, 0.7)


def test_a_run_that_failed_and_was_run_again():
    rows = [("a", 0, "x", "failed", 1, None), ("a", 0, "y", "finished", 1, 0.7), ("b", 0, "z", "failed", 1, None)]
    columns = ["optimizer", "seed", "run", "status", "step", "acc"]

    def read(*values):
        table = pd.DataFrame([(*row[:-1], value) for row, value in zip(rows, values, strict=True)], columns=columns)
        known = Source("runs", tuple(columns), open_source(table).read, run="run", epoch="step", status="status")
        return collect(Question.of(known, arm="optimizer", seed="seed", measure="final_acc"))

    runs = read(None, 0.7, None)
    assert [(run.ended, run.values) for run in runs.runs] == [("finished", (0.7,)), ("failed", ())]
    assert runs.again == 1
    with pytest.raises(RunsError, match=r"a, seed 0 has several runs \(run x and y\); leave out all but one"):
        read(0.5, 0.7, None)


def test_rows_are_runs_where_nothing_says_otherwise():
    table = {"optimizer": ["a", "b"] * 3, "seed": range(6), "acc": [1, 2, 3, 4, 5, 5]}
    assert [run.values for run in collected(table, seed=None).runs] == [(1,), (3,), (5,), (2,), (4,), (5,)]


def test_a_column_for_each_arm():
    table = {"s": [7, 8, 9], "adam": [1, 2, None], "sgd": [4, 5, 6]}
    runs = collected(table, arm=None, seed="s", wide="adam, sgd", measure="test_acc")
    assert values(runs)["sgd", "8"] == (5.0,)
    assert values(runs)["adam", "9"] == ()
    assert [run.seed for run in collected(table, arm=None, seed=None, wide=["adam", "sgd"], measure="x").runs] == [
        *"123",
        *"123",
    ]
    assert "leave --arm, --epoch and --group out" in refusal(table, wide="adam,sgd")
    assert '"acc" in row 2: "x" is not a number' in refusal(
        {**table, "adam": ["1", "x", "2"]}, arm=None, seed=None, wide="adam,sgd"
    )


def test_columns_in_which_arms_differ_beside_the_one_under_test():
    table = pd.DataFrame({"optimizer": ["a", "b"] * 6, "seed": [0, 0, 1, 1, 2, 2] * 2, "acc": np.arange(12) % 7})
    table["epoch"] = [1] * 6 + [2] * 6
    table = table.assign(lr=[0.1, 0.2] * 6, size=3, loss=range(12), host=["x", "y", "y", "x", "x", "y"] * 2)
    found = collected(table, measure="final_acc", epoch="epoch").differing
    assert found == {"lr": {"a": ("0.1",), "b": ("0.2",)}}  # neither what varies within runs nor what all share
    assert collected(table, measure="final_acc", epoch="epoch", arm="optimizer,lr").differing == {}


def test_a_measured_column_is_no_setting():
    rng = np.random.default_rng(1)
    table = {"optimizer": ["a", "b"] * 5, "seed": np.repeat(range(5), 2), "acc": rng.random(10), "loss": rng.random(10)}
    assert collected(table).differing == {}


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"arm": "optimiser"}, '--arm "optimiser": the data frame has no such column; did you mean `optimizer`?'),
        ({"seed": "x"}, '--seed "x": the data frame has no such column; its columns: `optimizer`, `seed`, `acc`'),
        ({"measure": "loss"}, '--measure "loss": the data frame has no such column'),
        ({"measure": "best_loss"}, '--measure "loss": the data frame has no such column'),
        ({"measure": "best_acc"}, '--measure "best_acc": needs the column that counts epochs'),
        ({"epoch": "seed"}, '--measure "acc": a run has one value in each seed; write final_acc, best_acc or mean'),
        ({"epoch": "seed", "measure": "best_acc"}, '--epoch "seed": is --seed too'),
        ({"measure": "seed"}, '--measure "seed": is --seed too; a column is one of the two'),
        ({"seed": None, "group": "seed"}, '--group "seed": needs the seeds too, to tell runs apart; write --seed seed'),
        (
            {"arm": None, "measure": None},
            "--arm and --measure: missing; the data frame has optimizer, seed, acc; for example: fairtrial judge 'the",
        ),
    ],
    ids=range(10),
)
def test_what_is_asked_must_be_there(asked, line):
    assert refusal(TWO, **asked).startswith(line)


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("bad", '"acc" in row 3: "bad" is not a number'),
        ("81.2%", '"acc" in row 3: "81.2%" is not a number; write it without the %'),
        ("0,81", '"acc" in row 3: "0,81" is not a number; write it with a point'),
        ("\x1b[31m1\n", '"acc" in row 3: "\\u001b[31m1" is not a number'),
        ([1, 2], '"acc" in row 3: "[1, 2]" is not a number'),
    ],
    ids=range(5),
)
def test_a_cell_that_is_no_number_is_named_with_its_row(cell, line):
    assert refusal({**TWO, "acc": [0.7, 0.8, cell, 0.9]}) == line


def test_rows_lack_nothing_that_was_named():
    assert refusal({**TWO, "seed": [1, None, 2, 3]}) == "the data frame: row 2 has no seed"
    assert "row 4 has no episode" in refusal({**EPISODES, "episode": [0, 1, 2, " ", 3, 4]}, group="episode")
    line = refusal({**CURVES, "epoch": [3, 1, None, 1, 2, 3, 1, 2, 3]}, measure="best_acc", epoch="epoch")
    assert line == 'the data frame: row 3 has a value and no finite number in "epoch"'
    assert refusal({key: [] for key in TWO}) == 'the data frame: has no row with "optimizer"'
    assert 'has no row with "optimizer"' in refusal({**TWO, "optimizer": [None] * 4})


def test_a_number_is_no_arm():
    table = {"optimizer": np.arange(20_000) / 7, "seed": 0, "acc": 1.0}
    assert '"optimizer" has too many different values' in refusal(table)


def test_what_a_source_knows_is_used():
    rows = [
        {"optimizer": "a", "run": "r1", "step": 1, "state": "finished", "acc": 0.5},
        {"optimizer": "a", "run": "r1", "step": 2, "state": "finished", "acc": 0.6},
        {"optimizer": "a", "run": "r2", "step": 1, "state": "failed", "acc": 0.4},
        {"optimizer": "b", "run": "r3", "step": 1, "state": "running", "acc": 0.7},
    ]
    batch = pa.RecordBatch.from_pylist(rows)
    source = Source(
        "t", tuple(batch.schema.names), lambda names: iter([batch.select(names)]), "run", "step", "state", settings=()
    )
    runs = collect(Question.of(source, arm="optimizer", measure="best_acc"))
    assert [(run.seed, run.values, run.ended) for run in runs.runs] == [
        ("r1", (0.5, 0.6), "finished"),
        ("r2", (0.4,), "failed"),
        ("r3", (0.7,), "running"),
    ]
    with pytest.raises(RunsError, match="write final_acc"):
        Question.of(source, arm="optimizer", measure="acc")


def test_the_digest_is_that_of_the_runs_whatever_the_order_of_rows():
    shuffled = pd.DataFrame(TWO).sample(frac=1.0, random_state=3)
    assert collected(shuffled).digest == collected(TWO).digest
    assert collected({**TWO, "acc": [0.7, 0.8, 0.71, 0.8200001]}).digest != collected(TWO).digest


def test_a_thousand_arms():
    table = {"optimizer": np.repeat([f"arm {n}" for n in range(1_000)], 3), "seed": [0, 1, 2] * 1_000, "acc": 0.5}
    assert len(collected(table).runs) == 3_000


def test_hostile_cells_stay_text_in_messages():
    table = {"optimizer": ["\x1b[2J\n"] * 2, "seed": ["\u202e"] * 2, "acc": [1, 2]}
    line = refusal(table)
    assert line.isprintable()
    assert re.search(r"\\u001b\[2J, seed \\u202e", line)
    assert json.dumps(line)
