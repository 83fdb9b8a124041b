"""Trials whose workers die: tried again once, failed the second time, and no end of tries."""

from datetime import UTC, datetime

import pytest

import loops
from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, Started, Workload
from fairtrial.executors.session import FALSE_STARTS, QueuedSession, WorkerDied
from fairtrial.trial import Outcome
from workloads import SOME_TRIALS

NOW = datetime.now(UTC)
X, Y = SOME_TRIALS[:2]


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
