"""Verdicts and claims as rows, one each, for tables that programs read: one header line, numbers as numbers."""

from collections.abc import Mapping, Sequence

from fairtrial.report.csv_text import csv_text
from fairtrial.stats.claims import StudyClaims
from fairtrial.stats.comparison import StudyVerdict

_VERDICTS = (
    "arm",
    "reference",
    "metric",
    "verdict",
    "seeds",
    "mean_difference",
    "interval_low",
    "interval_high",
    "confidence",
    "margin",
    "p_adjusted",
    "effect_size",
    "probability_better",
    "smallest_detectable",
    "more_seeds",
    "ended",
    "lost",
    "by_failures",
)
_CLAIMS = (
    "claim",
    "finding",
    "arm",
    "against",
    "metric",
    "decided_by",
    "seeds",
    "measured",
    "interval_low",
    "interval_high",
    "paper",
    "plausible_in_one_run",
    "text",
)


def verdict_rows(found: StudyVerdict) -> list[dict[str, object]]:
    """Make a row for each comparison, in the measure's own unit: accuracies are fractions."""
    rows = []
    for row in found.comparisons:
        low, high = row.interval or (None, None)
        own = {name: getattr(row, name) for name in _VERDICTS if hasattr(row, name)}
        rows.append(
            {
                **own,
                "reference": found.reference,
                "metric": found.metric,
                "verdict": "refused" if row.arm in found.refused else row.verdict.value,
                "interval_low": low,
                "interval_high": high,
                "confidence": 1 - found.interval_alpha,
                "margin": found.margin,
                "ended": found.ended.get(row.arm, 0),
                "lost": sum(found.lost.get(row.arm, {}).values()),
            }
        )
    return rows


def claim_rows(data: StudyClaims) -> list[dict[str, object]]:
    """Make a row for each claim, with the difference that decided it; then the joint claims."""
    rows: list[dict[str, object]] = []
    for one in data.claims:
        decisive = one.decisive
        low, high = decisive.interval or (None, None)
        rows.append(
            {
                "claim": one.claim.id,
                "finding": one.finding.value,
                "arm": one.claim.arm,
                "against": one.claim.against,
                "metric": one.claim.metric,
                "decided_by": decisive.other,
                "seeds": decisive.seeds,
                "measured": decisive.measured,
                "interval_low": low,
                "interval_high": high,
                "paper": decisive.paper,
                "plausible_in_one_run": decisive.plausible,
                "text": one.claim.text,
            }
        )
    rows += [{"claim": one.claim.id, "finding": one.finding.value, "text": one.claim.text} for one in data.joint]
    return rows


def verdicts_csv(found: StudyVerdict) -> str:
    """Write the verdicts as CSV."""
    return _csv(_VERDICTS, verdict_rows(found))


def claims_csv(data: StudyClaims) -> str:
    """Write the claims as CSV."""
    return _csv(_CLAIMS, claim_rows(data))


def _csv(head: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """Write rows, each on one line: a line break within a text becomes a blank."""
    table = [[_cell(row.get(name)) for name in head] for row in rows]
    return csv_text(head, table)


def _cell(value: object) -> object:
    return " ".join(value.split()) if isinstance(value, str) else value
