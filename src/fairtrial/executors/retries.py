"""What becomes of a trial whose worker has died: one more attempt, a failure, or the end of the study."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended
from fairtrial.trial import Outcome

#: Workers that may die before they have begun one trial. Once may be bad luck; more is a broken installation.
FALSE_STARTS = 3


class Retries:
    """Remembers which trials have lost a worker."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}
        self._false_starts: Counter[str] = Counter()

    def lost(self, trial_id: str, cause: str, *, begun: bool) -> Ended | None:
        """Decide about a trial whose worker has died.

        Args:
            trial_id: the trial's hash.
            cause: what the worker died of.
            begun: whether the worker had begun the trial.

        Returns:
            The trial's end if this was its second loss; None if it must be submitted again.

        Raises:
            FairtrialError: workers die, one after another, before they can begin it.
        """
        if not begun:
            self._false_starts[trial_id] += 1
            if self._false_starts[trial_id] == FALSE_STARTS:
                first = cause.partition("\n")[0]
                raise FairtrialError(f"workers end before they can begin a trial: {first}; see its output")
            return None
        if trial_id in self._causes:
            return self.ended(Ended(trial_id, Outcome.FAILED, cause, datetime.now(UTC)))
        self._causes[trial_id] = cause
        return None

    def ended(self, end: Ended) -> Ended:
        """Take note that a trial has ended; the detail of a failure tells of the worker that it lost before, too."""
        before = self._causes.pop(end.trial_id, None)
        if end.outcome is Outcome.FAILED and before is not None:
            return replace(end, detail=f"{end.detail.rstrip()}\nthe attempt before: {before}")
        return end
