"""Checkpoints of one trial: found again, passed over if damaged, kept apart between attempts, lost to no full disk."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest

import fairtrial
from fairtrial.checkpoints import CheckpointManager, manager
from fairtrial.errors import CheckpointError, Stopped
from fairtrial.executors.base import Ended, EpochFinished, Started, Warned, run_trial
from fairtrial.failpoints import POINTS
from fairtrial.scheduler import plan
from fairtrial.trial import EpochRecord, Machine, Outcome
from workloads import inline as inline_executor
from workloads import run

MACHINE = Machine({}, "processor", "cpu", 1, "system")
KEPT = CheckpointManager("kept", seconds=60)
EVERY = {"epochs": 3, "loop": "loops:good", "checkpoint_seconds": 0}  # to save whenever a loop offers it


@pytest.fixture
def trial(make_study):
    return plan(make_study(training=EVERY))[0]


def state(number):
    return {"number": number, "weights": np.full(1000, number, np.float32)}


def saved(trial, *numbers, checkpoints=KEPT):
    """An attempt that has saved these states, after as many epochs."""
    attempt = checkpoints.open(trial)
    for number in numbers:
        attempt.records[:] = [EpochRecord(trial.arm, trial.seed, e, {"x": e / 3}) for e in range(1, number + 1)]
        attempt.save(state(number))
    return attempt


def loaded(trial, checkpoints=KEPT):
    """Number of the state that the next attempt finds; None if it finds none."""
    attempt = checkpoints.open(trial)
    found = attempt.load()
    if found is None:
        assert attempt.records == []
        return None
    assert found["weights"].tolist() == [found["number"]] * 1000
    assert [record.epoch for record in attempt.records] == list(range(1, found["number"] + 1))
    assert all(record.metrics == {"x": record.epoch / 3} for record in attempt.records)
    return found["number"]


def files(trial, suffix=""):
    return sorted(Path("kept", trial.hash).glob(f"*{suffix}"))


@pytest.mark.parametrize("place", ["kept", "file://{}/kept", "memory://{}/kept"])
def test_the_last_state_is_found_with_its_records_and_two_are_kept(trial, place):
    checkpoints = CheckpointManager(place.format(Path.cwd()))
    assert loaded(trial, checkpoints) is None
    attempt = saved(trial, 1, 2, checkpoints=checkpoints)
    attempt.fingerprints["batch_order"] = "x"
    attempt.records.append(EpochRecord(trial.arm, trial.seed, 3, {"x": 1.0}))
    attempt.save(state(3))
    assert loaded(trial, checkpoints) == 3
    found = checkpoints.open(trial)
    found.load()
    assert found.fingerprints == {"batch_order": "x"}
    assert [name[:11] for name in attempt._storage.names()] == ["0001-000002"] * 2 + ["0001-000003"] * 2
    saved(trial, 4, checkpoints=checkpoints)
    assert [name[:11] for name in attempt._storage.names()] == ["0001-000003"] * 2 + ["0002-000001"] * 2
    assert loaded(trial, checkpoints) == 4
    checkpoints.remove(trial)
    assert loaded(trial, checkpoints) is None
    fsspec.filesystem("memory").store.clear()


def test_many_checkpoints_and_attempts_come_in_their_order(trial, monkeypatch):
    monkeypatch.setattr(manager, "KEPT", 10**9)
    for number in range(1, 13):
        saved(trial, number, number)
    assert loaded(trial) == 12
    names = [name.partition("-")[0] for name in KEPT.open(trial)._earlier]
    assert names == sorted(names)
    assert manager._age("10000-000001-aaaaaaaa.json") > manager._age("9999-000002-aaaaaaaa.json")


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(trial, suffix, damage):
    saved(trial, 1, 2)
    (last,) = [file for file in files(trial, suffix) if file.name.startswith("0001-000002")]
    whole, draw = last.read_bytes(), random.Random(1)
    for _ in range(20):
        place = draw.randrange(len(whole))
        if damage == "truncated":
            last.write_bytes(whole[:place])
        elif damage == "flipped":
            content = bytearray(whole)
            content[place] ^= 1 << draw.randrange(8)
            last.write_bytes(content)
        else:
            last.unlink(missing_ok=True)
        attempt = KEPT.open(trial)
        assert attempt.load()["number"] == 1
        assert [record.epoch for record in attempt.records] == [1]
        if not (damage == "gone" and suffix == ".json"):
            assert [name.partition(".")[0] for name in attempt.damaged] == [last.name.partition(".")[0]]
            assert attempt.warning.endswith("); continued from " + files(trial, ".json")[0].name.partition(".")[0])
    last.write_bytes(whole)
    assert loaded(trial) == 2


def test_a_damaged_one_makes_room_for_the_next(trial):
    saved(trial, 1, 2)
    files(trial, ".safetensors")[-1].write_bytes(b"")
    attempt = KEPT.open(trial)
    assert attempt.load()["number"] == 1
    attempt.save(state(1))
    assert [file.name[:11] for file in files(trial, ".json")] == ["0001-000001", "0002-000001"]


def saving(trial):
    """A loop that goes on from where it was."""
    begun = trial.load() or {"epoch": 0}
    for epoch in range(begun["epoch"] + 1, trial.epochs + 1):
        yield {"test_acc": epoch / 10}
        trial.save({"epoch": epoch})


def interrupted(trial, epochs):
    messages = run_trial(trial, saving, MACHINE, KEPT.open(trial))
    for message in messages:
        if isinstance(message, EpochFinished) and message.record.epoch == epochs + 1:
            messages.close()


def test_where_all_are_damaged_the_trial_begins_anew_and_says_so(trial):
    whole = [m.record for m in run_trial(trial, saving, MACHINE) if isinstance(m, EpochFinished)]
    interrupted(trial, 2)
    for file in files(trial, ".json"):
        file.write_bytes(b"{}")
    messages = list(run_trial(trial, saving, MACHINE, KEPT.open(trial)))
    assert [type(message) for message in messages] == [
        Started,
        Warned,
        EpochFinished,
        EpochFinished,
        EpochFinished,
        Ended,
    ]
    assert messages[1].text.startswith("skipped unusable checkpoints (0001-000002-")
    assert messages[1].text.endswith("its digest does not match); started from the beginning")
    assert [m.record for m in messages if isinstance(m, EpochFinished)] == whole


def test_going_on_without_damage_says_nothing(trial):
    interrupted(trial, 1)
    messages = list(run_trial(trial, saving, MACHINE, KEPT.open(trial)))
    assert [type(message) for message in messages] == [Started, EpochFinished, EpochFinished, EpochFinished, Ended]


def test_the_user_is_told_of_damage(trial, make_study, inline):
    from rich.console import Console

    from fairtrial.report.live import ProgressDisplay
    from fairtrial.store.sql import SQLStore

    interrupted(trial, 1)
    files(trial, ".json")[-1].write_bytes(b"{}")
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with SQLStore("fairtrial.db") as store, console.file, ProgressDisplay(console) as watcher:
        executor = inline_executor(saving, lambda trial: MACHINE, "kept")
        run(make_study(), store=store, executor=executor, watcher=watcher)
    assert "trial 1/4 a seed 0: skipped unusable checkpoints (0001-000001-" in console.export_text()


def resealed(file, **changes):
    body = json.loads(file.read_bytes())["body"] | changes
    file.write_text(json.dumps({"sha256": manager._digest(body), "body": body}))


@pytest.mark.parametrize("change", [{"format": manager.CHECKPOINT_FORMAT + 1}, {"trial": "another"}])
def test_files_of_another_trial_or_another_format_are_not_taken(trial, change):
    saved(trial, 1)
    (file,) = files(trial, ".json")
    resealed(file)
    assert loaded(trial) == 1
    resealed(file, **change)
    attempt = KEPT.open(trial)
    assert attempt.load() is None
    assert list(attempt.damaged.values()) == ["another format, or another trial's"]


def test_trials_do_not_see_each_others_checkpoints(make_study):
    one, other = plan(make_study(training=EVERY))[:2]
    saved(one, 1)
    assert loaded(other) is None
    KEPT.remove(other)
    assert loaded(one) == 1


def test_what_a_worker_that_was_given_up_writes_later_is_not_read_and_spoils_nothing(trial):
    first = saved(trial, 1)
    second = KEPT.open(trial)
    assert second.load()["number"] == 1
    for number in (2, 3, 4):  # it lives after all
        first.records.append(EpochRecord(trial.arm, trial.seed, number, {"x": number / 3}))
        first.save(state(number))
    second.save(state(1) | {"number": 1})
    assert [file.name[:5] for file in files(trial, ".json")] == ["0002-"]  # the files of the first are swept away
    assert loaded(trial) == 1
    first.save(state(4))  # and it goes on: that is older than what the second has
    assert loaded(trial) == 1


def test_two_attempts_that_begin_at_once_do_not_spoil_each_others_files(trial):
    one, other = KEPT.open(trial), KEPT.open(trial)
    assert one.load() is other.load() is None
    for _ in range(3):
        one.save(state(0) | {"of": "one"})
        other.save(state(0) | {"of": "other"})
    assert len(files(trial, ".json")) == len(files(trial, ".safetensors")) == 4
    attempt = KEPT.open(trial)
    assert attempt.load()["of"] in {"one", "other"}
    assert attempt.damaged == {}


def test_what_dead_processes_left_half_written_is_swept_away_first(trial):
    saved(trial, 1)
    folder = files(trial)[0].parent
    left = [
        "0001-000002-deadbeef.safetensors",
        ".0001-000002-deadbeef.json.1a2b3c4d.part",
        ".0002-000001-deadbeef.json.1a2b3c4d.part",
    ]
    for name in left:
        (folder / name).write_bytes(b"half")
    (folder / "README").write_text("not ours")
    attempt = KEPT.open(trial)
    assert attempt.load()["number"] == 1
    attempt.save(state(1))
    assert [file.name[:11] for file in files(trial)] == ["0001-000001"] * 2 + ["0003-000001"] * 2 + ["README"]


def test_what_fairtrial_did_not_write_stays_when_a_trial_has_ended(trial):
    saved(trial, 1)
    (files(trial)[0].parent / "README").write_text("not ours")
    KEPT.remove(trial)
    assert [file.name for file in files(trial)] == ["README"]


@pytest.mark.parametrize("to", ["precious", "nowhere"])
def test_a_link_in_the_place_of_a_trials_folder_is_named_and_not_followed(trial, to):
    Path("precious").mkdir()
    for name in ("thesis.tex", "0001-000001-deadbeef.json"):
        Path("precious", name).write_text("the user's own")
    Path("kept").mkdir()
    Path("kept", trial.hash).symlink_to(Path.cwd() / to)
    for use in (lambda: KEPT.remove(trial), lambda: KEPT.open(trial).load(), lambda: saved(trial, 1)):
        with pytest.raises(CheckpointError, match=rf"^[^\n]*{trial.hash} is a file or a link, not a folder; remove it"):
            use()
    assert {path.name: path.read_text() for path in Path("precious").iterdir()} == {
        "thesis.tex": "the user's own",
        "0001-000001-deadbeef.json": "the user's own",
    }
    assert not Path("nowhere").exists()


def test_a_run_touches_nothing_behind_a_link_in_the_place_of_a_trials_folder(make_study):
    study = make_study(seeds=1)
    Path("precious").mkdir()
    Path("precious/0001-000001-deadbeef.json").write_text("the user's own")
    Path("s.db.checkpoints").mkdir()
    for trial in plan(study):
        Path("s.db.checkpoints", trial.hash).symlink_to("../precious")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="is a file or a link, not a folder; remove it"):
            fairtrial.run(study, store="s.db", executor=inline_executor(saving))
    assert [path.read_text() for path in Path("precious").iterdir()] == ["the user's own"]


def test_it_is_time_when_time_has_passed_or_the_study_is_to_stop(trial, monkeypatch):
    now, asked = [100.0], []
    monkeypatch.setattr(manager, "monotonic", lambda: now[0])
    attempt = KEPT.open(trial, lambda: bool(asked))
    assert not attempt.due
    now[0] += 60
    assert attempt.due
    attempt.save(state(0))
    assert not attempt.due
    asked.append(1)
    assert attempt.due
    with pytest.raises(Stopped):
        attempt.save(state(0) | {"last": True})
    assert KEPT.open(trial).load()["last"] is True


class Clock:
    """A clock for the manager, on which a checkpoint takes as long as a test says."""

    def __init__(self, monkeypatch, takes):
        self.now, self.spent, self.written = 0.0, 0.0, []
        monkeypatch.setattr(manager, "monotonic", lambda: self.now)

        def write(attempt, content, body):
            self.now += takes
            self.spent += takes
            self.written.append(len(attempt.records))

        monkeypatch.setattr(manager.TrialCheckpoints, "_write", write)

    def train(self, trial, checkpoints, *, epochs, seconds):
        attempt = checkpoints.open(trial)
        for epoch in range(1, epochs + 1):
            self.now += seconds
            attempt.records.append(EpochRecord(trial.arm, trial.seed, epoch, {}))
            attempt.save({})


@pytest.mark.parametrize("takes", [0.001, 0.1, 3.0])
@pytest.mark.parametrize("seconds", [0.05, 1.0, 30.0])
def test_saving_costs_at_most_two_percent_unless_a_study_asks_for_more(make_study, monkeypatch, takes, seconds):
    trial, clock, checkpoints = plan(make_study())[0], Clock(monkeypatch, takes), CheckpointManager("kept")
    long = max(10, 3 * manager.SPACING * takes)
    clock.train(trial, checkpoints, epochs=1 + int(long / seconds), seconds=seconds)
    assert clock.written
    first = clock.spent, clock.now  # the first checkpoint of a process may take longer than was expected of it
    for _ in range(3):
        clock.train(trial, checkpoints, epochs=10, seconds=seconds)
    assert first[0] / first[1] <= 0.02 + takes / first[1]
    assert (clock.spent - first[0]) / (clock.now - first[1]) <= 0.02


def test_one_slow_save_does_not_keep_later_ones_from_being_written(make_study, monkeypatch):
    trial, clock, checkpoints = plan(make_study())[0], Clock(monkeypatch, takes=600.0), CheckpointManager("kept")
    clock.train(trial, checkpoints, epochs=2, seconds=60.0)
    assert clock.written == [1]
    clock.train(trial, checkpoints, epochs=30, seconds=60.0)
    assert len(clock.written) == 1 + 3


def test_a_study_says_how_often_to_save(make_study, monkeypatch):
    training = {"epochs": 3, "loop": "loops:good"}
    for chosen, written in ((0, [1, 2, 3, 4, 5, 6]), (10, [3, 6]), (1e9, [])):
        trial = plan(make_study(training=training | {"checkpoint_seconds": chosen}))[0]
        clock = Clock(monkeypatch, takes=1.0)
        clock.train(trial, CheckpointManager("kept"), epochs=6, seconds=4.0)
        assert clock.written == written


def test_a_stop_saves_in_any_case(make_study):
    trial = plan(make_study(training=EVERY | {"checkpoint_seconds": 1e9}))[0]
    attempt = KEPT.open(trial)
    attempt.save({"epoch": 1})
    assert KEPT.open(trial).load() is None
    attempt.asked_to_stop = lambda: True
    assert attempt.due
    with pytest.raises(Stopped):
        attempt.save({"epoch": 2})
    assert KEPT.open(trial).load() == {"epoch": 2}


def test_a_state_that_can_not_be_saved_is_an_error_at_once_though_it_is_not_yet_time(make_study):
    attempt = KEPT.open(plan(make_study())[0])
    with pytest.raises(TypeError, match="state is a set"):
        attempt.save({1, 2})


def test_to_load_after_the_first_record_is_a_mistake(trial):
    attempt = saved(trial, 1)
    with pytest.raises(RuntimeError, match="before yielding the first record"):
        attempt.load()


def test_a_place_that_is_none_is_said_in_one_line(trial):
    Path("kept").write_text("a file")
    for use in (lambda: KEPT.open(trial).load(), lambda: saved(trial, 1)):
        with pytest.raises(
            CheckpointError, match=r"^(checkpoints in|a checkpoint can't be written to) kept[^\n]*Not a dir"
        ):
            use()


def in_a_process(program, trial, **environment):
    """Run a program that finds the trial under that name."""
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM + program],
        input=pickle.dumps(trial),
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )
    return child.returncode, child.stdout.decode(), child.stderr.decode()


PROGRAM = """
import pickle, resource, sys
import numpy as np
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import CheckpointError
trial = pickle.loads(sys.stdin.buffer.read())
"""


@pytest.mark.parametrize("place", [place for place in POINTS if place.startswith("checkpoint.")])
@pytest.mark.parametrize("hit", [1, 2, 3])
def test_to_die_anywhere_loses_no_more_than_the_checkpoint_at_hand(trial, place, hit):
    program = """
