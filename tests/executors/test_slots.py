"""How many workers, and how many threads each."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.errors import FairtrialError
from fairtrial.executors.slots import Slots, choose_slots, usable_cores

counts = st.integers(1, 100)


@given(trials=counts, threads=st.none() | counts, cores=counts)
def test_the_defaults_never_crowd_the_cores(trials, threads, cores):
    slots = choose_slots(trials, None, threads, cores=cores)
    assert 1 <= slots.workers <= trials
    assert slots.threads == (threads or 1)
    assert not slots.crowded or slots.threads > cores


@given(trials=counts, workers=counts, threads=counts, cores=counts)
def test_users_get_what_they_ask_for(trials, workers, threads, cores):
    slots = choose_slots(trials, workers, threads, cores=cores)
    assert slots == Slots(min(workers, trials), threads, cores)
    assert slots.crowded == (slots.workers * threads > cores)


def test_a_worker_a_core_or_a_gpu():
    assert choose_slots(10, None, None, cores=8) == Slots(8, 1, 8)
    assert choose_slots(10, None, None, cores=8, gpus=2) == Slots(2, 1, 8)
    assert choose_slots(10, 4, None, cores=8, gpus=2) == Slots(4, 1, 8)


def test_the_cores_are_those_of_this_process(monkeypatch):
    assert usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert choose_slots(10, None, None) == Slots(1, 1, 1)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6


@pytest.mark.parametrize("number", [0, -2, 1.5, True, "2"])
def test_other_numbers_are_refused(number):
    with pytest.raises(FairtrialError, match=r"^workers = .*: must be an integer of at least 1$"):
        choose_slots(1, number, None)
    with pytest.raises(FairtrialError, match=r"^threads = .*: must be an integer of at least 1$"):
        choose_slots(1, None, number)
