"""What can go wrong, as one tree of exceptions.

Everything that a user can mend is a `FairtrialError`; its message is one line that says what was wrong, where,
and what is allowed. The command line prints that line and exits with the error's code. Any other exception is a
bug of ours or an error in the user's own code, and keeps its traceback.

    FairtrialError
    ├── StudyError            a study file, an override or a name that does not resolve
    │   └── StudyNotFoundError
    ├── DataError             a data set that is missing, damaged or not what it claims to be
    ├── WeightsError          a weights file that does not fit the model
    ├── StoreError            a database that can't be opened, read or written
    │   ├── StoreMissingError there is none yet
    │   ├── StoreVersionError made by a newer or a development version of fairtrial
    │   └── StoreLockedError  another process runs the same study in it
    ├── CheckpointError       a checkpoint that can't be written, or a place that can't hold any
    ├── ProvenanceError       a study would go on under other conditions than it began
    └── ReportError           a table or figure that can't be made from what was recorded

    Diverged                  not an error: a training loop says that its loss is no longer finite
    Stopped                   not an error: a trial has saved its state because the study is asked to stop
    Terminated                not an error: the process was asked to end by SIGTERM or SIGHUP
"""

import signal


class FairtrialError(Exception):
    """Base class of every error that a user can mend.

    Attributes:
        exit_code: the command line's exit status for this error.
    """

    exit_code = 1


class StudyError(FairtrialError):
    """A study file, an override or a study's name is not usable."""

    exit_code = 2


class StudyNotFoundError(StudyError):
    """No file, shipped study or stored study answers to the name."""


class DataError(FairtrialError):
    """A data set is missing, damaged, or not what it claims to be."""


class WeightsError(FairtrialError):
    """A weights file can't be read, or does not fit the model."""


class StoreError(FairtrialError):
    """The database can't be opened, read or written."""


class StoreMissingError(StoreError):
    """There is no database there yet."""


class StoreVersionError(StoreError):
    """The database was made by a newer fairtrial than this one, or by a development version."""


class CheckpointError(FairtrialError):
    """A checkpoint can't be written, or its place can't hold any."""


class ProvenanceError(FairtrialError):
    """A study would go on under other conditions than it began: other versions, threads, data or settings."""


class StoreLockedError(StoreError):
    """Another process runs the same study in this store."""


class ReportError(FairtrialError):
    """A table, figure or export can't be made from what was recorded."""


class Diverged(Exception):  # noqa: N818  (an outcome, not an error)
    """Raise this in a training loop when the loss is no longer finite; the trial is recorded as diverged.

    Args:
        where: what was seen and when, for example ``"train_loss is nan in epoch 3, batch 120"``.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class Stopped(BaseException):
    """Ends a training loop whose state has just been saved, because the study was asked to stop.

    `Trial.save` raises it. It passes through ``except Exception``, as Ctrl-C does: the trial goes on another time.
    """


class Terminated(BaseException):
    """The command line was asked to end by a signal other than Ctrl-C, which is a `KeyboardInterrupt`.

    It passes through ``except Exception``, as Ctrl-C does.

    Args:
        number: the signal's number.

    Attributes:
        exit_code: the command line's exit status: 128 and the number of the signal, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
