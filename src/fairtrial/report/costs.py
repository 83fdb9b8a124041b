"""What a study cost or will cost, how fast a machine is, and the results of `fairtrial doctor`, as text and JSON."""

import dataclasses
import json
import math
import platform
import statistics
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fairtrial.doctor import CheckResult, CheckStatus
from fairtrial.estimate import Estimate, SeedOption
from fairtrial.report.grid import Grid, columns
from fairtrial.report.words import count, duration, or_nothing
from fairtrial.spec import Study
from fairtrial.stats.joined import by_arm, join
from fairtrial.trial import TrialResult

if TYPE_CHECKING:  # the module itself loads torch
    from fairtrial.training.bench import Bench
    from fairtrial.training.bench_gpu import GpuBench, SideBySide


def cost_grid(study: Study, results: Sequence[TrialResult]) -> Grid:
    """Lay out what the runs of each arm took: training and evaluation, as the loop timed them.

    Whether arms differ in time is a question for verdicts on a measure of time; runs that shared a machine with other
    work took longer for that.
    """
    trials = by_arm(join(study, results).values())
    rows = [_ArmCost.of(arm.name, trials.get(arm.name, [])) for arm in study.arms]
    table: list[tuple[str, str, Callable[[_ArmCost], str]]] = [
        ("arm", "arm", lambda row: row.arm),
        ("trials", "trials", lambda row: str(row.trials)),
        ("epochs", "epochs", lambda row: str(row.epochs)),
        ("epoch", "time of\nan epoch", lambda row: or_nothing(row.epoch, "{:.3g} s".format)),
        ("total", "in all", lambda row: or_nothing(row.seconds or None, duration)),
    ]
    known = [row.seconds for row in rows if row.seconds]
    lead = (f"{duration(math.fsum(known))} of training and evaluation in all, over {count(len(results), 'trial')}.",)
    notes = ("Times as the loop reports them, of all trials; those that shared a machine with other work took longer.",)
    if not known:
        lead = ("No run has recorded how long it took (train_seconds).",)
        return Grid(f"{study.label}: cost", (), (), lead)
    return Grid(f"{study.label}: cost", columns(rows, table), notes, lead)


@dataclasses.dataclass(frozen=True)
class _ArmCost:
    """What the trials of an arm took."""

    arm: str
    trials: int
    epochs: int
    epoch: float | None  # median seconds of an epoch
    seconds: float

    @classmethod
    def of(cls, arm: str, trials: Sequence[TrialResult]) -> "_ArmCost":
        records = [record.metrics for trial in trials for record in trial.epochs]
        times = [
            each["train_seconds"] + each.get("eval_seconds", 0.0)
            for each in records
            if math.isfinite(each.get("train_seconds", math.nan))
        ]
        middle = statistics.median(times) if times else None
        return cls(arm, len(trials), len(records), middle, math.fsum(times))


def plan_text(study: Study, cost: Estimate, store: str) -> str:
    """Write an estimate in a few lines."""
    done = cost.trials - cost.missing
    at_most = "at most " if study.sequential and cost.missing else ""
    lines = [f"{study.label}: {at_most}{count(cost.trials, 'trial')}, {done} done, {cost.missing} to train"]
    if cost.tuning_trials and study.tuning:
        values = count(study.tuning.budget(study.reference), "value")
        lines.append(f"tuning: {cost.tuning_trials} of these trials try {values} of each arm")
    if cost.missing:
        unknown = "unknown: this training loop has not finished a trial in this store yet"
        known = f"{at_most}about {duration(cost.seconds or 0.0)} with {side_by_side(cost)}{_timed(cost)}"
        lines.append(f"time: {unknown if cost.seconds is None else known}")
        if cost.trial_gpu_bytes is not None:
            lines.append(f"memory: about {cost.trial_gpu_bytes / 2**20:.0f} MiB of the GPU a trial")
        lines.append(f"disk: about {cost.bytes / 1e3:.0f} kB more in {store}")
    return "\n".join(lines)


def side_by_side(cost: Estimate) -> str:
    """Write what an estimate assumes: ``2 workers of 1 thread``, or ``16 trials side by side on each of 2 GPUs``."""
    if cost.trials_per_gpu is None:
        return f"{count(cost.workers, 'worker')} of {count(cost.threads, 'thread')}"
    where = "a GPU" if cost.gpus == 1 else f"each of {cost.gpus} GPUs"
    return f"{count(cost.trials_per_gpu, 'trial')} side by side on {where}"


def _timed(cost: Estimate) -> str:
    if cost.steps_per_second is not None:
        return f" ({cost.steps_per_second:,.0f} steps a second{' on each' if cost.gpus > 1 else ''}, timed just now)"
    return f" ({cost.step_ms:.0f} ms a step, timed just now)" if cost.step_ms else ""


