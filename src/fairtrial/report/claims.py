"""A paper's claims beside what was measured."""

from collections.abc import Iterator
from typing import Any

from fairtrial.measures import measure
from fairtrial.report.grid import Column, Grid
from fairtrial.report.settings import NOTHING
from fairtrial.report.words import label, notes_by_arm, percent
from fairtrial.spec import ALL_OTHERS
from fairtrial.spec.metrics import RELATIVE, Unit
from fairtrial.stats.claims import PREDICTION, ClaimVerdict, StudyClaims, TestedClaim


def claims_grid(found: StudyClaims, *, screen: bool = False) -> Grid:
    """Lay claims out: what is said of each, the numbers behind it beside the paper's, and what a reader must know.

    Args:
        found: the claims.
        screen: put the numbers below each claim, because as a table they are too wide for most screens.
    """
    title = f"{label(found)}: claims"
    if not found.claims:
        return Grid(title, (), ("The study makes no claims; give it some under [[claims]].",))
    lead = tuple(f"{one.claim.id} {one.finding.value}: {one.claim.text}" for one in found.claims)
    if screen:
        lead = tuple(f"{line}\n{_numbers(one)}" for line, one in zip(lead, found.claims, strict=True))
    return Grid(title, () if screen else tuple(_columns(found)), tuple(_notes(found)), lead)


def _numbers(one: TestedClaim) -> str:
    """The difference that decides a claim, beside the paper's."""
    against, measured = one.decisive, _unit(one)
    what = f"{one.claim.arm} - {against.other}, {measure(one.claim.metric).label}"
    if against.measured is None:
        here = "no seed has a result of both"
    else:
        ends = f" (interval {measured.between(*against.interval)})" if against.interval else ""
        here = f"{measured.amount(against.measured)}{ends}"
    words = {True: ", plausible in one run", False: ", not plausible in one run", None: ""}
    paper = "" if against.paper is None else f"; paper {measured.amount(against.paper)}{words[against.plausible]}"
    return f"{what}: {here}{paper}"


def claims_table(found: StudyClaims) -> dict[str, Any]:
    """Lay claims out as programs read them, see `fairtrial.report.views.View.json`."""
    return {"claims": [_claim(one) for one in found.claims]}


def _columns(found: StudyClaims) -> Iterator[Column]:
    claims = found.claims
    decisive = [(one, one.decisive, _unit(one)) for one in claims]
    yield Column("claim", ("claim",), tuple((one.claim.id,) for one in claims))
    yield Column("finding", ("finding",), tuple((one.finding.value,) for one in claims))
    pairs = tuple((one.claim.arm, f"- {against.other}") for one, against, _ in decisive)
    yield Column("difference", ("difference", "between"), pairs)
    metrics = tuple(
        (measure(one.claim.metric).label, f"({measured.difference})" if measured.difference else "")
        for one, _, measured in decisive
    )
    yield Column("metric", ("in",), tuple(tuple(part for part in cell if part) for cell in metrics))
    yield Column(
        "measured", ("here",), tuple((_number(against.measured, measured),) for _, against, measured in decisive)
    )
    ends = tuple(
        (measured.between(*against.interval) if against.interval else NOTHING,) for _, against, measured in decisive
    )
    yield Column("interval", ("interval",), ends)
    yield Column("paper", ("paper",), tuple((_number(against.paper, measured),) for _, against, measured in decisive))
    words = {True: "yes", False: "no", None: NOTHING}
    yield Column(
        "plausible", ("plausible", "in one run"), tuple((words[against.plausible],) for _, against, _ in decisive)
    )


def _number(value: float | None, measured: Unit) -> str:
    return NOTHING if value is None else measured.number(value)


def _unit(one: TestedClaim) -> Unit:
    return RELATIVE if one.claim.relative else measure(one.claim.metric).unit


def _notes(found: StudyClaims) -> Iterator[str]:
    yield (
        f"With {percent(1 - found.alpha)} probability all intervals hold at once, for all claims and looks; then no "
        "claim is wrongly called supported or contradicted."
    )
    if any(one.claim.against == ALL_OTHERS for one in found.claims):
        yield "A claim against all others shows the difference that decides it."
    if any(one.decisive.plausible is not None for one in found.claims):
        yield (
            f"Plausible in one run: the paper's difference lies where a single new run of each arm would with "
            f"{percent(PREDICTION)} probability here."
        )
    yield ""
    yield from notes_by_arm({f"claim {one.claim.id}": _own_notes(one) for one in found.claims}, ())
    yield from found.caveats


def _own_notes(one: TestedClaim) -> list[str]:
    """What is to be said of the differences that a claim hangs on, each once."""
    hanging = [one.decisive] if one.finding is ClaimVerdict.CONTRADICTED else list(one.against)
    return list(dict.fromkeys(against.note for against in hanging if against.note))


def _claim(one: TestedClaim) -> dict[str, Any]:
    against = one.decisive
    return {
        "id": one.claim.id,
        "text": one.claim.text,
        "verdict": one.finding.value,
        "measured": against.measured,
        "interval": None if against.interval is None else list(against.interval),
        "paper": against.paper,
        "plausible": against.plausible,
    }
