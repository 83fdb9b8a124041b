"""Stores that are merged: one result for each trial, nothing lost, nothing half done."""

import re
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairtrial import digest_results
from fairtrial.api import open_results
from fairtrial.errors import FairtrialError, StoreConflictError, StoreDamagedError, StoreError, StoreLockedError
from fairtrial.maintenance import merge_stores
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.trial import CHOSEN, EpochRecord, Machine, Outcome, Snapshot
from store_calls import Calls

HERE = Machine(
    {"torch": "2.12.0", "fairtrial": "0.1.0"}, "a processor", "cpu", 1, "system", code={"loops.py": "ab" * 32}
)
THERE = replace(HERE, versions=HERE.versions | {"torch": "2.13.0"}, processor="another processor")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
HOUR = timedelta(hours=1)


def train(store, trials, machine=HERE, outcome=Outcome.FINISHED, at=NOW, epochs=3, attempt="1", better=0.0, detail=""):
    """Write trials as a run would."""

    def work(writer):
        for trial in trials:
            writer.begin(trial, attempt, machine, at)
            writer.add_fingerprints(trial, attempt, {"initial_weights": f"{trial.seed:064x}"})
            for epoch in range(1, epochs + 1):
                accuracy = 0.5 + epoch / 7 + trial.seed / 100 + better + (trial.arm == "b") / 30
                metrics = {"train_loss": 1 / 3, "test_acc": accuracy, "train_seconds": float(len(machine.processor))}
                writer.add_epoch(trial, attempt, EpochRecord(trial.arm, trial.seed, epoch, metrics))
            if outcome is not None:
                writer.end(trial, attempt, outcome, detail, at, reads=["params.pace"])

    store.write(work)


def fill(place, study, trials=None, at=NOW, **options):
    """Make a store with a study, all or some of whose trials have run."""
    with SQLStore(place) as store:
        store.add_study(study, at)
        train(store, plan(study) if trials is None else trials, at=at, **options)


def results(place, study):
    with SQLStore(place, create=False) as store:
        assert store.check() == ""
        return {(one.arm, one.seed): one for one in store.results(study)}


def digest(place, study):
    return digest_results(results(place, study).values())


@pytest.fixture(params=["sqlite into sqlite", "sqlite into postgresql", "postgresql into sqlite"])
def places(request):
    """Two stores that do not exist yet, the source and the target, on each kind of database."""
    source, target = request.param.split(" into ")
    return [
        request.getfixturevalue("postgresql") if kind == "postgresql" else name
        for kind, name in ((source, "source.db"), (target, "target.db"))
    ]


def test_what_only_the_source_has_is_copied_with_all_that_belongs_to_it(places, make_study):
    source, target = places
    study, other = make_study(seeds=3), make_study(name="other", arms={"a": {}, "c": {"params": {"pace": 3}}})
    fill(source, study, plan(study)[:4], machine=THERE)
    fill(target, other)
    with SQLStore(source) as store:
        train(store, plan(study)[4:5], outcome=None, epochs=2)
        train(store, plan(study)[5:], outcome=Outcome.DIVERGED, detail="train_loss is nan", epochs=1)
        before, there = store.results(study), store.studies()
    (merged,) = merge_stores(source, store=target)
    assert (merged.studies, merged.added, merged.known) == (1, 4, 2)  # both arms a of two seeds are the same trials
    with SQLStore(target, create=False) as store:
        assert store.check() == ""
        copied = store.results(study)
        assert [one for one in store.studies() if one.name == "small"] == there
        assert len(store.results(other)) == 4
    assert digest_results(copied) == digest_results(before)
    assert copied[1:2] + copied[3:] == before[1:2] + before[3:]  # times, machines, reads and all
    assert copied[4].outcome is None
    (again,) = merge_stores(source, store=target)
    assert (again.studies, again.added, again.known, again.taken, again.left) == (0, 0, 6, 0, 0)
    with SQLStore(source, create=False) as store:
        assert store.results(study) == before


def test_a_store_that_is_not_there_yet_is_made(places, make_study):
    study = make_study()
    fill(places[0], study)
    merge_stores(places[0], store=places[1])
    assert digest(places[1], study) == digest(places[0], study)
    with SQLStore(places[1]) as store:  # new stages get numbers of their own
        store.add_study(make_study(evidence={"margin": 0.01}), NOW + HOUR)
        assert store.check() == ""
        assert store.history(study).asked[1].evidence["margin"] == 0.01


