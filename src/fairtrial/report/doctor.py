"""What `fairtrial doctor` found, as text and JSON."""

import dataclasses
import json
import textwrap
from collections.abc import Iterable

from fairtrial.doctor import CheckResult, CheckStatus

_WORDS = {CheckStatus.GOOD: "ok", CheckStatus.NOTE: "note", CheckStatus.BAD: "BAD"}


def finding_text(finding: CheckResult, width: int) -> str:
    """Write one finding, its detail wrapped beside its part.

    Args:
        finding: what was found.
        width: of the screen, in characters.
    """
    head = f"{_WORDS[finding.state]:<5}{finding.part:<12}"
    return textwrap.fill(
        finding.detail,
        max(width, 50),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )


def findings_json(findings: Iterable[CheckResult]) -> str:
    """Write all findings as a JSON list."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2)