def seed_options_text(study: Study, options: Sequence[SeedOption], spread: float | None, source: str) -> str:
    """Write what several numbers of seeds would find at a spread (standard deviation) from a source."""
    asked = study.measure(study.evidence.metric)
    unit = asked.unit
    if spread is None:
        head = "smallest difference that is found: unknown, give --spread, the standard deviation of a difference"
    else:
        head = (
            f"smallest difference in {asked.label} found with 80% power by one look after so "
            f"many seeds, at a standard deviation of {unit.amount(spread)} {source}:"
        )
    lines = [*textwrap.wrap(head, 80), f"{'seeds':>7} {'difference':>16} {'time to get there':>20}"]
    for row in options:
        cost = "unknown" if row.seconds is None else duration(row.seconds) if row.seconds else "done"
        lines.append(f"{row.seeds:>7} {or_nothing(row.difference, unit.amount):>16} {cost:>20}")
    return "\n".join(lines)


def bench_text(measured: "Bench | GpuBench") -> str:
    """Write what was measured as a small table."""
    from fairtrial.training.bench_gpu import GpuBench  # noqa: PLC0415  (loads torch)

    return _gpu_text(measured) if isinstance(measured, GpuBench) else _worker_text(measured)


def _gpu_text(measured: "GpuBench") -> str:
    graphs = f"none, {measured.not_recorded}" if measured.not_recorded else "each step is repeated as a graph"
    rows = {
        "device": f"{measured.device}, one of {measured.gpus}" if measured.gpus > 1 else measured.device,
        "layers of a study": measured.path,
        "graphs": graphs,
        "precision": measured.precision,
        "machine": f"{platform.platform()}, {count(measured.threads, 'thread')}",
    }
    lines = [f"{name:22} {value}" for name, value in rows.items()]
    for title, side in (("fairtrial's layers", measured.fast), ("torch's own layers", measured.plain)):
        if side:
            lines += ["", f"{title}: all trials together", *_side_rows(side)]
    return "\n".join(lines)


def _side_rows(side: Sequence["SideBySide"]) -> list[str]:
    names = ("trials", "steps/s", "times one", "evaluated images/s", "Python waits", "MiB a trial", "peak GiB")
    rows = [names] + [
        (
            str(one.trials),
            f"{one.steps_per_second:,.0f}",
            f"{one.steps_per_second / side[0].steps_per_second * side[0].trials:.2f}",
            f"{one.images_per_second:,.0f}",
            f"{one.waited_share:.0%}",
            or_nothing(one.bytes_per_trial, lambda size: f"{size / 2**20:.0f}"),
            or_nothing(one.peak_bytes, lambda size: f"{size / 2**30:.1f}"),
        )
        for one in side
    ]
    return ["  ".join(f"{cell:>{len(name)}}" for cell, name in zip(row, names, strict=True)) for row in rows]


def _worker_text(measured: "Bench") -> str:
    fast, plain, private = measured.fast, measured.plain, measured.worker_private_bytes
    rows = {
        "plain layers": f"{plain.step_ms:.1f} ms a step, {plain.images_per_second:.0f} images/s",
        "fast layers": f"{fast.step_ms:.1f} ms a step, {fast.images_per_second:.0f} images/s",
        **_helped(measured),
        "fast over plain": f"{plain.step_ms / fast.step_ms:.2f} times the speed",
        "matrix products": f"{measured.matmul_ms:.1f} ms; the fast step is {measured.step_over_matmul:.2f} times that",
        "outside steps": f"{measured.overhead_share:.1%} of a short trial",
        "private memory": "not reported by this system" if private is None else f"{private / 2**20:.0f} MiB a worker",
        "path": measured.path,
        "machine": f"{platform.platform()}, {count(measured.threads, 'thread')}",
    }
    return "\n".join(f"{name:22} {value}" for name, value in rows.items())


def _helped(measured: "Bench") -> dict[str, str]:
    if measured.helped is None:
        return {}
    helped, times = measured.helped, measured.fast.step_ms / measured.helped.step_ms
    speed = f"{helped.step_ms:.1f} ms a step, {helped.images_per_second:.0f} images/s; {times:.2f} times the speed"
    return {f"with {measured.cores} cores": f"{speed}, for the last trials of a study"}


def result_text(result: CheckResult, width: int) -> str:
    """Write the result of a check for a screen of so many columns, its detail wrapped beside its part."""
    word = {CheckStatus.GOOD: "ok", CheckStatus.NOTE: "note", CheckStatus.BAD: "BAD"}[result.state]
    head = f"{word:<5}{result.part:<12}"
    indent = " " * len(head)
    wrapper = textwrap.TextWrapper(max(width, 50), head, indent, break_on_hyphens=False, break_long_words=False)
    return wrapper.fill(result.detail)


def to_json(results: "Bench | GpuBench | Estimate | Sequence[CheckResult]") -> str:
    """Write results as JSON, a contract that other programs rely on."""
    return json.dumps(results, indent=2, allow_nan=False, default=dataclasses.asdict)
