"""Commands that list studies and show one."""

from rich.console import Console
from rich.table import Table

from fairtrial import loading
from fairtrial.cli.options import (
    DEFAULT_STORE,
    SetOption,
    StoreOption,
    StudyArgument,
)
from fairtrial.cli.stored import stored_studies
from fairtrial.cli.terminal import out
from fairtrial.spec import parse_toml
from fairtrial.store.base import StoredStudy
from fairtrial.store.url import redact_url
from fairtrial.trial import Outcome


def show(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Print a study as TOML, every default spelt out: a start for one of your own."""
    out(loading.find_to_run(study, assignments or [], stored_studies(store)).to_toml().rstrip())


def list_studies(store: StoreOption = DEFAULT_STORE) -> None:
    """List the studies in the store, and how far each is."""
    stored = stored_studies(store)
    grid = Table("study", "last run (UTC)", "done", box=None, pad_edge=False, header_style="bold")
    for study in stored:
        grid.add_row(study.label, f"{study.last_run:%Y-%m-%d %H:%M}", _how_far(study))
    if stored:
        Console(highlight=False, soft_wrap=True).print(grid)
    else:
        out(f"no studies in {redact_url(store)} yet")
    out(f"studies that ship with fairtrial: {', '.join(loading.shipped_studies())}")


def _how_far(study: StoredStudy) -> str:
    """Write how far a study is: ``7 of 10 trials, 1 diverged, 1 interrupted or running``."""
    ended = sum(study.outcomes.values())
    sequential = isinstance(parse_toml(study.toml).get("seeds"), dict)
    parts = [f"{ended} of {'at most ' if sequential else ''}{study.trials} trials"]
    parts += [f"{n} {outcome}" for outcome, n in study.outcomes.items() if n and outcome is not Outcome.FINISHED]
    parts += [f"{study.started} interrupted or running"] if study.started else []
    return ", ".join(parts)
