"""Loops that take no care: each gets a clear line, and nothing that it does harms the check."""

import json
import time
from pathlib import Path

import pytest

import fairtrial
import rough_loops
from fairtrial.checking import running
from fairtrial.doctor import CheckStatus
from fairtrial.errors import FairtrialError, StudyError
from fairtrial.executors.base import Workload
from fairtrial.executors.records import RecordRules
from loops import machine

GOOD, NOTE, BAD = CheckStatus


@pytest.fixture
def check(monkeypatch, make_study):
    """Check a loop of tests/rough_loops.py, which needs no torch."""

    def prepare(study, trials):
        loop = getattr(rough_loops, study.arms[0].settings.training.loop.partition(":")[2])
        return Workload(loop, machine, tuple(trials), rules=RecordRules.of(study))

    monkeypatch.setattr(running, "_workload", prepare)

    def run(loop, epochs=4, arms=None, table=(), **options):
        training = {"epochs": epochs, "loop": f"rough_loops:{loop}"}
        arms = {"arms": arms} if arms else {}
        return fairtrial.check(make_study(training=training, **arms, **dict(table)), **options)

    return run


def found(check, state=BAD):
    return {finding.part: f"{finding.detail}. {finding.advice}" for finding in check.findings if finding.state is state}


def test_a_sound_loop_is_silent_without_torch(forked, check):
    told = check("sound")
    assert (told.sound, found(told, NOTE)) == (True, {})


@pytest.mark.parametrize(
    "table", [{"seeds": {"first": 100, "count": 3}}, {"seeds": {"min": 3, "max": 6}}, {"noise": {"initial_weights": 1}}]
)
def test_a_sound_loop_is_silent_whatever_the_seeds(forked, check, table):
    told = check("sound", table=table)
    assert (told.sound, found(told, NOTE)) == (True, {})


def test_an_arm_with_the_settings_of_another_is_told_from_it_by_its_seeds(forked, check):
    table = {"evidence": {"aa": True}, "arms": {"a": {}, "again": {}}}
    assert check("sound", table=table).sound
    told = found(check("own_seeds", table=table))
    assert "again gives the records of a to the bit, though its seeds of noise differ" in told["settings"]


def test_what_a_loop_says_reaches_no_terminal_as_it_is(forked, check):
    told = check("hostile", arms={"a": {}})
    assert r"\u001b[2J" in told.text()
    assert not any(char in told.text() for char in "\x1b\x07\u202e")


ROUGH = {
    "nothing": "ValueError: the training loop yielded nothing",
    "strings": "a training loop must yield a dict of metrics, not str",
    "endless_records": "yielded more than its 2 epochs",
    "raising": "ZeroDivisionError: division by zero (",
}


@pytest.mark.parametrize("loop", ROUGH)
def test_a_loop_without_proper_records_is_named(forked, check, loop):
    told = check(loop, epochs=2)
    assert list(found(told)) == ["records"]
    assert ROUGH[loop] in found(told)["records"]
    assert "a, b: " in found(told)["records"]  # once, not once an arm


def test_a_loop_that_never_yields_is_given_up(check):
    began = time.monotonic()
    told = check("endless", arms={"a": {}}, time_limit=0.5)
    assert found(told)["records"].startswith("a: yields nothing: time limit of 0.5 s exceeded in epoch 1")
    assert time.monotonic() - began < 60


def test_a_loop_that_ends_its_process_is_told_as_such(check):
    assert "a: worker exited with status 7 before it finished" in found(check("dying", arms={"a": {}}))["records"]


def test_a_loop_that_forks_is_checked_as_any_other(forked, check):
    told = check("forking")
    assert (told.sound, found(told, NOTE)) == (True, {})


def test_a_loop_that_leaves_processes_behind_is_told_and_they_end(check):
    told = check("leaving", arms={"a": {}})
    assert "a: leaves" in found(told, NOTE)["habits"]
    assert told.sound
    left = [int(pid) for pid in Path("left").read_text().split()]
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_multiprocessing_keeps_is_not_left_behind(forked, check):
    assert found(check("with_helpers", arms={"a": {}}, epochs=1), NOTE).get("habits") is None


def test_what_a_loop_prints_is_counted_and_not_seen(forked, check, capfd):
    told = check("loud", arms={"a": {}})
    assert "a: prints " in found(told, NOTE)["habits"]
    assert capfd.readouterr() == ("", "")


def test_a_loop_with_seeds_of_its_own_gives_every_seed_the_same_records(forked, check):
    told = check("own_seeds")
    assert "every seed gives the same records" in found(told)["seeds"]


@pytest.mark.parametrize(
    ("loop", "text"),
    [
        ("saving_before", "gives other records when it is stopped after an epoch and goes on"),
        ("saving_what_no_state_holds", "fails when it is saved or resumed: TypeError"),
        ("never_loading", "a state is saved, and never loaded"),
        ("swallowing", "goes on where trial.save asks it to stop"),
    ],
)
def test_what_is_wrong_with_saving_is_said(forked, check, loop, text):
    told = check(loop)
    assert text in found(told)["resuming"]


def test_what_is_not_saved_and_not_seen_is_noted(forked, check):
    told = check("keeping_to_itself")
    assert told.sound
    assert "no state is saved" in found(told, NOTE)["resuming"]
    assert "not known whether arms share their initial weights and order of batches" in found(told, NOTE)["pairing"]


def test_a_few_numbers_that_are_the_same_by_chance_are_no_ignored_setting(forked, check):
    assert check("coarse").sound


def test_a_setting_that_nothing_reads_is_named(forked, check):
    told = check("sound", arms={"a": {}, "b": {"params": {"typo": 2}}})
    assert "b gives the records of a to the bit, though params.typo differs: it is ignored" in found(told)["settings"]
    assert "the loop never reads params.typo" in found(told)["settings"]
    told = check("sound", arms={"a": {}, "b": {"params": {"typo": 2, "pace": 3}}})
    assert "the loop never reads params.typo, in which arms differ" in found(told, NOTE)["settings"]


def test_what_acts_later_is_noted_unless_whole_trials_were_trained(forked, check):
    arms = {"a": {}, "b": {"schedule": {"name": "step", "milestones": [3]}}}
    assert "schedule.name" in found(check("sound", arms=arms), NOTE)["settings"]
    assert "schedule.name" in found(check("sound", epochs=2, arms=arms))["settings"]


def test_the_table_and_json_say_the_same(forked, check):
    told = check("never_loading", arms={"a": {}})
    assert repr(told) == told.text()
    assert told.text().splitlines()[0].startswith(f"{told.study}: 1 thing to mend (")
    table = json.loads(told.json())
    assert (table["sound"], [one["part"] for one in table["findings"]]) == (False, [one.part for one in told.findings])


def test_nothing_is_left_of_a_check(forked, check, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    check("sound")
    assert [path for path in tmp_path.rglob("*") if "fairtrial-check" in path.name] == []
    assert not Path("fairtrial.db").exists()


def test_what_can_not_be_checked_is_one_line(make_study):
    with pytest.raises(StudyError, match=r"^check\('mine'\): needs a study, such as fairtrial\.load\('mine'\)$"):
        fairtrial.check("mine")
    with pytest.raises(StudyError, match=r"^training\.loop = .*; move it to the top of a module to check it$"):
        fairtrial.check(make_study(training={"loop": lambda trial: iter(()), "epochs": 1}))
    with pytest.raises(FairtrialError, match=r"^epochs = 0: must be an integer of at least 1$"):
        fairtrial.check(make_study(), epochs=0)
