"""Labels of arms: what reports call them, apart from their names, which decide hashes and commands."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fairtrial.errors import StudyError
from fairtrial.spec.limits import LONGEST_LABEL
from fairtrial.spec.messages import show

if TYPE_CHECKING:  # study imports this module
    from fairtrial.spec.study import Study


def take_labels(arms: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Split tables of arms into the labels that some have and everything else.

    Raises:
        StudyError: a label is no line of text, or what another arm is called.
    """
    labels = {name: changes["label"] for name, changes in arms.items() if "label" in changes}
    for name, label in labels.items():
        if not isinstance(label, str) or not label.isprintable() or not label.strip():
            raise StudyError(f'arms.{name}.label = {show(label)}: must be a line of text, such as "SGD (lr = 0.01)"')
        if len(label) > LONGEST_LABEL:
            raise StudyError(f"arms.{name}.label = {show(label)}: must be at most {LONGEST_LABEL} characters")
    called: dict[str, str] = {}
    for name in arms:
        if (other := called.setdefault(labels.get(name, name), name)) != name:
            raise StudyError(f"arms.{name}.label: arms.{other} is called {show(labels.get(name, name))} too")
    return labels, {
        name: {key: value for key, value in changes.items() if key != "label"} for name, changes in arms.items()
    }


def under_labels(study: "Study") -> "Study":
    """Copy a study with its arms' labels in place of their names, for reports; its hash stays.

    Results need the labels too; see `fairtrial.results.StudyResults`.
    """
    labels = {arm.name: arm.label or arm.name for arm in study.arms}
    arms = tuple(arm.model_copy(update={"name": labels[arm.name], "label": ""}) for arm in study.arms)
    claims = tuple(
        claim.model_copy(update={"arm": labels[claim.arm], "against": labels.get(claim.against, claim.against)})
        for claim in study.claims
    )
    reported = {labels[arm]: figures for arm, figures in study.reported.items()}
    changes: dict[str, Any] = {
        "reference": labels[study.reference],
        "arms": arms,
        "claims": claims,
        "reported": reported,
    }
    if study.tuning is not None:
        changes["tuning"] = study.tuning.under(labels)
    copy = study.model_copy(update=changes)
    for key in copy.__dict__.keys() - type(study).model_fields:  # cached, from the names
        del copy.__dict__[key]
    copy.__dict__ |= {"hash": study.hash, "origin": study.origin}
    return copy
