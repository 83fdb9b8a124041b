"""The contract of trackers: a run for each trial, a group for each study, verdicts at the end."""

import importlib.util
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fairtrial.callbacks import Callback
from fairtrial.errors import FairtrialError
from fairtrial.spec import Study, content, flatten
from fairtrial.text import one_line
from fairtrial.trackers.sender import Sender
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial

if TYPE_CHECKING:
    from fairtrial.results import StudyResults

#: Seconds that a tracker may delay the end of a run, whatever its server does.
EXIT_SECONDS = 10.0
#: What tells of a trial in trackers that have tags: its hash, its study, how it ended.
TRIAL, STUDY, OUTCOME, DETAIL = "fairtrial.trial", "fairtrial.study", "fairtrial.outcome", "fairtrial.detail"


class Backend(ABC):
    """Writes to one tracker; every method is called from one thread, and may raise anything.

    Attributes:
        name: what messages call it.
        notes: what the user should know; each is said and removed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: deque[str] = deque()

    @abstractmethod
    def begin(self, study: Study, trial: Trial) -> None:
        """Begin the run of a trial, or continue the one that an earlier attempt at the trial has left."""

    @abstractmethod
    def log(self, trial: Trial, record: EpochRecord) -> None:
        """Log an epoch, unless the run has it already: a resumed trial reports its earlier epochs again."""

    @abstractmethod
    def end(self, trial: Trial, outcome: Outcome | None, detail: str) -> None:
        """End the run of a trial; without an outcome the trial was interrupted, and will be resumed."""

    @abstractmethod
    def conclude(self, study: Study, verdicts: Sequence[str]) -> None:
        """Add a study's verdicts to what the tracker says of the study."""

    def is_temporary(self, error: Exception) -> bool:  # noqa: ARG002
        """Tell whether another attempt may work after an error."""
        return False


class Tracker(Callback):
    """Sends what the runner records to a tracker. Only trials that are trained now are sent.

    A tracker that can't be reached neither fails, stops nor slows training. It is tried again until the run is over,
    which it delays by at most ten seconds.

    Args:
        backend: what writes to the tracker.
        say: called with each message for the user; by default it is printed on standard error.
    """

    def __init__(self, backend: Backend, say: Callable[[str], None] | None = None) -> None:
        self._backend = backend
        self._say = say or _print
        self._sender = Sender(backend.name, backend.is_temporary)
        self._running: dict[str, Trial] = {}
        self._study: Study | None = None

    def on_plan(self, study: Study, trials: Sequence[Trial], missing: Sequence[Trial]) -> None:  # noqa: ARG002
        """Note which study runs."""
        self._study = study

    def on_trial_start(self, trial: Trial, machine: Machine) -> None:  # noqa: ARG002
        """Begin or continue a run."""
        if (study := self._study) is not None:
            self._running[trial.hash] = trial
            self._put(partial(self._backend.begin, study, trial))

    def on_epoch(self, trial: Trial, record: EpochRecord) -> None:
        """Log an epoch."""
        if trial.hash in self._running:
            self._put(partial(self._backend.log, trial, record))

    def on_trial_end(self, trial: Trial, outcome: Outcome, detail: str) -> None:
        """End a run, but none of a trial that the run of another study has trained."""
        if self._running.pop(trial.hash, None) is not None:
            self._put(partial(self._backend.end, trial, outcome, detail))

    def on_results(self, runs: "StudyResults") -> None:
        """Add the verdicts."""
        study, verdicts = runs.study, sentences(runs)
        if verdicts:
            self._put(partial(self._backend.conclude, study, verdicts))

    def on_close(self) -> None:
        """End the runs of trials that were interrupted, and wait until all is sent, for ten seconds at most."""
        for trial in self._running.values():
            self._put(partial(self._backend.end, trial, None, ""))
        self._running.clear()
        self._sender.close(EXIT_SECONDS)
        self._tell()

    def _put(self, job: Callable[[], None]) -> None:
        self._sender.put(job)
        self._tell()

    def _tell(self) -> None:
        for message in self._sender.messages():
            self._say(message)
        while self._backend.notes:
            self._say(self._backend.notes.popleft())


def sentences(runs: "StudyResults") -> list[str]:
    """Write a study's verdicts, a sentence each, after what can make them false; none of a single arm."""
    if len(runs.study.arms) < 2 and not runs.study.evidence.further_questions:
        return []
    grids = runs.verdict().grids()
    lines = [line for grid in grids for line in (*grid.first, *(f"{grid.label}: {lead}" for lead in grid.lead))]
    return [one_line(" ".join(line.split())) for line in lines]


def parameters(trial: Trial) -> dict[str, Any]:
    """The settings of a trial under dotted names, after its arm and seed."""
    return {"arm": trial.arm, "seed": trial.seed} | dict(flatten(settings(trial)))


def settings(trial: Trial) -> Mapping[str, Any]:
    """All that decides a trial's numbers, without the paths of this machine; what is not set is left out."""
    return _without_none(content(trial.settings))


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None and value != {}
    }


def require(module: str, extra: str, option: str) -> None:
    """Refuse a tracker whose library is not installed, with the command that installs it."""
    if importlib.util.find_spec(module) is None:
        raise FairtrialError(f"{option}: needs {module}, which is not installed: pip install 'fairtrial[{extra}]'")


def _print(message: str) -> None:
    print(f"fairtrial: {one_line(message)}", file=sys.stderr)  # noqa: T201