attempt = CheckpointManager("kept").open(trial)
for number in (1, 2, 3):
    attempt.save({"number": number, "weights": np.full(1000, number, np.float32)})
"""
    code, _, error = in_a_process(program, trial, FAIRTRIAL_FAILPOINT=f"{place}:{hit}")
    assert code == -signal.SIGKILL, error
    attempt = KEPT.open(trial)
    found = attempt.load()
    whole = place in {"checkpoint.manifest_renamed", "checkpoint.pruned"}
    assert (found and found["number"]) == (hit if whole else hit - 1 or None)
    assert attempt.damaged == {}
    attempt.save(state(0))
    attempt.save(state(0))
    assert len({file.name[:5] for file in files(trial)}) == 1  # nothing of the dead is left
    assert [file.suffix for file in files(trial)] == [".json", ".safetensors"] * 2


def fill(limit, trial, place):
    """In a process with such a limit: save a small state, then one that does not fit."""
    program = f"""
attempt = CheckpointManager({place!r}).open(trial)
attempt.save({{"number": 0, "weights": np.zeros(1000, np.float32)}})
{limit}
try:
    attempt.save({{"weights": np.zeros(10**6)}})
except CheckpointError as error:
    print(error)
"""
    code, said, error = in_a_process(program, trial)
    assert code == 0, error
    return said


@pytest.mark.parametrize("limit", [0, 100, 10**6])
def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_one_before(trial, limit):
    said = fill(f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))", trial, "kept")
    assert said == "a checkpoint can't be written to kept: File too large; the previous one is kept\n"
    assert [file.name[:11] for file in files(trial)] == ["0001-000001"] * 2
    assert loaded(trial) == 0


def test_a_manifest_that_does_not_fit_takes_its_arrays_with_it(trial, monkeypatch):
    attempt = saved(trial, 1)
    write = type(attempt._storage).write

    def full(place, name, content, kind):
        if kind == "manifest":
            raise OSError(28, "No space left on device")
        write(place, name, content, kind)

    said = r"^a checkpoint can't be written to kept: No space left on device; the previous one is kept$"
    with monkeypatch.context() as patch:
        patch.setattr(type(attempt._storage), "write", full)
        with pytest.raises(CheckpointError, match=said):
            attempt.save(state(1))
    assert len(files(trial)) == 2
    attempt.save(state(1))
    assert len(files(trial)) == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_disk_that_is_full(trial):
    Path("disk").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "disk"], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this root can't mount")
    try:
        said = fill("", trial, "disk")
        assert said == "a checkpoint can't be written to disk: No space left on device; the previous one is kept\n"
        assert len(list(Path("disk", trial.hash).iterdir())) == 2
        assert loaded(trial, CheckpointManager("disk")) == 0
    finally:
        subprocess.run(["umount", "disk"], check=True)


def test_a_full_disk_ends_the_study_not_its_trials(make_study, monkeypatch):
    from fairtrial.store.sql import SQLStore

    study = make_study(training=EVERY)
    whole = [[m.record for m in run_trial(t, saving, MACHINE) if isinstance(m, EpochFinished)] for t in plan(study)]
    write, written = manager.TrialCheckpoints._write, []

    def until_full(attempt, content, body):
        written.append(1)
        if len(written) == 5:  # the second trial's second
            raise OSError(28, "No space left on device")
        write(attempt, content, body)

    def executor():
        return inline_executor(saving, lambda trial: MACHINE, "kept")

    with SQLStore("fairtrial.db") as store:
        with monkeypatch.context() as patch:
            patch.setattr(manager.TrialCheckpoints, "_write", until_full)
            with pytest.raises(CheckpointError, match="No space left on device"):
                run(study, store=store, executor=executor())
        first, second = store.results(study)
        assert (first.outcome, second.outcome, len(second.epochs)) == (Outcome.FINISHED, None, 2)
        done = run(study, store=store, executor=executor())
        assert [result.outcome for result in done.results] == [Outcome.FINISHED] * 4
        assert [list(result.epochs) for result in done.results] == whole
    assert list(Path("kept").iterdir()) == []
