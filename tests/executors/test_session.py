"""Trials whose workers die: tried again once, failed the second time, and no end of tries."""

from datetime import UTC, datetime

import pytest

from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended
from fairtrial.executors.session import FALSE_STARTS, Retries
from fairtrial.trial import Outcome

NOW = datetime.now(UTC)


def test_a_second_loss_is_a_failure_that_tells_of_both():
    retries = Retries()
    assert retries.lost("x", "killed", started=True) is None
    end = retries.lost("x", "crashed\ntraceback", started=True)
    assert (end.outcome, end.detail) == (Outcome.FAILED, "crashed\ntraceback\nprevious attempt: killed")
    assert retries.lost("x", "killed", started=True) is None  # submitted again, it is a trial like any other


@pytest.mark.parametrize("outcome", Outcome)
def test_what_ends_after_one_loss_tells_of_it_only_where_it_failed(outcome):
    retries = Retries()
    retries.lost("x", "killed", started=True)
    end = retries.ended(Ended("x", outcome, "what happened", NOW))
    assert end.detail.endswith("\nprevious attempt: killed") == (outcome is Outcome.FAILED)
    assert retries.ended(Ended("x", outcome, "what happened", NOW)).detail == "what happened"


def test_workers_that_die_before_they_begin_a_trial_are_no_fault_of_it_but_not_for_ever():
    retries = Retries()
    for _ in range(FALSE_STARTS - 1):
        assert retries.lost("x", "exit 7", started=False) is None
        assert retries.lost("y", "exit 7", started=False) is None
    with pytest.raises(FairtrialError, match=r"^workers die before they can start a trial: exit 7; see its output$"):
        retries.lost("x", "exit 7\nmore", started=False)
