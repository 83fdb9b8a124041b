"""All exceptions.

Everything that a user can fix is a `FairtrialError`; its message is one line that says what was wrong, where, and what
is allowed. The command line prints that line and exits with the error's code. Any other exception is a bug of fairtrial
or an error in the user's own code, and keeps its traceback. `Diverged`, `Stopped` and `Terminated` are not errors.
"""

import signal
from collections.abc import Sequence


class FairtrialError(Exception):
    """Base class of every error that a user can fix.

    Attributes:
        exit_code: the command line's exit status for this error.
    """

    exit_code = 1


class StudyError(FairtrialError):
    """A study file, an override or a study's name is not usable."""

    exit_code = 2


class StudyNotFoundError(StudyError):
    """No file, shipped study or stored study has this name."""


class DataError(FairtrialError):
    """A data set is missing, damaged, or not the one expected."""


class WeightsError(FairtrialError):
    """A weights file can't be read, or does not fit the model."""


class StoreError(FairtrialError):
    """The database can't be opened, read or written."""


class StoreMissingError(StoreError):
    """The database does not exist yet."""


class StoreVersionError(StoreError):
    """The database was made by a newer fairtrial than this one, or by a development version."""


class StoreDamagedError(StoreError):
    """The database is damaged: it can't be read, or a record in it is not what was written."""


class CheckpointError(FairtrialError):
    """A checkpoint can't be written, or the folder or URL can't be used for checkpoints."""


class ProvenanceError(FairtrialError):
    """A study would continue under other conditions than it began: other versions, processor, data or settings, say."""


class RecordError(FairtrialError):
    """A training loop's first record is not what its study needs, or a number has another unit: the study stops."""


class StoreLockedError(StoreError):
    """Another process is running the same study in this store."""


class StoreConflictError(StoreError):
    """Two stores that are to be merged have different results of the same trials.

    Attributes:
        conflicts: a line for each of these trials.
    """

    def __init__(self, message: str, conflicts: Sequence[str]) -> None:
        super().__init__(message)
        self.conflicts = tuple(conflicts)


class TrialRestartedError(StoreError):
    """Another process has begun a trial anew that was running here; its later reports are refused."""


class RunsError(FairtrialError):
    """Runs from elsewhere can't be read, or can't be compared as they are."""

    exit_code = 2


class ReportError(FairtrialError):
    """A table, figure or export can't be made from the recorded results."""


class Diverged(Exception):  # noqa: N818  (an outcome, not an error)
    """Raise this in a training loop when the loss is no longer finite; the trial is recorded as diverged.

    Args:
        where: how and when, for example ``"train_loss is nan in epoch 3, batch 120"``.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class Stopped(BaseException):
    """Ends a training loop whose state `TrialContext.save` has just saved, because the study is asked to stop.

    It passes through ``except Exception``, as Ctrl-C does; the next run of the study resumes the trial.
    """


class Terminated(BaseException):
    """A signal other than Ctrl-C, by its number, asked the command line to end.

    It passes through ``except Exception``, as Ctrl-C does.

    Attributes:
        exit_code: the command line's exit status: 128 plus the number of the signal, as in shells.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