@pytest.mark.parametrize("loser", [Outcome.FAILED, None, "not begun"])
def test_a_final_result_wins_over_none_whichever_store_has_it(loser, make_study):
    study = make_study()
    first, *others = plan(study)
    for place, outcome in (("with.db", Outcome.FINISHED), ("without.db", loser)):
        fill(place, study, others)
        if outcome != "not begun":
            with SQLStore(place) as store:
                train(store, [first], outcome=outcome, epochs=3 if outcome is Outcome.FINISHED else 2, attempt="2")
    merge_stores("with.db", store="empty.db")
    whole = digest("with.db", study)
    for source, target, counts in (("without.db", "empty.db", (0, 1)), ("with.db", "without.db", (1, 0))):
        (merged,) = merge_stores(source, store=target)
        assert digest(target, study) == whole
        assert (merged.taken, merged.left) == ((0, 0) if loser == "not begun" else counts)
        assert merged.added == (loser == "not begun" and target == "without.db")


def test_the_same_result_is_kept_once_whatever_its_times_and_its_machine(make_study):
    study = make_study()
    fill("ours.db", study)
    fill("theirs.db", study, machine=THERE, at=NOW + HOUR, attempt="2")
    (merged,) = merge_stores("theirs.db", store="ours.db")
    assert (merged.added, merged.known, merged.chosen) == (0, 4, 0)
    merge_stores("ours.db", store="theirs.db")
    for place in ("ours.db", "theirs.db"):  # of equal results, those that ended first
        assert all(one.machine == HERE for one in results(place, study).values())


def contradicting(study, **options):
    """Two stores with different results of one trial."""
    *same, last = plan(study)
    for place in ("ours.db", "theirs.db"):
        fill(place, study, same)
    with SQLStore("ours.db") as ours, SQLStore("theirs.db") as theirs:
        train(ours, [last])
        train(theirs, [last], **{"machine": THERE, "better": 1e-15} | options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {},
            " in theirs.db (torch 2.12.0 and 2.13.0, processor a processor and another processor)",
        ),
        ({"better": 0, "epochs": 2}, "b, seed 1: 3 epochs here, 2 in theirs.db ("),
        ({"outcome": Outcome.DIVERGED}, "b, seed 1: finished here, diverged in theirs.db ("),
        ({"machine": HERE}, "(both with fairtrial 0.1.0, torch 2.12.0, threads 1, processor a processor)"),
    ],
)
def test_contradictions_are_refused_and_shown_and_nothing_is_written(options, said, make_study):
    study = make_study()
    contradicting(study, **options)
    with SQLStore("theirs.db") as store:  # what could be merged is not, either
        store.add_study(make_study(name="another", seeds=4), NOW)
    before = Path("ours.db").read_bytes()
    with pytest.raises(StoreConflictError) as caught:
        merge_stores("theirs.db", store="ours.db")
    (line,) = caught.value.conflicts
    assert said in line
    if not options:
        values = re.match(r"b, seed 1: test_acc after epoch 1 is ([\d.]+) here, ([\d.]+) in theirs.db", line)
        assert 0 < abs(float(values[1]) - float(values[2])) < 1e-14
    assert str(caught.value).startswith("theirs.db contradicts the store, so nothing was merged: b, seed 1: ")
    assert "\n" not in str(caught.value)
    assert Path("ours.db").read_bytes() == before


@pytest.mark.parametrize("keep", ["ours", "theirs"])
def test_which_result_to_keep_can_be_said_and_verdicts_say_it_first(keep, make_study):
    study = make_study(seeds=3)
    contradicting(study)
    digests = {"ours": digest("ours.db", study), "theirs": digest("theirs.db", study)}
    (merged,) = merge_stores("theirs.db", store="ours.db", keep=keep)
    assert (merged.chosen, merged.known) == (1, 6)
    assert digest("ours.db", study) == digests[keep]
    assert results("ours.db", study)["b", 2].forced == f"{CHOSEN} (--keep {keep}, merged from theirs.db)"
    verdict = open_results(study, store="ours.db").verdict()
    said = "Two stores had different results of 1 trial (b seed 2); merge --keep chose one."
    assert verdict.data.alerts[0] == said
    assert said in " ".join(verdict.text().split())
    assert not any("under other conditions" in one for one in verdict.data.caveats)
    merge_stores("ours.db", store="third.db")
    merge_stores("third.db", store="fourth.db")
    assert open_results(study, store="fourth.db").verdict().data.alerts[0] == said


