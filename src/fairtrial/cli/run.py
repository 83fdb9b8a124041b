"""Commands that train, or estimate what training will cost."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairtrial import api, signals, tasks
from fairtrial.cli import options
from fairtrial.cli.output import command_line, complain, console, out, say, say_how_to_resume, this_command
from fairtrial.cli.results import print_view, say_how_to_go_on
from fairtrial.errors import FairtrialError, StoreMissingError, StudyNotFoundError, Terminated
from fairtrial.report.live import ProgressDisplay
from fairtrial.results import StudyResults
from fairtrial.spec import Study
from fairtrial.store.url import DEFAULT_STORE, redact_url
from fairtrial.web.companion import Companion

if TYPE_CHECKING:
    from fairtrial.callbacks import Callback
    from fairtrial.stats.comparison import StudyVerdict


RetryFailedOption = Annotated[bool, typer.Option("--retry-failed", help="Train failed trials again.")]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Continue although versions, threads, processor, data, your code or the study's file have changed.",
    ),
]
XrayOption = Annotated[bool, typer.Option("--xray/--no-xray", help="Take snapshots of the optimizers' states.")]
ConfirmOption = Annotated[
    bool, typer.Option("--confirm", help="Run the study's leading arm and its reference again, on fresh seeds.")
]
ServeOption = Annotated[
    bool, typer.Option("--serve", help="Show the study in a browser while it runs; see fairtrial serve.")
]


def run(
    study: options.StudyArgument,
    overrides: options.OverridesOption = None,
    store: options.StoreOption = DEFAULT_STORE,
    *,
    retry_failed: RetryFailedOption = False,
    force: ForceOption = False,
    xray: XrayOption = True,
    confirm: ConfirmOption = False,
    workers: options.WorkersOption = None,
    threads: options.ThreadsOption = None,
    time_limit: options.TimeLimitOption = None,
    memory_limit: options.MemoryLimitOption = None,
    executor: options.ExecutorOption = "auto",
    trials_per_gpu: options.TrialsPerGpuOption = None,
    device: options.DeviceOption = None,  # noqa: ARG001  (its callback has chosen it)
    address: options.AddressOption = None,
    checkpoints: options.CheckpointsOption = None,
    serve: ServeOption = False,
    port: options.PortOption = None,
    tensorboard: options.TensorBoardOption = None,
    mlflow: options.MLflowOption = None,
    wandb: options.WandbOption = None,
) -> None:
    """Train the missing trials of a study, or of each of its tasks, and print the results."""
    if port is not None and not serve:
        raise FairtrialError("--port: requires --serve")
    chosen = options.make_executor(
        executor, workers=workers, threads=threads, address=address, checkpoints=checkpoints,
        trials_per_gpu=trials_per_gpu, time_limit=time_limit, memory_limit=memory_limit,
    )  # fmt: skip
    named = study, overrides or [], store
    by_task = {} if confirm else tasks.load_tasks(study, overrides or [])
    if confirm:
        studies = [api.open_results(study, overrides or [], store=store).confirmation()]
    else:
        studies = [*by_task.values()] or [api.load(study, overrides or [], store=store)]
    trackers = options.make_trackers(tensorboard, mlflow, wandb, say)
    _say_what_looks_leave(studies, store)
    how = {"executor": chosen, "retry_failed": retry_failed, "force": force, "xray": xray}
    try:
        with Companion(store, port, say) if serve else nullcontext():
            done, found = _run_each(studies, store, trackers, how)
    except (KeyboardInterrupt, Terminated) as end:
        say_how_to_resume(store)
        raise typer.Exit(signals.exit_status(end)) from None
    if by_task:
        over_tasks = tasks.of_studies(dict(zip(by_task, done, strict=True))).verdict()
        print_view(over_tasks)
        found = over_tasks.data
    if found is not None and not confirm:
        say_how_to_go_on(named, studies[0], found)
    _exit_if_failed(done)


def _run_each(
    studies: Sequence[Study], store: str, trackers: "Sequence[Callback]", how: Mapping[str, Any]
) -> "tuple[list[StudyResults], StudyVerdict | None]":
    """Run studies one after the other and print the results of each; return these, and the last one's verdicts."""
    commands = {one.label: [command_line(verb, one.label, store) for verb in ("plot", "failures")] for one in studies}
    os.environ.pop("FAIRTRIAL_STORE", None)  # workers inherit the environment, and it may hold a password
    done, found = list[StudyResults](), None
    for loaded in studies:
        with ProgressDisplay(console()) as display:
            runs = api.run(loaded, store=store, callbacks=[display, *trackers], **how)
        named_so = [line.replace(loaded.label, runs.study.label) for line in commands[loaded.label]]  # if tuned
        found = _print_results(runs, *named_so)
        done.append(runs)
    return done, found


