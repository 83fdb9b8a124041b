"""The studies that a gate runs: arms against a reference, or one arm against its stored baseline."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fairtrial
from fairtrial import loading, sources
from fairtrial.errors import StudyError
from fairtrial.provenance import git_commit
from fairtrial.registry import names_from
from fairtrial.spec import Origin, Study, digest, flatten
from fairtrial.trial import PACKAGES

#: What says how runs are measured, and not by what standard they are judged.
_MEASURE = ("metric", "direction", "target", "lost_below", "lost_above", "paired")

#: Keys whose change makes runs incomparable with those before it. All others may be the change under test.
_MEASURED_BY = (
    *(f"evidence.{key}" for key in _MEASURE),
    "metrics.",
    "noise.",
    "data.name",
    "data.test",
    "data.subset_seed",
    "data.validation",
)

#: Keys that say nothing about a run.
_NO_DIFFERENCE = ("name", "seeds", "evidence.alpha", "training.code", "training.checkpoint_seconds", "data.path")


def arms_study(
    study: Study, margin: float, alpha: float | None = None, max_seeds: int | None = None, *, fixed: bool = False
) -> Study:
    """The study that gates every arm of a study against its reference; they share their trials.

    With ``fixed``, it looks when the study does; otherwise after every seed, even if the study's number is fixed.

    Raises:
        StudyError: it has no other arm, or too few seeds.
    """
    others = [arm.name for arm in study.arms if arm.name != study.reference and arm.name not in study.twins]
    if not others:
        raise StudyError(
            f"{study.name}: has no arm but {study.reference}; --save stores its runs, and --baseline compares with them"
        )
    arms = {name: table for name, table in study.to_dict()["arms"].items() if name in {study.reference, *others}}
    seeds = _seeds(study, max_seeds)
    seeds = {"min": study.seeds, "max": study.seeds} if fixed and not study.sequential else seeds
    return _gate(study, study.reference, arms, margin=margin, alpha=alpha, seeds=seeds)


def baseline_study(study: Study, seeds: int) -> Study:
    """The study whose runs are stored as a baseline: the reference alone, known by the code that it runs."""
    table = _measured(study)
    arm = _with_code(table["arms"][study.reference], code_digest(study))
    return _build(study, {**table, "name": f"{study.name}-baseline", "arms": {study.reference: arm}, "seeds": seeds})


def code_study(
    study: Study, baseline: str, margin: float, alpha: float | None = None, max_seeds: int | None = None
) -> Study:
    """The study that gates the code as it is now against a baseline, with this digest, of the same arm."""
    name, arm = study.reference, _measured(study)["arms"][study.reference]
    now = digest({"code": code_digest(study), "baseline": baseline})[:12]
    arms = {f"{name}_before": _with_code(arm, baseline[:12]), name: _with_code(arm, now)}
    return _gate(study, f"{name}_before", arms, margin=margin, alpha=alpha, seeds=_seeds(study, max_seeds))


def code_digest(study: Study) -> str:
    """Digest what the study's reference runs: the user's own code, versions of packages, and the git commit."""
    sources.forget()
    with loading.importable(study):
        code = sources.code_of(study.arm(study.reference).settings.entries)
    versions = {name: _version(name) for name in PACKAGES}
    return digest({"code": code, "versions": versions, "commit": git_commit(study.origin.folder or Path.cwd())})[:12]


def differences(study: Study, before: Mapping[str, Any]) -> tuple[str, ...]:
    """List the settings of a study's reference that are not those of a baseline: ``optimizer.lr 0.001, now 0.1``.

    Raises:
        StudyError: they measure or split data differently, so that no difference between runs means anything.
    """
    now, old = (dict(flatten(_of_one_arm(table))) for table in (_measured(study), before))
    keys = [key for key in {**old, **now} if old.get(key) != now.get(key) and not key.startswith(_NO_DIFFERENCE)]
    told = {key: f"{key} {old.get(key, 'not set')}, now {now.get(key, 'not set')}" for key in keys}
    if refused := [told[key] for key in keys if key.startswith(_MEASURED_BY) or key == "reference"]:
        raise StudyError(f"the baseline was measured in another way: {'; '.join(refused)}; save a new one")
    return tuple(told.values())


def _measured(study: Study) -> dict[str, Any]:
    """The study's reference alone and how it is measured, as a table."""
    table = study.to_dict()
    table["evidence"] = {key: value for key, value in table["evidence"].items() if key in _MEASURE}
    table["arms"] = {study.reference: table["arms"][study.reference]}
    kept = {"name", "reference", "arms", "evidence", "metrics", "noise", "imported"} | {*table} & {
        *type(study.settings).model_fields
    }
    return {key: value for key, value in table.items() if key in kept}


def _of_one_arm(table: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the one arm of a table, at their own keys."""
    rest = {key: value for key, value in table.items() if key != "arms"}
    (arm,) = table["arms"].values()
    for section, keys in arm.items():
        if isinstance(keys, Mapping):
            rest[section] = {**rest.get(section, {}), **keys}
    return rest


def _gate(
    study: Study,
    reference: str,
    arms: Mapping[str, Any],
    *,
    margin: float,
    alpha: float | None,
    seeds: Mapping[str, int],
) -> Study:
    table, own = _measured(study), study.evidence
    evidence = table["evidence"] | {"not_worse_than": margin, "alpha": own.alpha if alpha is None else alpha}
    evidence |= {"pooling": own.pooling} if own.pooling else {}
    evidence |= {"final": True} if seeds["min"] == seeds["max"] else {}
    head = {"name": f"{study.name}-gate", "reference": reference, "seeds": dict(seeds)}
    return _build(study, {**table, **head, "arms": dict(arms), "evidence": evidence})


def _seeds(study: Study, max_seeds: int | None) -> dict[str, int]:
    most = study.seeds if max_seeds is None else max_seeds
    if study.noise.crossed:
        raise StudyError(f"{study.name}: seeds of a crossed design are no replicates; leave [noise] out")
    if most < 2:
        raise StudyError(f"{study.name}: one seed shows no spread; allow more with --max-seeds, such as --max-seeds 12")
    return {"min": min(study.min_seeds if study.sequential else 3, most), "max": most}


def _with_code(arm: Mapping[str, Any], code: str) -> dict[str, Any]:
    return {**arm, "training": {**arm.get("training", {}), "code": code}}


def _build(study: Study, table: Mapping[str, Any]) -> Study:
    """Build a study that is found where the user's is, and is no later version of it."""
    folder = study.origin.folder
    with names_from(folder or Path.cwd()):
        return Study.from_dict(table).with_origin(Origin(folder=folder))


def _version(package: str) -> str:
    return fairtrial.__version__ if package == "fairtrial" else importlib.metadata.version(package)
