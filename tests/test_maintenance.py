"""The commands `merge`, `rm` and `gc`: what they print, what they refuse, and what they leave alone."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import fairtrial
from fairtrial.checkpoints import CheckpointManager
from fairtrial.cli.stores import garbage_text, merged_text
from fairtrial.failpoints import STORE_POINTS
from fairtrial.maintenance import Garbage, Merged, collect_garbage, merge_stores
from fairtrial.scheduler import plan
from fairtrial.spec import override
from fairtrial.store.base import add_result
from fairtrial.store.sql import SQLStore
from fairtrial.testing import executor

STUDY = {
    "name": "mine",
    "reference": "a",
    "seeds": 2,
    "training": {"loop": "fairtrial.testing:simulate", "epochs": 2},
    "arms": {"a": {}, "b": {"params": {"mean": 0.82}}},
}


def study(*overrides):
    return fairtrial.Study.from_dict(override(STUDY, overrides))


def run(store, *overrides):
    return fairtrial.run(study(*overrides), store=store, executor=executor())


def test_merge_says_what_it_did(invoke):
    run("a.db")
    run("b.db", "seeds=3")
    run("b.db", 'name="other"', "arms.b.params.mean=0.9")
    status, out, err = invoke("merge", "a.db", "b.db")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "merged 4 trials of 1 study from a.db; none was there before",
        "merged 4 trials of 2 studies from b.db; 4 were there already",
    ]
    assert invoke("merge", "b.db") == (0, "nothing is new in b.db; 8 trials were there already\n", "")
    assert invoke("merge", "a.db", "--store", "b.db")[1] == "merged 1 study from a.db; 4 trials were there already\n"
    status, out, _ = invoke("digest", study().label, "--store", "a.db")
    assert invoke("digest", study().label)[:2] == (status, out)


def test_merge_shows_contradictions_and_ends_in_one_line(invoke):
    run("a.db")
    run("b.db")
    changed = SQLStore("c.db")
    with changed, SQLStore("b.db", create=False) as source:
        changed.add_study(study(), source.studies()[0].last_run)
        for one, trial in zip(source.results(study()), plan(study()), strict=True):
            changed.write(lambda writer, one=one, trial=trial: write(writer, trial, one))
    status, out, err = invoke("merge", "c.db", "--store", "a.db")
    assert (status, out) == (1, "")
    *shown, line = err.splitlines()
    assert len(shown) == 4
    assert all(" after epoch 2 is " in one and " in c.db (" in one for one in shown)
    assert line.startswith(
        f"fairtrial: c.db contradicts the store, so nothing was merged: {shown[0]} (and 3 more); --keep"
    )
    status, out, _ = invoke("merge", "c.db", "--store", "a.db", "--keep", "theirs")
    assert out == (
        "nothing is new in c.db; 4 trials were there already; "
        "of 4 contradicting trials the result was chosen (--keep)\n"
    )
    said = "Two stores had different results of 4 trials (seeds 0 and 1); merge --keep chose one."
    assert said in " ".join(invoke("verdict", "mine", "--store", "a.db")[1].split())
    assert invoke("merge", "c.db", "--keep", "mine")[0] == 2


def write(writer, trial, result):
    first, second = result.epochs
    second = replace(second, metrics={name: value + 1e-9 for name, value in second.metrics.items()})
    add_result(writer, trial, replace(result, epochs=(first, second)), "x")


def test_what_became_of_trials_without_a_result_is_said():
    assert merged_text(Merged("b.db", 1, 2, 3, 1, 1)) == (
        "merged 2 trials of 1 study from b.db; 3 were there already; 1 of these had no result here, and got the one "
        "from there; 1 of these has a result here alone, which stays"
    )


def test_rm_shows_what_would_go_and_removes_it_with_yes(invoke):
    run("fairtrial.db")
    run("fairtrial.db", "seeds=3", 'name="larger"')
    larger = study("seeds=3", 'name="larger"')
    before = Path("fairtrial.db").read_bytes()
    shown = (
        f"{larger.label}: 2 trials with 4 epoch records; 4 trials stay, shared with {study().label}. Its looks at "
        "these arms and seeds stay counted.\n"
    )
    status, out, err = invoke("rm", "larger")
    assert (status, out) == (1, f"would remove {shown}")
    assert err == f"fairtrial: nothing was removed; to remove it: fairtrial rm {larger.label} --yes\n"
    assert Path("fairtrial.db").read_bytes() == before
    assert invoke("rm", larger.label, "--yes") == (0, f"removed {shown}", "")
    assert larger.name not in invoke("ls")[1]
    assert invoke("verdict", "larger")[0] == 2
    assert len(fairtrial.open_results("mine").results) == 4
    assert invoke("rm", "larger", "--yes") == (
        2,
        "",
        f"fairtrial: larger: no study of this store; it has {study().label}\n",
    )


def test_a_name_of_several_studies_is_not_enough_to_remove_one(invoke):
    labels = [run("fairtrial.db", f"seeds={seeds}").study.label for seeds in (2, 3)]
    status, out, err = invoke("rm", "mine", "--yes")
    assert (status, out) == (2, "")
    assert err == f"fairtrial: mine: 2 studies have this name; name one of {labels[1]}, {labels[0]}\n"


def test_a_study_that_runs_is_not_removed_and_no_garbage_is_collected_meanwhile(invoke):
    run("fairtrial.db")
    with SQLStore("fairtrial.db") as store, store.lock(study()):
        for words in (["rm", "mine", "--yes"], ["gc"]):
            status, out, err = invoke(*words)
            assert (status, out, err.count("\n")) == (1, "", 1)
            assert err.startswith(f"fairtrial: {study().label} is being run in ")
        assert invoke("gc", "--dry-run")[0] == 0
    assert invoke("rm", "mine", "--yes")[0] == 0


def save(trial, location="fairtrial.db.checkpoints"):
    CheckpointManager(location).open(trial, lambda: False)._save({"epoch": 1, "weights": [1.0] * 100})


def saved(location="fairtrial.db.checkpoints"):
    return CheckpointManager(location).saved()


def test_rm_removes_the_checkpoints_of_its_own_trials_only(invoke):
    run("fairtrial.db")
    larger = run("fairtrial.db", "seeds=3", 'name="larger"').study
    shared, own = plan(larger)[0], plan(larger)[-1]
    for trial in (shared, own):
        save(trial)
    assert " and checkpoints of 1 trial (" in invoke("rm", "larger", "--yes")[1]
    assert saved() == {shared.hash}


def test_gc_removes_what_nobody_needs_and_nothing_else(invoke):
    unfinished = study("seeds=5")
    with SQLStore("fairtrial.db") as store:
        store.add_study(unfinished, fairtrial.run(study(), store=store, executor=executor()).results[0].started)
    ended, missing, unknown = plan(study())[0], plan(unfinished)[-1], plan(study('name="x"', "training.epochs=9"))[0]
    for trial in (ended, missing, unknown):
        save(trial)
    mine = Path("fairtrial.db.checkpoints", "notes")
    mine.mkdir()
    (mine / "0001-000001-00000000.json").write_text("not a trial's")
    kept = Path("fairtrial.db.checkpoints", "f" * 64)
    kept.mkdir()
    (kept / "thesis.txt").write_text("mine")
    elsewhere = Path("elsewhere", "0001-000001-00000000.json")
    elsewhere.parent.mkdir()
    elsewhere.write_text("{}")
    Path("fairtrial.db.checkpoints", "e" * 64).symlink_to(elsewhere.parent.resolve())
    dead, other = Path("fairtrial.db.12345678.lock"), Path("fairtrial.db.87654321.lock")
    dead.write_text("process 1 on host since 2026-01-01 00:00:00 UTC\n")
    other.write_text("a door, a key\n")
    dry = invoke("gc", "--dry-run")
    assert dry[1].startswith("would remove checkpoints of 2 trials (")
    assert {ended.hash, unknown.hash} <= saved()
    status, out, err = invoke("gc")
    assert (status, out) == (0, dry[1].replace("would remove", "removed"))
    assert out.rstrip().endswith("1 lock of runs that died")
    assert err.startswith("left alone: checkpoints in fairtrial.db.checkpoints can't be ")
    assert err.count("\n") == 1
    assert saved() == {missing.hash, "notes", "f" * 64, "e" * 64}
    assert (kept / "thesis.txt").exists()
    assert elsewhere.exists()
    assert (dead.exists(), other.exists()) == (False, True)
    Path("fairtrial.db.checkpoints", "e" * 64).unlink()
    assert invoke("gc") == (0, "nothing to remove\n", "")
    assert len(fairtrial.open_results(study()).results) == 4


def test_in_a_folder_that_other_stores_may_use_unknown_checkpoints_stay(invoke):
    run("fairtrial.db")
    ended, unknown = plan(study())[0], plan(study('name="x"', "training.epochs=9"))[0]
    for trial in (ended, unknown):
        save(trial, "shared")
    assert invoke("gc", "--checkpoints", "shared")[1].startswith("removed checkpoints of 1 trial (")
    assert saved("shared") == {unknown.hash}


def test_gc_makes_a_file_smaller_and_changes_no_result():
    run("fairtrial.db")
    digest = run("fairtrial.db", "seeds=60", 'name="large"', "training.epochs=30").digest()
    with SQLStore("fairtrial.db") as store:
        (large,) = [one for one in store.studies() if one.name == "large"]
        large_digest = fairtrial.digest_results(store.results(study()))
        store.remove(large.hash)
    size = Path("fairtrial.db").stat().st_size
    found = collect_garbage("fairtrial.db", dry_run=True)
    assert found.unused > size / 10
    assert Path("fairtrial.db").stat().st_size == size
    assert collect_garbage("fairtrial.db").unused == size - Path("fairtrial.db").stat().st_size > 0
    assert fairtrial.open_results(study()).digest() == large_digest
    assert digest == run("fairtrial.db", "seeds=60", 'name="large"', "training.epochs=30").digest()


def test_gc_on_a_server_leaves_what_another_store_may_own(postgresql):
    run(postgresql)
    ended, unknown = plan(study())[0], plan(study('name="x"', "training.epochs=9"))[0]
    for trial in (ended, unknown):
        save(trial, "fairtrial.checkpoints")
    found = collect_garbage(postgresql)
    assert (found.checkpoints, found.locks, found.unused, found.left) == (1, 0, 0, ())
    assert saved("fairtrial.checkpoints") == {unknown.hash}


def test_what_was_collected_is_said():
    found = Garbage(1, 2000, 2, 3 * 2**20, 1, 2**20)
    assert garbage_text(found, "s.db", done=True) == (
        "removed 1 trial of no study (2,000 bytes), checkpoints of 2 trials (3 MiB), 1 lock of runs that died, 1 MiB "
        "of unused space in s.db"
    )


@pytest.mark.slow
@pytest.mark.parametrize("point", STORE_POINTS)
def test_a_death_leaves_all_or_nothing(point):
    """Killed in the middle, a merge or removal has happened or not; again, it ends as if it had never been killed."""
    run("ours.db")
    run("theirs.db", "seeds=3", 'name="larger"')
    merge_stores("ours.db", "theirs.db", store="both.db")
    save(plan(study("seeds=3", 'name="larger"'))[-1], "both.db.checkpoints")
    merging = point.startswith("merge.")
    words = ["merge", "theirs.db", "--store", "ours.db"] if merging else ["rm", "larger", "--yes", "--store", "both.db"]
    target = "ours.db" if merging else "both.db"

    def once(**environment):
        line = [sys.executable, "-m", "fairtrial", *words]
        done = subprocess.run(line, check=False, capture_output=True, env=os.environ | environment, timeout=120)
        return done.returncode, done.stderr.decode()

    def names():
        with SQLStore(target, create=False) as store:
            assert store.check() == ""
            return {one.name for one in store.studies()}

    before = names()
    assert once(FAIRTRIAL_FAILPOINT=point) == (-signal.SIGKILL, "")
    committed = point in {"merge.committed", "removal.committed", "removal.cleared"}
    assert (names() != before) == committed
    assert once()[0] == (0 if merging or not committed else 2)
    assert names() == ({"mine", "larger"} if merging else {"mine"})
    if not merging:
        collect_garbage("both.db")
        assert saved("both.db.checkpoints") == set()
        assert not list(Path().glob("both.db.*.lock"))