def test_verdicts_on_trials_of_two_machines_say_so_first(make_study):
    study = make_study(seeds=4)
    trials = plan(study)
    fill("ours.db", study, trials[:4])
    fill("theirs.db", study, trials[4:], machine=THERE)
    assert open_results(study, store="ours.db").verdict().data.alerts == ()
    merge_stores("theirs.db", store="ours.db")
    (alert,) = open_results(study, store="ours.db").verdict().data.alerts
    assert alert == (
        "Not one set of conditions, which can change numbers: torch 2.12.0 (seeds 0 and 1), 2.13.0 (seeds 2 and 3); "
        "processor a processor (seeds 0 and 1), another processor (seeds 2 and 3)."
    )


def test_an_arm_from_another_machine_is_named(make_study):
    study = make_study(seeds=2)
    trials = plan(study)
    fill("ours.db", study, [one for one in trials if one.arm == "a"])
    fill("theirs.db", study, [one for one in trials if one.arm == "b"], machine=replace(HERE, threads=4))
    merge_stores("theirs.db", store="ours.db")
    (alert,) = open_results(study, store="ours.db").verdict().data.alerts
    assert alert.endswith(": threads 1 (a seeds 0 and 1), 4 (b seeds 0 and 1).")


STATES = [Outcome.FINISHED, Outcome.FAILED, None, "not begun"]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    states=st.lists(st.permutations([Outcome.FINISHED, *STATES]), min_size=6, max_size=6),
    larger=st.lists(st.booleans(), min_size=3, max_size=3),
    order=st.permutations("abc"),
)
def test_any_split_of_a_store_merges_to_the_whole_in_any_order(states, larger, order, make_study, tmp_path_factory):
    """Of three parts, each trial has finished in one or two, and has failed, is unfinished or unknown in others."""
    folder = tmp_path_factory.mktemp("split")
    study, more = make_study(seeds=2), make_study(seeds=3, evidence={"margin": 0.01})
    whole = str(folder / "whole.db")
    fill(whole, more)
    for number, name in enumerate("abc"):
        with SQLStore(str(folder / name)) as store:
            store.add_study(more if larger[number] else study, NOW + number * HOUR)
            store.add_study(more, NOW + (5 + number) * HOUR)
            for state in STATES[:3]:
                epochs = 3 if state is Outcome.FINISHED else 2
                trials = [trial for trial, each in zip(plan(more), states, strict=True) if each[number] == state]
                train(store, trials, (HERE, THERE, HERE)[number], state, epochs=epochs, attempt=f"{name} {state}")
    finished = [Outcome.FINISHED in each[:3] for each in states]
    target = str(folder / "target.db")
    for name in order:
        merge_stores(folder / name, store=target)
    merged, expected = results(target, more), results(whole, more)
    assert merged.keys() <= expected.keys()
    for (key, one), there in zip(expected.items(), finished, strict=True):
        assert not there or digest_results([merged[key]]) == digest_results([one])
        assert there or merged[key].outcome is not Outcome.FINISHED


def test_all_sources_or_none(make_study):
    study = make_study()
    contradicting(study)
    fill("fine.db", make_study(name="fine", seeds=5))
    before = Path("ours.db").read_bytes()
    with pytest.raises(StoreConflictError):
        merge_stores("fine.db", "theirs.db", store="ours.db")
    assert Path("ours.db").read_bytes() == before


def test_a_damaged_source_is_named_and_nothing_is_merged(make_study):
    study = make_study()
    for place in ("ours.db", "theirs.db"):
        fill(place, study)
    before = Path("ours.db").read_bytes()
    for change, said in (
        ("UPDATE epoch_records SET metrics = replace(metrics, '0.6', '0.7')", "the record of trial a, seed 0"),
        ("UPDATE trials SET settings = '{}' WHERE seed = 1 AND arm = 'b'", "the settings of trial b, seed 1"),
        ("DELETE FROM stages", "rows of the table stages"),
    ):
        intact = Path("theirs.db").read_bytes()
        with sqlite3.connect("theirs.db") as connection:
            connection.execute(change)
        connection.close()
        with pytest.raises(StoreDamagedError, match=rf"^the store theirs.db is damaged: .*{said}"):
            merge_stores("theirs.db", store="ours.db")
        Path("theirs.db").write_bytes(intact)
    assert Path("ours.db").read_bytes() == before


