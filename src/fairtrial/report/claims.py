"""A paper's claims beside what was measured."""

from collections.abc import Callable, Iterator
from typing import Any

from fairtrial.measures import measure
from fairtrial.report.grid import Cell, Column, Grid, columns, label
from fairtrial.report.words import NOTHING, exploratory, notes_by_arm, of_earlier_looks, or_nothing, percent
from fairtrial.spec import ALL_OTHERS
from fairtrial.stats.claims import PREDICTION, StudyClaims, TestedClaim
from fairtrial.stats.verdicts import ClaimVerdict


def claims_grid(data: StudyClaims, *, screen: bool = False) -> Grid:
    """Lay claims out: the finding on each, the numbers behind it beside the paper's, and caveats.

    On a screen the numbers are below each claim, because as a table they are too wide for most.
    """
    title = f"{label(data)}: claims"
    if not data.claims:
        return Grid(title, (), ("The study makes no claims; give it some under [[claims]].",))
    lead = [f"{one.claim.id} {one.finding.value}: {one.claim.text}" for one in data.claims]
    if screen:
        lead = [f"{line}\n{_numbers(one)}" for line, one in zip(lead, data.claims, strict=True)]
    lead += [
        f"{one.claim.id} {one.finding.value}: {one.claim.text}\n"
        + ", ".join(f"{part} {finding.value}" for part, finding in one.parts.items())
        for one in data.joint
    ]
    first = (*exploratory(data.exploratory), *data.alerts)
    return Grid(title, () if screen else _columns(data), tuple(_notes(data)), tuple(lead), first)


def claims_table(data: StudyClaims) -> dict[str, Any]:
    """Lay claims out as programs read them."""
    numbers = ("measured", "interval", "paper", "plausible")
    joint = [
        {"id": one.claim.id, "text": one.claim.text, "verdict": one.finding.value, "all": dict(one.parts)}
        for one in data.joint
    ]
    keys = ("study", "hash", "reference", "alpha", "looks", "stage", "spent", "exploratory", "alerts", "caveats")
    return {
        **{key: getattr(data, key) for key in keys},
        "claims": [
            {"id": one.claim.id, "text": one.claim.text, "verdict": one.finding.value}
            | {key: getattr(one.claim, key) for key in ("arm", "against", "metric")}
            | {key: getattr(one.decisive, key) for key in numbers}
            | {"decided_by": one.decisive.other, "caveats": _own_notes(one), "differences": _differences(one)}
            for one in data.claims
        ],
        **({"joint_claims": joint} if joint else {}),
    }


def _differences(one: TestedClaim) -> list[dict[str, Any]]:
    """The difference to each arm that a claim is against."""
    names = {"other": "against", "finding": "verdict", "note": "caveat"}
    return [{names.get(key, key): value for key, value in vars(each).items()} for each in one.against]


def _numbers(one: TestedClaim) -> str:
    """Write the difference that decides a claim, beside the paper's."""
    against, unit = one.decisive, one.unit
    if against.measured is None:
        here = "no seed has a result of both"
    else:
        ends = f" (interval {unit.between(*against.interval)})" if against.interval else ""
        here = f"{unit.amount(against.measured)}{ends}"
    words = {True: ", plausible in one run", False: ", not plausible in one run", None: ""}
    paper = "" if against.paper is None else f"; paper {unit.amount(against.paper)}{words[against.plausible]}"
    return f"{one.claim.arm} - {against.other}, {measure(one.claim.metric).label}: {here}{paper}"


def _columns(data: StudyClaims) -> tuple[Column, ...]:
    words = {True: "yes", False: "no", None: NOTHING}
    table: list[tuple[str, str, Callable[[TestedClaim], str | Cell]]] = [
        ("claim", "claim", lambda one: one.claim.id),
        ("finding", "finding", lambda one: one.finding.value),
        ("difference", "difference\nbetween", lambda one: (one.claim.arm, f"- {one.decisive.other}")),
        ("metric", "in", _metric),
        ("measured", "here", lambda one: or_nothing(one.decisive.measured, one.unit.number)),
        ("interval", "interval", lambda one: or_nothing(one.decisive.interval, lambda ends: one.unit.between(*ends))),
        ("paper", "paper", lambda one: or_nothing(one.decisive.paper, one.unit.number)),
        ("plausible", "plausible\nin one run", lambda one: words[one.decisive.plausible]),
    ]
    return columns(data.claims, table)


def _metric(one: TestedClaim) -> Cell:
    name, unit = measure(one.claim.metric).label, one.unit.difference
    return (name, f"({unit})") if unit else (name,)


def _notes(data: StudyClaims) -> Iterator[str]:
    together = (
        f"With {percent(1 - data.alpha)} probability no claim is wrongly called supported or contradicted, over all "
        "claims and looks. "
    )
    yield (
        f"{'' if data.spent else together}Where one claim alone needs an interval, and is about one direction, the end "
        "that supports it allows for errors on that side only."
    )
    if earlier := of_earlier_looks(data.spent, data.stage):
        yield earlier
    if any(one.claim.against == ALL_OTHERS for one in data.claims):
        yield "A claim against all others shows the difference that decides it."
    if any(one.decisive.plausible is not None for one in data.claims):
        yield (
            f"Plausible in one run: the paper's difference lies where a single new run of each arm would with "
            f"{percent(PREDICTION)} probability here."
        )
    yield ""
    yield from notes_by_arm({f"claim {one.claim.id}": _own_notes(one) for one in data.claims})
    yield from data.caveats


def _own_notes(one: TestedClaim) -> list[str]:
    """Notes on the differences that decide a claim, each once."""
    deciding = [one.decisive] if one.finding is ClaimVerdict.CONTRADICTED else one.against
    return list(dict.fromkeys(against.note for against in deciding if against.note))