def _exit_if_failed(done: Sequence[StudyResults]) -> None:
    """Say how many trials failed, and how to train them again, and end with status 1; without any, return."""
    if failed := sum(len(runs.failures()) for runs in done):
        trials = sum(len(runs.results) for runs in done)
        retry = this_command().removesuffix(" --retry-failed")
        complain(f"{failed} of {trials} trials failed; to train them again: {retry} --retry-failed")
        raise typer.Exit(1)


def _print_results(runs: StudyResults, plot: str, failures: str) -> "StudyVerdict | None":
    """Print a study's table and verdicts, and the commands that show more; return the verdicts, if there are any."""
    found = None
    print_view(runs.table())
    if len(runs.study.arms) > 1 or runs.study.evidence.further_questions:
        out("")
        verdict = runs.verdict()
        print_view(verdict)
        found = verdict.data
    say(f"figures: {plot}")
    if runs.failures():
        say(f"tracebacks: {failures}")
    return found


def plan_study(
    study: options.StudyArgument,
    overrides: options.OverridesOption = None,
    store: options.StoreOption = DEFAULT_STORE,
    *,
    workers: options.WorkersOption = None,
    threads: options.ThreadsOption = None,
    trials_per_gpu: options.TrialsPerGpuOption = None,
    device: options.DeviceOption = None,  # noqa: ARG001  (its callback has chosen it)
    spread: Annotated[
        float | None,
        typer.Option(
            metavar="SD",
            help="Standard deviation of a paired difference, accuracies as fractions; by default from the store.",
        ),
    ] = None,
    as_json: options.JSONOption = False,
) -> None:
    """Estimate what a study will cost on this machine.

    Also prints the smallest difference that more or fewer seeds would find.
    """
    from fairtrial.report.costs import plan_text, seed_options_text, to_json  # noqa: PLC0415

    loaded = api.load(study, overrides or [], store=store)
    _say_what_looks_leave([loaded], store)
    cost = api.estimate_cost(
        loaded, store=store, workers=workers, threads=threads, trials_per_gpu=trials_per_gpu, spread=spread
    )
    if as_json:
        out(to_json(cost))
        return
    out(plan_text(loaded, cost, redact_url(store)))
    if cost.seed_options:
        source = "as given" if spread else "in the store"
        out("\n" + seed_options_text(loaded, cost.seed_options, cost.spread, source))


def _say_what_looks_leave(studies: Sequence[Study], store: str) -> None:
    """Say in a line, before anything is trained, what earlier looks at the same trials leave for this one."""
    from fairtrial.stats.stages import standing  # noqa: PLC0415  (loads NumPy)

    for study in studies:
        try:
            history = api.open_results(study, store=store).history
        except (StoreMissingError, StudyNotFoundError):  # nothing was run, or tuned, yet
            return
        spent = standing(study, history, study.evidence.metric, study.evidence.target).reasons
        if spent:
            say(f"verdicts will be exploratory: {'; '.join(spent)}")
            return
        if history is not None and history.extends:
            least, most = study.seeds, 2 * study.seeds
            say(
                "these trials were looked at with fewer seeds, so this look is at a stricter level; "
                f"seeds = {{min = {least}, max = {most}}} would stop each arm as soon as it is settled"
            )
            return