def test_a_damaged_target_is_named(make_study):
    study = make_study()
    for place in ("ours.db", "theirs.db"):
        fill(place, study)
    with sqlite3.connect("ours.db") as connection:
        connection.execute("UPDATE epoch_records SET metrics = replace(metrics, '0.6', '0.7')")
    connection.close()
    with pytest.raises(StoreDamagedError, match=r"^the store ours.db is damaged: the record of trial ., seed ."):
        merge_stores("theirs.db", store="ours.db")


def test_sources_are_opened_to_read_only(places, make_study):
    fill(places[0], make_study())
    with SQLStore(places[0], create=False) as store, pytest.raises(StoreError, match=r"(?i)read-?only"):
        store.add_study(make_study(name="another"), NOW)


def test_a_store_is_not_merged_into_itself(places, make_study):
    fill(places[0], make_study())
    if not places[0].startswith("postgresql"):
        Path("link.db").symlink_to(places[0])
        with pytest.raises(StoreError, match=r"^link.db is the store itself: name another one to merge into it$"):
            merge_stores("link.db", store=places[0])
    with pytest.raises(StoreError, match=r" is the store itself: name another one to merge into it$"):
        merge_stores(places[0], store=places[0])


def test_what_is_no_store_is_one_line_and_makes_none(make_study):
    Path("text.db").write_text("not a database at all, whatever its name says")
    for source, said in (("none.db", "no store at none.db"), ("text.db", "text.db")):
        with pytest.raises(StoreError, match=said):
            merge_stores(source, store="new.db")
    with pytest.raises(FairtrialError, match=r"^keep = 'mine': must be 'ours', 'theirs' or None$"):
        merge_stores("none.db", keep="mine")
    fill("newer.db", make_study())
    with sqlite3.connect("newer.db") as connection:
        connection.execute("UPDATE fairtrial_version SET version = 99")
    connection.close()
    with pytest.raises(StoreError, match=r"^newer.db was written by a newer fairtrial"):
        merge_stores("newer.db", store="new.db")
    assert not Path("new.db").exists()


def test_while_a_study_of_either_store_runs_nothing_is_merged(places, make_study):
    study = make_study()
    for place in places:
        fill(place, study)
    for place in places:
        said = pytest.raises(StoreLockedError, match=rf"^small@{study.hash[:8]} is being run in .*: wait for it")
        with SQLStore(place) as store, store.lock(study), said:
            merge_stores(places[0], store=places[1])
    merge_stores(places[0], store=places[1])


def test_a_study_in_both_keeps_its_first_and_its_last_run(make_study):
    study = make_study()
    fill("ours.db", study, at=NOW + HOUR)
    fill("theirs.db", study)
    with SQLStore("theirs.db") as store:
        store.add_study(study, NOW + 2 * HOUR)
    merge_stores("theirs.db", store="ours.db")
    with SQLStore("ours.db", create=False) as store:
        (stored,) = store.studies()
        assert stored.last_run == NOW + 2 * HOUR
        assert store.history(study).own.at == NOW


@pytest.mark.parametrize("others", ["s.db", "postgresql"])
def test_snapshots_come_with_the_trials_that_are_taken(make_study, request, others):
    study = make_study()
    one, two, *_ = plan(study)
    theirs = "theirs.db" if others == "s.db" else request.getfixturevalue("postgresql")
    fill(theirs, study)
    fill("ours.db", study, trials=[one])
    with SQLStore("ours.db") as ours, SQLStore(theirs) as other:
        for trial, store, eps in ((one, other, 1), (two, other, 2), (one, ours, 3)):
            Calls(store).begin(trial, "9", HERE, NOW)
            Calls(store).add_snapshot(trial, "9", Snapshot(trial.arm, trial.seed, 1, 1, {"eps_1": eps}))
            store.write(lambda writer, to=trial: end(writer, to, "9"))
    merge_stores(theirs, store="ours.db")
    with SQLStore("ours.db", create=False) as merged:
        found = merged.snapshots([one.hash, two.hash])
        assert {trial: each.overall["eps_1"] for trial, (each,) in found.items()} == {one.hash: 3, two.hash: 2}
        assert merged.check() == ""


def end(writer, trial, attempt):
    for epoch in range(1, 4):
        accuracy = 0.5 + epoch / 7 + trial.seed / 100 + (trial.arm == "b") / 30
        record = {"train_loss": 1 / 3, "test_acc": accuracy, "train_seconds": 1.0}
        writer.add_epoch(trial, attempt, EpochRecord(trial.arm, trial.seed, epoch, record))
    writer.end(trial, attempt, Outcome.FINISHED, "", NOW, reads=["params.pace"])
