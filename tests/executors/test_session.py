"""Trials whose workers die: tried again once, failed the second time, and no end of tries."""

from datetime import UTC, datetime

import pytest

import loops
from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, Started, Warned, Workload
from fairtrial.executors.session import FALSE_STARTS, QueuedSession, WorkerDied
from fairtrial.trial import Outcome
from workloads import SOME_TRIALS

NOW = datetime.now(UTC)
X, Y, Z = SOME_TRIALS[:3]


@pytest.fixture
def session():
    return QueuedSession(Workload(loops.good, loops.machine, (X, Y)))


def handled(session, trial, report):
    return list(session._handle(trial, report))


def lost(session, trial, cause, *, started=True):
    """Have a trial lose its worker: returns its end, or None if it was queued again."""
    if started:
        handled(session, trial, Started(trial.hash, loops.machine(trial), NOW))
    messages = handled(session, trial, WorkerDied(cause))
    again = [session._waiting.popleft()] if session._waiting else []
    assert len(messages) + len(again) == 1
    assert again in ([], [trial])
    return messages[0] if messages else None


def test_a_second_loss_is_a_failure_that_tells_of_both(session):
    assert lost(session, X, "killed") is None
    end = lost(session, X, "crashed\ntraceback")
    assert (end.outcome, end.detail) == (Outcome.FAILED, "crashed\ntraceback\nprevious attempt: killed")
    assert lost(session, X, "killed") is None  # submitted again, it is a trial like any other


def started(session, *trials):
    """Have the next waiting trials start: those that may."""
    for trial in trials:
        assert session._next(len(session._started)) == trial
        handled(session, trial, Started(trial.hash, loops.machine(trial), NOW))


FULL = WorkerDied("out of memory\ntraceback", memory=True)


def test_what_ran_out_of_memory_beside_others_is_retried_after_them_and_alone(session):
    for trial in (X, Y, Z):
        session.submit(trial)
    started(session, X, Y)
    (warning,) = handled(session, X, FULL)
    assert warning == Warned(X.hash, "out of memory, beside another trial; it will be retried alone")
    started(session, Z)
    assert session._next(2) is None
    for trial in (Y, Z):
        handled(session, trial, Ended(trial.hash, Outcome.FINISHED, "", NOW))
    started(session, X)
    session.submit(Y)
    assert session._next(1) is None
    (end,) = handled(session, X, FULL)
    assert (end.outcome, end.detail) == (
        Outcome.FAILED,
        "out of memory; no other trial ran beside it\ntraceback\nprevious attempt: out of memory\ntraceback",
    )
    started(session, Y)


def test_what_runs_out_of_memory_alone_is_retried_once_as_any_other(session):
    session.submit(X)
    started(session, X)
    assert handled(session, X, FULL) == []
    started(session, X)
    (end,) = handled(session, X, FULL)
    assert end.detail == "out of memory\ntraceback\nprevious attempt: out of memory\ntraceback"


def test_a_worker_that_dies_before_it_begins_a_trial_alone_is_replaced(session):
    for trial in (X, Y):
        session.submit(trial)
    started(session, X, Y)
    handled(session, X, FULL)
    handled(session, Y, Ended(Y.hash, Outcome.FINISHED, "", NOW))
    assert session._next(0) == X
    session.submit(Y)
    assert handled(session, X, WorkerDied("exit 7")) == []
    started(session, Y)
    assert session._next(1) is None
    handled(session, Y, Ended(Y.hash, Outcome.FINISHED, "", NOW))
    started(session, X)


def test_a_crash_does_not_cost_the_attempt_alone(session):
    for trial in (X, Y):
        session.submit(trial)
    started(session, X, Y)
    assert handled(session, X, WorkerDied("crashed")) == []
    started(session, X)
    (warning,) = handled(session, X, FULL)
    handled(session, Y, Ended(Y.hash, Outcome.FINISHED, "", NOW))
    started(session, X)
    (end,) = handled(session, X, Ended(X.hash, Outcome.FINISHED, "", NOW))
    assert (isinstance(warning, Warned), end.outcome) == (True, Outcome.FINISHED)


@pytest.mark.parametrize("outcome", Outcome)
def test_what_ends_after_one_loss_tells_of_it_only_where_it_failed(session, outcome):
    lost(session, X, "killed")
    (end,) = handled(session, X, Ended(X.hash, outcome, "what happened", NOW))
    assert end.detail.endswith("\nprevious attempt: killed") == (outcome is Outcome.FAILED)
    (end,) = handled(session, X, Ended(X.hash, outcome, "what happened", NOW))
    assert end.detail == "what happened"


def test_workers_that_die_before_they_begin_a_trial_are_no_fault_of_it_but_not_for_ever(session):
    for _ in range(FALSE_STARTS - 1):
        assert lost(session, X, "exit 7", started=False) is None
        assert lost(session, Y, "exit 7", started=False) is None
    with pytest.raises(FairtrialError, match=r"^workers die before they can start a trial: exit 7; see its output$"):
        lost(session, X, "exit 7\nmore", started=False)
