"""What a study says of runs that were made elsewhere, and imported: section `[imported]`."""

from typing import Annotated

from pydantic import Field

from fairtrial.spec.limits import LONGEST_LABEL
from fairtrial.spec.sections import Section

#: Names the training loop of imported runs, which refuses to train.
ELSEWHERE = "fairtrial.imported:made_elsewhere"

#: What the system of a machine begins with on which an imported run was made.
IMPORTED_FROM = "imported from "


class Imported(Section):
    """Where the runs of a study come from that were not trained by fairtrial; absent for those that were.

    Attributes:
        source: what the runs were read from, such as ``"runs.csv"``.
        digest: SHA-256 of what was read, in hexadecimal.
        arms: the arms' labels there, in the study's order.
        seeds: the seeds there, in the order of the study's; empty where runs are not paired by seed.
        notes: what is unknown or suspicious about them, a sentence each.
    """

    source: Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    arms: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def refusal(what: str) -> str:
    """Say why imported runs can't be trained here."""
    return (
        f"{what}: its runs were made elsewhere, and fairtrial can't train more of them; to go on here, write a study "
        "of these arms and import the runs into it, with --study"
    )
