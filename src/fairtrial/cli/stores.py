"""Commands that merge stores, and remove what nobody needs from one."""

from typing import Annotated, Literal

import typer

from fairtrial import api, loading, maintenance
from fairtrial.cli.options import CheckpointsOption, StoreOption
from fairtrial.cli.output import command_line, out, say
from fairtrial.errors import FairtrialError, StoreConflictError
from fairtrial.files import size_text
from fairtrial.store.merging import Merged
from fairtrial.store.url import DEFAULT_STORE, redact_url
from fairtrial.text import one_line

#: Of more contradictions than these, only the number is shown.
_SHOWN = 10


def merge(
    others: Annotated[
        list[str], typer.Argument(metavar="OTHER...", help="The stores to add: SQLite files or PostgreSQL URLs.")
    ],
    store: StoreOption = DEFAULT_STORE,
    *,
    keep: Annotated[
        Literal["ours", "theirs"] | None,
        typer.Option("--keep", help="Which result to keep of trials that contradict: the store's or the other one's."),
    ] = None,
) -> None:
    """Add the studies and trials of other stores to the store.

    All of it, or nothing if two results of a trial differ. The other stores stay as they are.
    """
    try:
        merged = maintenance.merge_stores(*others, store=store, keep=keep)
    except StoreConflictError as error:
        for line in error.conflicts[:_SHOWN]:
            say(one_line(line))
        if len(error.conflicts) > _SHOWN:
            say(f"... and {len(error.conflicts) - _SHOWN} more")
        raise
    for one in merged:
        out(one_line(merged_text(one)))


def merged_text(merged: Merged) -> str:
    """Say what a merge did: ``merged 12 trials of 2 studies from other.db; 30 were there already``."""
    studies, were = _counted(merged.studies, "study", "studies"), "was" if merged.known == 1 else "were"
    if merged.added:
        known = f"{merged.known} {were} there already" if merged.known else "none was there before"
        text = f"merged {_counted(merged.added, 'trial')} of {studies} from {merged.source}; {known}"
    else:
        text = f"merged {studies} from {merged.source}" if merged.studies else f"nothing is new in {merged.source}"
        text += f"; {_counted(merged.known, 'trial')} {were} there already"
    if merged.taken:
        text += f"; {merged.taken} of these had no result here, and got the one from there"
    if merged.left:
        text += f"; {merged.left} of these {'has' if merged.left == 1 else 'have'} a result here alone, which stays"
    if merged.chosen:
        text += f"; of {_counted(merged.chosen, 'contradicting trial')} the result was chosen (--keep)"
    return text


def remove(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="NAME or NAME@HASH of a study in the store, as fairtrial ls has it.")
    ],
    store: StoreOption = DEFAULT_STORE,
    *,
    checkpoints: CheckpointsOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this, only print what would go.")] = False,
) -> None:
    """Remove a study from the store.

    Its results and checkpoints go, but for trials that other studies share. What it asked stays counted.
    """
    found = loading.find_stored(study, api.list_studies(store))
    removed = maintenance.remove_study(found, store, checkpoints=checkpoints, dry_run=not yes)
    out(one_line(removed_text(removed, done=yes)))
    if not yes:
        raise FairtrialError(f"nothing was removed; to remove it: {command_line('rm', found.label, store)} --yes")


def removed_text(removed: maintenance.Removed, *, done: bool) -> str:
    """Say what goes with a study, or went."""
    what = removed.removal
    records = _counted(what.records, "epoch record")
    text = (
        f"{'removed' if done else 'would remove'} {removed.study.label}: {_counted(what.begun, 'trial')} with {records}"
    )
    if removed.checkpoints:
        text += f" and checkpoints of {_counted(removed.checkpoints, 'trial')} ({size_text(removed.bytes)})"
    if what.shared:
        text += f"; {_counted(what.shared, 'trial')} {'stays' if what.shared == 1 else 'stay'}, shared with "
        text += ", ".join(what.sharing[:_SHOWN])
    return f"{text}. Its looks at these arms and seeds stay counted."


def gc(
    store: StoreOption = DEFAULT_STORE,
    *,
    checkpoints: CheckpointsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
) -> None:
    """Remove what no study needs: stray trials, old checkpoints, dead locks, unused space.

    Studies and results stay.
    """
    found = maintenance.collect_garbage(store, checkpoints=checkpoints, dry_run=dry_run)
    for line in found.left:
        say(one_line(f"left alone: {line}"))
    out(one_line(garbage_text(found, redact_url(store), done=not dry_run)))


def garbage_text(found: maintenance.Garbage, store: str, *, done: bool) -> str:
    """Say what was removed, or would be."""
    parts = []
    if found.trials:
        parts.append(f"{_counted(found.trials, 'trial')} of no study ({size_text(found.trial_bytes)})")
    if found.checkpoints:
        parts.append(f"checkpoints of {_counted(found.checkpoints, 'trial')} ({size_text(found.checkpoint_bytes)})")
    if found.locks:
        parts.append(f"{_counted(found.locks, 'lock')} of runs that died")
    if found.unused:
        parts.append(f"{size_text(found.unused)} of unused space in {store}")
    if not parts:
        return "nothing to remove"
    return f"{'removed' if done else 'would remove'} {', '.join(parts)}"


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
