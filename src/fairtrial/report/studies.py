"""What a study asks and trains, as a notebook shows it before anything has run."""

from fairtrial.report.grid import Column, Grid, columns, label, printable
from fairtrial.report.html import html
from fairtrial.report.screen import screen_text
from fairtrial.report.settings import adam_columns, differing_columns
from fairtrial.report.words import count
from fairtrial.spec import BUILT_IN, Study
from fairtrial.stats.summary import summarize


def study_bundle(study: Study) -> dict[str, str]:
    """Write a study for a notebook, by media type."""
    grid = printable(study_grid(study))
    return {"text/html": html(grid), "text/plain": screen_text(grid, 80, color=False).rstrip("\n")}


def study_grid(study: Study) -> Grid:
    """Lay out a study's arms with the settings in which they differ, and what it measures; a star marks the reference.

    Example:
        >>> print(study_grid(ft.load("quick")).notes[1])
        5 arms, 2 seeds, 2 epochs of mobilenet_v2 on cifar10.
    """
    summary = summarize(study, [])
    shown = [each for each in adam_columns(summary) if any(value is not None for value in each.values)]
    shown += differing_columns(summary)
    labels = {arm.name: arm.label or arm.name for arm in study.arms}
    star = {study.reference: " *"}
    names = columns(study.arms, [("arm", "arm", lambda arm: labels[arm.name] + star.get(arm.name, ""))])
    settings = [Column(each.key, (each.title,), tuple((cell,) for cell in each.cells), setting=True) for each in shown]
    return Grid(label(summary), (*names, *settings), ("* reference.", _size(study), _question(study)))


def _size(study: Study) -> str:
    """Say how much is trained, of what."""
    seeds = f"{study.min_seeds} to {count(study.seeds, 'seed')}" if study.sequential else count(study.seeds, "seed")
    training = study.settings.training
    what = f"{study.settings.model.name} on {study.settings.data.name}"
    if training.loop != BUILT_IN:
        what = str(training.loop)
    return f"{count(len(study.arms), 'arm')}, {seeds}, {count(training.epochs, 'epoch')} of {what}."


def _question(study: Study) -> str:
    evidence = study.evidence
    margin = f"; differences within {evidence.margin:g} do not matter" if evidence.margin else ""
    return f"Compared on {evidence.metric}{margin}."
