"""Commands about runs that were made elsewhere."""

from typing import Annotated

import typer

from fairtrial import api, judging
from fairtrial.cli import options
from fairtrial.cli.output import command_line, say
from fairtrial.cli.results import TextFormat, print_view
from fairtrial.errors import RunsError
from fairtrial.results import StudyResults
from fairtrial.store.url import DEFAULT_STORE

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="A CSV, Parquet or JSON lines file, or what another importer reads; see docs/judging.md."
    ),
]


def judge(
    source: SourceArgument,
    arm: options.ArmOption = None,
    seed: options.SeedOption = None,
    measure: options.MeasureOption = None,
    *,
    reference: options.ReferenceOption = None,
    margin: options.MarginOption = None,
    epoch: options.EpochOption = None,
    group: options.GroupOption = None,
    wide: options.WideOption = None,
    direction: options.DirectionOption = None,
    unit: options.UnitOption = None,
    form: TextFormat = "text",
) -> None:
    """Judge runs that were made elsewhere: is a difference real, or luck?

    Each arm is better, worse, equivalent (within the margin) or undecided.
    """
    view = judging.judge_runs(
        source,
        arm=arm,
        seed=seed,
        measure=measure,
        reference=reference,
        margin=margin,
        epoch=epoch,
        group=group,
        wide=wide,
        direction=direction,
        unit=unit,
    )
    print_view(view, form)


def import_(
    source: SourceArgument,
    arm: options.ArmOption = None,
    seed: options.SeedOption = None,
    measure: options.MeasureOption = None,
    *,
    reference: options.ReferenceOption = None,
    margin: options.MarginOption = None,
    epoch: options.EpochOption = None,
    group: options.GroupOption = None,
    wide: options.WideOption = None,
    direction: options.DirectionOption = None,
    unit: options.UnitOption = None,
    study: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="A study of your own whose trials these runs are; run trains the others."),
    ] = None,
    store: options.StoreOption = DEFAULT_STORE,
) -> None:
    """Add runs that were made elsewhere to a store: as a study, or as trials of a study of your own (--study).

    All of them are added, or none.
    """
    if study is None:
        found = judging.import_runs(
            source,
            arm=arm,
            seed=seed,
            measure=measure,
            reference=reference,
            margin=margin,
            epoch=epoch,
            group=group,
            wide=wide,
            direction=direction,
            unit=unit,
            store=store,
        )
        say(f"{_progress(found)} are in the store: {command_line('verdict', found.study.label, store)}")
        return
    given = {"--reference": reference, "--margin": margin, "--direction": direction, "--unit": unit, "--wide": wide}
    given["--group"] = group
    for option, value in given.items():
        if value is not None:
            raise RunsError(f"{option}: is set by the study, with --study {study}; leave it out")
    own = api.load(study, store=store)
    found = judging.extend_study(own, source, store=store, arm=arm, seed=seed, epoch=epoch, measure=measure)
    say(f"{_progress(found)} are in the store; to train the others: {command_line('run', study, store)}")


def _progress(found: StudyResults) -> str:
    return repr(found).removeprefix("<StudyResults ").removesuffix(">")
