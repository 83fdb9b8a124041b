"""The inside of a Ray actor that has a GPU: many trials in turn, in a process of their own beside it."""

import pickle
from collections.abc import Sequence
from time import monotonic
from typing import Any

from fairtrial.executors.cuda.process import TrialsProcess
from fairtrial.executors.local.process import end_all
from fairtrial.executors.ray.task import TaskSpec, listen, settle


class TrialsActor:
    """An actor whose process runs as many trials side by side as it is given.

    Ray sets ``CUDA_VISIBLE_DEVICES`` of the actor, and its process inherits it. The process dies with the actor.
    """

    def __init__(self, spec: TaskSpec, data: Sequence[Any]) -> None:
        self._spec, self._data = spec, data
        self._process: TrialsProcess | None = None

    def exchange(self, trials: Sequence[bytes]) -> bytes:
        """Start pickled trials beside those that run; wait a moment for reports.

        Returns:
            Pickled: a list of the reports since the last call, and the hashes of the trials that the process has now.

        Raises:
            FairtrialError: this node has another version of fairtrial.
        """
        if self._process is None:
            settle(self._spec, self._data)
        elif self._process.alive and not self._process.trials and self._process.dead():  # no trial was lost with it
            self._process.close()
            self._process.alive = False
        if self._process is None or not self._process.alive:
            self._process = TrialsProcess(self._spec.job, self._spec.environment, self._spec.limits)
        for trial in trials:
            self._process.give(pickle.loads(trial))  # noqa: S301  (from the machine that runs the study)
        return pickle.dumps((listen(self._process), tuple(self._process.trials)))

    def stop(self, seconds: float) -> None:
        """End the process; its trials get so many seconds to save their states."""
        if self._process is not None and self._process.alive:
            if seconds:
                self._process.ask_to_stop()
            end_all([self._process], monotonic() + seconds)
            self._process = None
