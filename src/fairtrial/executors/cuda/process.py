"""A process with many trials, seen from outside."""

from typing import ClassVar

from fairtrial.executors.local.process import WorkerProcess


class TrialsProcess(WorkerProcess):
    """A worker process that runs as many trials in turn as it is given."""

    module: ClassVar = "fairtrial.executors.cuda.worker"
