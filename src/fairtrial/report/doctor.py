"""The results of `fairtrial doctor`, as text and JSON."""

import dataclasses
import json
import textwrap
from collections.abc import Iterable

from fairtrial.doctor import CheckResult, CheckStatus

_WORDS = {CheckStatus.GOOD: "ok", CheckStatus.NOTE: "note", CheckStatus.BAD: "BAD"}


def finding_text(result: CheckResult, width: int) -> str:
    """Write one result for a screen of so many columns, its detail wrapped beside its part."""
    head = f"{_WORDS[result.state]:<5}{result.part:<12}"
    wrapper = textwrap.TextWrapper(
        max(width, 50), head, " " * len(head), break_on_hyphens=False, break_long_words=False
    )
    return wrapper.fill(result.detail)


def findings_json(results: Iterable[CheckResult]) -> str:
    """Write all results as a JSON list."""
    return json.dumps([dataclasses.asdict(result) for result in results], indent=2)
