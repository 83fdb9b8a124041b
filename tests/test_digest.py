"""The digest of results: what counts, and what does not."""

import hashlib
import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fairtrial import digest_results
from fairtrial.cli import main as cli
from fairtrial.store.sql import SQLStore
from fairtrial.trial import EpochRecord, Machine, Outcome, TrialResult
from workloads import inline, run

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
METRICS = {"train_loss": 0.1 + 0.2, "test_acc": 0.5, "train_seconds": 3.0, "odd": math.inf}
ONE = TrialResult(
    arm="a",
    seed=0,
    trial="1234",
    outcome=Outcome.FINISHED,
    detail="",
    started=BEGUN,
    ended=BEGUN + timedelta(seconds=9),
    machine=Machine({"torch": "2"}, "processor", "cpu", 1, "system"),
    epochs=(EpochRecord("a", 0, 1, METRICS),),
    fingerprints={"initial_weights": "w", "final_weights": "f"},
)
TWO = replace(ONE, arm="b", trial="0123")


def metrics(**changes):
    return replace(ONE, epochs=(EpochRecord("a", 0, 1, METRICS | changes),))


COUNTS = {
    "the last bit": metrics(train_loss=0.3),
    "another metric": metrics(test_loss=1.0),
    "the outcome": replace(ONE, outcome=Outcome.DIVERGED),
    "no outcome yet": replace(ONE, outcome=None),
    "what was shared": replace(ONE, fingerprints={"initial_weights": "other", "final_weights": "f"}),
    "what came out": replace(ONE, fingerprints={"initial_weights": "w", "final_weights": "other"}),
    "a record more": replace(ONE, epochs=(*ONE.epochs, EpochRecord("a", 0, 2, METRICS))),
    "the trial": replace(ONE, trial="99"),
}
DOES_NOT_COUNT = {
    "seconds": metrics(train_seconds=4.0, eval_seconds=1.0),
    "when": replace(ONE, started=BEGUN + timedelta(days=1), ended=None),
    "where": replace(ONE, machine=Machine({"torch": "3"}, "another", "gpu", 2, "system")),
    "what it ran": replace(ONE, machine=replace(ONE.machine, code={"loop.py": "1"})),
    "what it read": replace(ONE, reads=("params.pace",)),
}


@pytest.mark.parametrize("other", COUNTS.values(), ids=COUNTS.keys())
def test_what_counts(other):
    assert digest_results([other]) != digest_results([ONE])


@pytest.mark.parametrize("other", DOES_NOT_COUNT.values(), ids=DOES_NOT_COUNT.keys())
def test_what_does_not_count(other):
    assert digest_results([other]) == digest_results([ONE])


def test_the_order_does_not_count():
    assert digest_results([ONE, TWO]) == digest_results([TWO, ONE]) != digest_results([ONE])


@pytest.mark.parametrize(("outcome", "counts"), [(Outcome.DIVERGED, True), (Outcome.FAILED, False)])
def test_what_was_seen_of_a_divergence_counts_and_the_words_about_a_failure_do_not(outcome, counts):
    first, second = (digest_results([replace(ONE, outcome=outcome, detail=detail)]) for detail in ("this", "that"))
    assert (first != second) is counts


def test_the_digest_is_that_of_sorted_json_with_floats_to_the_bit():
    table = {
        "1234": {
            "arm": "a",
            "seed": 0,
            "outcome": "finished",
            "seen": "",
            "fingerprints": {"final_weights": "f", "initial_weights": "w"},
            "epochs": [[1, {"odd": "inf", "test_acc": "0x1.0000000000000p-1", "train_loss": "0x1.3333333333334p-2"}]],
        }
    }
    content = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    assert digest_results([ONE]) == hashlib.sha256(content).hexdigest()


def test_the_command_prints_it_with_the_studys_name(make_study, monkeypatch, capsys):
    import loops

    study = make_study()
    Path("small.toml").write_text(study.to_toml())
    with SQLStore("fairtrial.db") as store:
        done = run(study, store=store, executor=inline(loops.good))
    monkeypatch.setattr("sys.argv", ["fairtrial", "digest", "small.toml"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert capsys.readouterr().out == f"{digest_results(done.results)}  {study.label}\n"
