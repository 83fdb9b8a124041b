"""Digests of results: equal if two runs gave the same numbers to the bit."""

from collections.abc import Iterable
from typing import Any

from fairtrial.spec import digest
from fairtrial.trial import EpochRecord, Outcome, TrialResult


def digest_results(results: Iterable[TrialResult]) -> str:
    """Digest the results of a study's trials, in any order: SHA-256 in hexadecimal, the same for the same results.

    Arm, seed, outcome, fingerprints and all records count, and how a trial diverged. Times, machines and snapshots
    do not; neither does the message of a failure, which names files, limits and signals of one machine.
    """
    return digest({result.trial: _reproducible(result) for result in results})


def _reproducible(result: TrialResult) -> dict[str, Any]:
    return {
        "arm": result.arm,
        "seed": result.seed,
        "outcome": result.outcome,
        "seen": result.detail if result.outcome is Outcome.DIVERGED else "",
        "fingerprints": dict(result.fingerprints),
        "epochs": [[one.epoch, reproducible(one)] for one in result.epochs],
    }


def reproducible(record: EpochRecord) -> dict[str, str]:
    """Write the metrics of an epoch but its times, to the bit."""
    return {name: float(value).hex() for name, value in record.metrics.items() if not _is_time(name)}


def _is_time(metric: str) -> bool:
    return metric == "seconds" or metric.endswith("_seconds")
