"""A gate's decisions: a grid for people and pull requests, and JUnit XML for continuous integration."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from fairtrial.measures import measure
from fairtrial.report.formats import markdown
from fairtrial.report.grid import Grid, columns, label, printable
from fairtrial.report.screen import screen_text
from fairtrial.report.verdicts import sentence
from fairtrial.report.words import count, duration, exploratory, notes_by_arm, or_nothing, percent
from fairtrial.stats.gate import Decision, Gate, alpha_for, decide, false_alarms
from fairtrial.stats.verdicts import Comparison
from fairtrial.text import visible

_HEADS = {Decision.PASSED: "passed", Decision.WORSE: "failed", Decision.UNDECIDED: "undecided"}


def gate_text(gate: Gate, width: int = 80, *, color: bool = False, encoding: str = "utf-8") -> str:
    """Write a gate for a screen of so many columns and this encoding."""
    return screen_text(printable(gate_grid(gate)), width, color, encoding)


def gate_markdown(gate: Gate) -> str:
    """Write a gate for a pull request, as GitHub and most others read Markdown."""
    return markdown(printable(gate_grid(gate)))


def gate_grid(gate: Gate) -> Grid:
    """Lay a gate out: what to know first, the decision, a sentence for each arm, numbers, and what they mean."""
    found = gate.verdict
    title = f"Gate {_HEADS[gate.decision]}: {label(found)}, {measure(found.metric).label}"
    unit, level = found.unit, percent(1 - found.interval_alpha)
    diff = f"diff.\n({unit.difference})".removesuffix("\n()")
    table = columns(
        found.comparisons,
        [
            ("arm", "arm", lambda row: row.arm),
            ("verdict", "gate", lambda row: decide(row).value),
            ("seeds", "seeds", lambda row: str(row.seeds)),
            ("mean_difference", diff, lambda row: or_nothing(row.mean_difference, unit.number)),
            ("interval", f"{level}\ninterval", lambda row: or_nothing(row.interval, lambda ends: unit.between(*ends))),
            ("more_seeds", "further\nseeds", lambda row: or_nothing(_further(row), str)),
        ],
    )
    lead = [sentence(found, row) for row in found.comparisons]
    lead += [undecided] if (undecided := _undecided(gate)) else []
    first = (*gate.said, *exploratory(found.exploratory), *found.alerts)
    return Grid(title, table, tuple(_notes(gate)), tuple(lead), first)


def junit(gate: Gate) -> bytes:
    """Write a gate as JUnit XML: a test for each arm; worse is a failure, undecided an error."""
    found, decisions = gate.verdict, gate.decisions
    totals = {
        "tests": str(len(decisions)),
        "failures": str([*decisions.values()].count(Decision.WORSE)),
        "errors": str([*decisions.values()].count(Decision.UNDECIDED)),
        "skipped": "0",
        "time": f"{gate.seconds:.3f}",
    }
    root = Element("testsuites", {"name": "fairtrial", **totals})
    suite = SubElement(root, "testsuite", {"name": f"fairtrial gate {visible(label(found))}", **totals})
    margin = found.unit.amount(found.margin or 0.0)
    for row in found.comparisons:
        name = f"{row.arm} is not worse than {found.against} by {margin} or more"
        seconds = f"{gate.seconds / len(decisions):.3f}"
        case = SubElement(
            suite, "testcase", {"classname": visible(label(found)), "name": visible(name), "time": seconds}
        )
        kind = {Decision.WORSE: "failure", Decision.UNDECIDED: "error"}.get(decisions[row.arm])
        if kind:
            told = SubElement(case, kind, {"type": decisions[row.arm].value, "message": visible(sentence(found, row))})
            told.text = visible(gate_text(gate, 120))
    SubElement(suite, "system-out").text = visible(gate_text(gate, 120))
    indent(root)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode").encode() + b"\n"


def _further(row: Comparison) -> int | None:
    return row.more_seeds if decide(row) is Decision.UNDECIDED else None


def _undecided(gate: Gate) -> str:
    """Say why there is no decision, and what would bring one; empty if there is one."""
    if Decision.UNDECIDED not in gate.decisions.values():
        return ""
    why = f"Undecided: {gate.ended}" if gate.ended else "Undecided"
    if gate.seeds_needed is None:
        return f"{why}; more seeds of this kind are not known to decide it."
    return f"{why}; about {count(gate.seeds_needed, 'seed')} in all would decide it with an even chance."


def _notes(gate: Gate) -> Iterator[str]:
    found, changes = gate.verdict, gate.changes_a_month
    margin, level = found.unit.amount(found.margin or 0.0), percent(1 - found.interval_alpha)
    yield (
        f"Passed: the {level} interval rules out that the arm is worse than {found.against} by {margin} or more. "
        "Worse: the interval lies on the worse side of zero, and not within that margin."
    )
    yield (
        f"A change that is worse by {margin} or more passes, and one that is no worse fails, with probability at most "
        f"{percent(found.alpha)} each, over all arms and looks."
    )
    expected, chance = false_alarms(found.alpha, changes)
    strict = f"; --alpha {alpha_for(0.05, changes):.2g} makes that 5%" if chance > 0.05 else ""
    yield (
        f"Of {count(changes, 'harmless change')} a month it fails at most {expected:.1f} on average, and at least one "
        f"with probability at most {percent(chance)}{strict}."
    )
    if gate.trained:
        yield f"Trained {count(gate.trained, 'trial')} in {duration(gate.seconds)}."
    yield ""
    yield from notes_by_arm({row.arm: row.caveats for row in found.comparisons}, found.caveats)
    yield from found.caveats
