"""Joint claims: statements that hold if several claims hold.

A joint claim follows from the findings about its parts and needs no share of alpha: if no part is wrongly called
supported or contradicted, the joint claim is not either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairtrial.spec import JointClaim
from fairtrial.stats.verdicts import ClaimVerdict


@dataclass(frozen=True)
class JointFinding:
    """A joint claim, the finding about it, and those about its parts by their ids."""

    claim: JointClaim
    finding: ClaimVerdict
    parts: Mapping[str, ClaimVerdict]


def join_findings(claims: Sequence[JointClaim], findings: Mapping[str, ClaimVerdict]) -> tuple[JointFinding, ...]:
    """Judge joint claims by the findings about single claims, by id.

    Example:
        >>> claim = JointClaim(id="3", text="It overfits.", all=("3a", "3b"))
        >>> findings = {"3a": ClaimVerdict.SUPPORTED, "3b": ClaimVerdict.UNDECIDED}
        >>> join_findings([claim], findings)[0].finding.value
        'undecided'
    """
    found = []
    for claim in claims:
        parts = {part: findings[part] for part in claim.all}
        found.append(JointFinding(claim, ClaimVerdict.of_all(parts.values()), parts))
    return tuple(found)
