"""Where a study's results come from: what trained them and on which machines, apart from what made the report."""

import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

import fairtrial
from fairtrial.loading import load, shipped_studies
from fairtrial.report.page.items import Facts, Folded, Item, Plain, words
from fairtrial.report.words import count
from fairtrial.spec import BUILT_IN, Study
from fairtrial.spec.imported import IMPORTED_FROM
from fairtrial.trial import Machine, TrialResult

#: The study as a report's folder has it.
_FILE = "data/study.toml"


def machines(results: Sequence[TrialResult]) -> list[Machine]:
    """List the distinct machines that trained, in the order of the results; not those of imported runs."""
    found: list[Machine] = []
    for result in results:
        if result.machine not in found and not result.machine.system.startswith(IMPORTED_FROM):
            found.append(result.machine)
    return found


def trained_on(results: Sequence[TrialResult]) -> list[Item]:
    """Say what trained: for each distinct machine its facts, and how many trials it ran."""
    items: list[Item] = []
    for machine in machines(results):
        own = [result for result in results if result.machine == machine]
        began = min(result.started for result in own)
        ended = max((result.ended for result in own if result.ended), default=None)
        until = f" to {ended:%Y-%m-%d %H:%M}" if ended else ""
        rows = [
            ("trials", f"{len(own)}, {began:%Y-%m-%d %H:%M}{until} UTC"),
            ("processor", machine.processor),
            ("device", machine.device),
            ("threads a trial", str(machine.threads)),
            ("system", machine.system),
            ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
            ("layers", machine.layers),
            ("git commit", machine.git_commit or ""),
            ("data, SHA-256", machine.data),
            ("initial weights, SHA-256", machine.weights),
            *((f"code {name}", value) for name, value in machine.code.items()),
        ]
        items.append(Facts(tuple((name, value) for name, value in rows if value)))
    if not items:
        items.append(words("What trained these runs is not known to fairtrial."))
    forced = [result.forced for result in results if result.forced]
    if forced:
        items.append(words(f"Continued under other conditions: {'; '.join(dict.fromkeys(forced))}.", look="note"))
    return items


def reported_with() -> Facts:
    """Say what made the report."""
    return Facts(
        (
            ("fairtrial", fairtrial.__version__),
            ("Python", platform.python_version()),
            ("system", f"{platform.system()} {platform.release()}"),
            ("made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        )
    )


def identity(study: Study, results: Sequence[TrialResult], digest: str) -> Facts:
    """Name the study and its results by their digests."""
    rows = [
        ("study", study.name),
        ("hash", study.hash),
        ("digest of the results", digest),
        ("trials", str(len(results))),
    ]
    if study.imported is not None:
        rows += [("runs from", study.imported.source), ("SHA-256 of these", study.imported.digest)]
    return Facts(tuple(rows))


def how_to_repeat(study: Study) -> list[Item]:
    """Write the commands that repeat the study: the shipped one by its name, any other from its file."""
    if study.imported is not None:
        told = (
            f"The runs were made elsewhere and read from {study.imported.source}, so fairtrial can't repeat them; "
            "data/ has what was read."
        )
        return [words(told, *study.imported.notes)]
    name = study.name if _ships(study) else _FILE
    commands = [
        f"fairtrial run {shlex.quote(name)} --store again.db",
        f"fairtrial digest {shlex.quote(name)} --store again.db",
        f"fairtrial report {shlex.quote(name)} --store again.db --out again",
    ]
    note = "The digest is the same if every number is, to the bit, as on the same processor with the same versions."
    loops = {arm.settings.training.loop for arm in study.arms} - {BUILT_IN}
    needed = (
        f"The training loop {', '.join(sorted(loops))} must be importable beside the study's file." if loops else ""
    )
    file = Folded("The study's file", (Plain(study.to_toml(), "The study as TOML"),))
    items: list[Item] = [Plain("\n".join(commands), "Commands that repeat the study"), words(note, needed), file]
    if name == _FILE:
        where = f"Run these in the report's folder, or save the study's file below as {_FILE}."
        items.insert(0, words(where))
    return items


def _ships(study: Study) -> bool:
    return study.name in shipped_studies() and load(study.name).hash == study.hash


def trials_text(results: Sequence[TrialResult], planned: int, *, at_most: bool) -> str:
    """Write how far the study is: ``12 of 15 trials ended, 1 running or interrupted``."""
    ended = sum(result.outcome is not None for result in results)
    rest = len(results) - ended
    most = "at most " if at_most else ""
    return f"{ended} of {most}{count(planned, 'trial')} ended" + (f", {rest} running or interrupted" if rest else "")
