"""Made-up studies and results for the suites that need records but no training.

study = make_study(("baseline", "low_beta2"), seeds=3)
results = make_results(study, ended={("low_beta2", 1): Outcome.DIVERGED})
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.trial import EpochRecord, Machine, Outcome, TrialResult

#: Metrics of one epoch, from arm, seed and epoch (from 1).
Curve = Callable[[str, int, int], Mapping[str, float]]

MACHINE = Machine(
    versions={"python": "3.11.0", "torch": "2.13.0"}, processor="a processor", device="cpu", threads=1, system="Linux"
)
BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

#: The paper's arms, as differences from its baseline.
PAPER_ARMS: Mapping[str, Mapping[str, Any]] = {
    "baseline": {},
    "high_beta1": {"optimizer": {"betas": [0.95, 0.999]}},
    "low_beta2": {"optimizer": {"betas": [0.9, 0.99]}},
    "large_eps": {"optimizer": {"eps": 1e-6}},
    "very_high_smoothing": {"optimizer": {"betas": [0.99, 0.9999], "eps": 1e-7}},
}


def make_study(
    arms: Sequence[str] | Mapping[str, Mapping[str, Any]] = PAPER_ARMS,
    *,
    seeds: int | Mapping[str, int] = 3,
    epochs: int = 4,
    **sections: Mapping[str, Any],
) -> Study:
    """Build a study whose first arm is the reference.

    Args:
        arms: changes an arm; or names alone, and each arm gets an epsilon of its own.
        seeds: replicates, or a range of them.
        epochs: of every trial.
        sections: the study's own settings, such as ``data={"validation": 100}``.
    """
    if not isinstance(arms, Mapping):
        arms = {name: {"optimizer": {"eps": (index + 1) * 1e-8}} for index, name in enumerate(arms)}
    training = {"epochs": epochs, **sections.pop("training", {})}
    head = {"name": "made_up", "reference": next(iter(arms)), "seeds": seeds}
    return Study.from_dict({**head, "training": training, **sections, "arms": arms})


def with_aa_arm(study: Study) -> Study:
    """Add an A/A arm, ``again``, with the settings of the reference."""
    table = study.to_dict()
    arms = table["arms"] | {"again": table["arms"][study.reference]}
    return Study.from_dict(table | {"arms": arms, "evidence": table["evidence"] | {"aa": True}})


def learning(arm: str, seed: int, epoch: int) -> dict[str, float]:
    """Metrics like a real run's: they differ between arms and seeds, and improve with the epochs."""
    skill = sum(map(ord, arm)) % 17 / 100
    noise = math.sin(7 * seed + 3 * epoch + sum(map(ord, arm))) / 60
    test_acc = 0.45 + skill + 0.3 * (1 - math.exp(-epoch / 3)) + noise
    return {
        "train_loss": 0.4 + 1.9 * math.exp(-epoch / 5) - skill - noise,
        "train_acc": test_acc + 0.02 * epoch / (1 + epoch),
        "test_loss": 1.2 - skill,
        "test_acc": test_acc,
        "train_seconds": 70.0 + seed,
        "eval_seconds": 2.5,
    }


def make_results(
    study: Study,
    curve: Curve = learning,
    *,
    ended: Mapping[tuple[str, int], Outcome | None] | None = None,
    epochs: Mapping[tuple[str, int], int] | None = None,
    skip: Collection[tuple[str, int]] = (),
) -> list[TrialResult]:
    """Build what a store would return for a study, in the order in which its trials run.

    Args:
        study: whose trials.
        curve: metrics of each epoch.
        ended: outcome by (arm, seed), where it is not finished; None for an interrupted trial.
        epochs: number of epoch records by (arm, seed). A finished trial has all of its epochs, any other half of them.
        skip: (arm, seed) of trials that have not begun.
    """
    ended, epochs = ended or {}, epochs or {}
    results = []
    for trial in plan(study):
        key = (trial.arm, trial.seed)
        if key in skip:
            continue
        outcome = ended.get(key, Outcome.FINISHED)
        count = epochs.get(key, trial.epochs if outcome is Outcome.FINISHED else trial.epochs // 2)
        records = tuple(EpochRecord(*key, epoch, curve(*key, epoch)) for epoch in range(1, count + 1))
        results.append(
            TrialResult(
                *key,
                trial=trial.hash,
                outcome=outcome,
                detail="" if outcome in {None, Outcome.FINISHED} else f"what {outcome.value} means",
                started=BEGIN,
                ended=None if outcome is None else BEGIN + timedelta(minutes=10),
                machine=MACHINE,
                epochs=records,
            )
        )
    return results
