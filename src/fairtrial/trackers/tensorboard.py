"""TensorBoard: a folder with event files for each trial, in a folder for each study."""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from fairtrial.errors import FairtrialError
from fairtrial.importers.event_files import NO_RUN
from fairtrial.spec import Study
from fairtrial.trackers.base import DETAIL, OUTCOME, STUDY, TRIAL, Backend, Tracker, parameters
from fairtrial.trackers.event_writer import FAILURE, SUCCESS, EventWriter
from fairtrial.trial import EpochRecord, Outcome, Trial

#: Characters of a folder's name.
_LONGEST = 80


class TensorBoardTracker(Tracker):
    """Writes TensorBoard's event files, for ``tensorboard --logdir FOLDER``; its library is not needed.

    Args:
        folder: where they go: ``FOLDER/STUDY-HASH/ARM/seed-N``.
        say: called with each message for the user; by default it is printed on standard error.

    Raises:
        FairtrialError: the folder can't be made.

    Example:
        >>> ft.run(ft.load("quick"), callbacks=[ft.TensorBoardTracker("runs")])  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path, say: Callable[[str], None] | None = None) -> None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FairtrialError(f"--tensorboard {folder}: can't be made: {error.strerror}") from error
        super().__init__(_Backend(Path(folder)), say)


class _Backend(Backend):
    def __init__(self, folder: Path) -> None:
        super().__init__(f"TensorBoard in {folder}")
        self._folder = folder
        self._writers: dict[str, EventWriter] = {}

    def begin(self, study: Study, trial: Trial) -> None:
        """Begin a file; a resumed trial reports its epochs again, so those of earlier files are void."""
        if (before := self._writers.pop(trial.hash, None)) is not None:
            before.close()
        writer = EventWriter(self._folder / _safe(study.label) / _safe(trial.arm) / f"seed-{trial.seed}")
        self._writers[trial.hash] = writer
        writer.start(1)
        writer.session({**parameters(trial), STUDY: study.label, TRIAL: trial.hash})

    def log(self, trial: Trial, record: EpochRecord) -> None:
        """Write an epoch's metrics, at the step of its number."""
        self._writers[trial.hash].scalars(record.epoch, record.metrics)

    def end(self, trial: Trial, outcome: Outcome | None, detail: str) -> None:
        """Write how it ended; the session of an interrupted trial has no end."""
        with self._writers.pop(trial.hash) as writer:
            if outcome is not None:
                writer.text(OUTCOME, str(outcome))
                if detail:
                    writer.text(DETAIL, "\n".join(f"    {line}" for line in detail.splitlines()))
                writer.end(SUCCESS if outcome is Outcome.FINISHED else FAILURE)

    def conclude(self, study: Study, verdicts: Sequence[str]) -> None:
        """Write the verdicts as text, in a folder beside those of the arms."""
        with EventWriter(self._folder / _safe(study.label) / "verdicts", NO_RUN) as writer:
            writer.start(0)
            writer.text("verdicts", "\n".join(f"- {_plain(verdict)}" for verdict in verdicts))


def _safe(name: str) -> str:
    """A name as one folder, told apart from others by a digest where it had to be changed.

    Example:
        >>> _safe("low_beta2"), _safe("../a b")
        ('low_beta2', '_.._a_b-2c2c791a')
    """
    safe = re.sub(r"[^\w.-]", "_", name.replace("@", "-"), flags=re.ASCII)[:_LONGEST]
    safe = f"_{safe}" if not safe or safe[0] in ".-" else safe
    told_apart = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return safe if safe == name.replace("@", "-") else f"{safe}-{told_apart}"


def _plain(text: str) -> str:
    """Escape what Markdown would obey."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~-])", r"\\\1", text)
