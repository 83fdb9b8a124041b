"""What a check found of a study's training loop, as text and JSON."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from fairtrial.doctor import CheckStatus
from fairtrial.report.words import count, duration
from fairtrial.text import one_line

#: How each status is written.
_WORDS = {CheckStatus.GOOD: "ok", CheckStatus.NOTE: "note", CheckStatus.BAD: "BAD"}
_HEAD = 16


@dataclass(frozen=True)
class Finding:
    """What was found of one part.

    Attributes:
        part: what was checked, such as ``"resuming"``.
        state: good, a note (right for some loops), or bad.
        detail: what was found.
        advice: what to do; empty if there is nothing to do.
    """

    part: str
    state: CheckStatus
    detail: str
    advice: str = ""


@dataclass(frozen=True, repr=False)
class StudyCheck:
    """The result of checking a study's training loop; it shows itself as a table.

    Attributes:
        study: the study's label.
        epochs: how many epochs of each arm were trained, at most.
        findings: what was found, in the order of the parts.
        attempts: how many trials were begun for it.
        seconds: how long it took.
    """

    study: str
    epochs: int
    findings: tuple[Finding, ...]
    attempts: int
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong; there may be notes."""
        return all(finding.state is not CheckStatus.BAD for finding in self.findings)

    def text(self, width: int = 100) -> str:
        """Write a table of at most so many columns: a part, what was found, and what to do."""
        wrong = sum(finding.state is CheckStatus.BAD for finding in self.findings)
        verdict = "nothing is wrong" if not wrong else f"{count(wrong, 'thing')} to mend"
        tried = (
            f"{count(self.attempts, 'attempt')} of at most {count(self.epochs, 'epoch')} in {duration(self.seconds)}"
        )
        head = f"{self.study}: {verdict} ({tried})"
        return "\n".join([one_line(head), *(line for one in self.findings for line in _lines(one, width))])

    def json(self) -> str:
        """Write it as JSON, a contract that other programs rely on."""
        return json.dumps({"sound": self.sound, **asdict(self)}, indent=2, allow_nan=False)

    def __repr__(self) -> str:
        return self.text()


def _lines(finding: Finding, width: int) -> Iterator[str]:
    head, indent = f"{_WORDS[finding.state]:<5}{finding.part:<{_HEAD - 5}}", " " * _HEAD
    for first, text in ((head, finding.detail), (indent, finding.advice)):
        if text:
            wrapper = textwrap.TextWrapper(
                max(width, 50), first, indent, break_on_hyphens=False, break_long_words=False
            )
            yield wrapper.fill(one_line(text))
