"""Measure training on this machine: steps with plain and fast layers, and their matrix products alone."""

import json
import os
import pickle
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from fairtrial import spec
from fairtrial.scheduler import plan
from fairtrial.training import datasets, loop, prepare
from fairtrial.training.allocator import keep_freed_memory
from fairtrial.training.bench_gpu import GpuBench, bench_gpu, measure, work_of_trial
from fairtrial.training.devices import choose_device
from fairtrial.training.evaluation import EVALUATION_BATCH, evaluate
from fairtrial.training.kernels import library
from fairtrial.training.kernels.assistance import use_cores
from fairtrial.training.learner import Learner
from fairtrial.trial import Trial, TrialContext, Turn

#: Rounds of a comparison; in each round every side runs in turn, so that a drift in the machine's speed affects all.
ROUNDS = 7

#: Seconds for which `pace` counts steps on a GPU.
SECONDS_ON_GPU = 1.0


@dataclass(frozen=True)
class Side:
    """The cost of one kind of training step: its milliseconds, the median over rounds."""

    step_ms: float
    images_per_second: float


@dataclass(frozen=True)
class Bench:
    """What was measured of one worker."""

    plain: Side  # with torch's own layers, channels last
    fast: Side  # with fairtrial's layers
    helped: Side | None  # the same with the help of idle cores, as the last trials of a study have it; None without any
    cores: int  # of that
    matmul_ms: float  # milliseconds of the matrix products of the same step, alone: the limit
    step_over_matmul: float  # the fast step as a multiple of that
    overhead_share: float  # of a trial's time, what is neither a training step nor an evaluation
    worker_private_bytes: int | None  # shared with no other process; None if the system doesn't report it
    path: str  # the fast path in use, or why there is none
    threads: int  # torch threads of the worker


#: Trains for a moment in a process of its own, and prints the memory that is private to it as JSON.
_MEASURE = (
    "import sys; sys.path[:] = sys.argv[1:]; import json, pickle; from fairtrial.training import bench; "
    "print(json.dumps(bench.train_and_measure(*pickle.load(sys.stdin.buffer))))"
)


def bench(study: spec.Study, *, threads: int = 1, cores: int | None = None, rounds: int = ROUNDS) -> Bench | GpuBench:
    """Measure the cost of a training step on this machine, for a study's first arm; fetch its data if necessary.

    With one thread also that of a step that idle cores help, so many in all, by default all that this process has.
    On a GPU of NVIDIA's, measure trials side by side instead, see `bench_gpu`.
    """
    if choose_device().type == "cuda":
        return bench_gpu(study, threads=threads)
    torch.set_num_threads(threads)
    cores = 1 if threads > 1 else cores or _cores_of_process()
    keep_freed_memory()  # for all sides: neither layers nor products should pay for page faults
    prepare.prepare(study)
    trial = plan(study)[0]
    dataset = datasets.load(trial.settings.data, verify=False)
    batch = min(trial.settings.training.batch_size, len(dataset.train))
    fast, plain = (Learner.build(trial, dataset, fast=fast) for fast in (True, False))
    inputs, labels = (tensor.to(fast.device) for tensor in dataset.train.batch(torch.arange(batch)))
    rounds_to_bf16 = trial.settings.training.precision == "bf16"
    products = matrix_products(plain.network, inputs, torch.bfloat16 if rounds_to_bf16 else torch.float32)
    sides = (
        lambda: plain.step(inputs, labels),
        lambda: fast.step(inputs, labels),
        lambda: _with_cores(cores, lambda: fast.step(inputs, labels)),
        lambda: [do() for do in products],
    )
    plain_s, fast_s, helped_s, matmul_s = _interleave(sides, rounds)
    # Not by multiprocessing, which would import the script that calls this.
    measured = subprocess.run(  # noqa: S603
        [sys.executable, "-P", "-c", _MEASURE, *sys.path],
        input=pickle.dumps((trial, threads)),
        stdout=subprocess.PIPE,
        check=True,
    )
    private = json.loads(measured.stdout)
    return Bench(
        plain=Side(plain_s * 1e3, batch / plain_s),
        fast=Side(fast_s * 1e3, batch / fast_s),
        helped=Side(helped_s * 1e3, batch / helped_s) if cores > 1 else None,
        cores=cores,
        matmul_ms=matmul_s * 1e3,
        step_over_matmul=fast_s / matmul_s,
        overhead_share=overhead(trial),
        worker_private_bytes=private,
        path="torch's own, in bf16" if rounds_to_bf16 else library.path(),
        threads=threads,
    )


@dataclass(frozen=True)
class Pace:
    """What one trial costs on one worker: a training step, evaluating an image, and loading data and model."""

    step_seconds: float
    image_seconds: float
    start_seconds: float

    def trial_seconds(self, settings: spec.Settings, dataset: datasets.Dataset) -> float:
        """Estimate a whole trial's seconds."""
        steps, evaluated = work_of_trial(settings, dataset)
        return self.start_seconds + steps * self.step_seconds + evaluated * self.image_seconds


def pace(trial: Trial, *, threads: int = 1, steps: int = 12) -> Pace:
    """Time a few steps and an evaluation of a trial whose data are cached; the first half of the steps is warm-up.

    On a GPU of NVIDIA's they are timed for a moment as a trial that is alone there would take them.
    """
    torch.set_num_threads(threads)
    if choose_device().type == "cuda":
        alone = measure([trial], SECONDS_ON_GPU)
        return Pace(1 / alone.steps_per_second, 1 / alone.images_per_second, alone.start_seconds)
    keep_freed_memory()
    started = perf_counter()
    dataset = datasets.load(trial.settings.data, verify=False)
    learner = Learner.build(trial, dataset)
    built = perf_counter()
    batch = min(trial.settings.training.batch_size, len(dataset.train))
    inputs, labels = (tensor.to(learner.device) for tensor in dataset.train.batch(torch.arange(batch)))
    times = [_seconds(lambda: learner.step(inputs, labels)) for _ in range(steps)]
    index = torch.arange(len(dataset.test)) if dataset.test.index is None else dataset.test.index
    count = EVALUATION_BATCH
    few = replace(dataset.test, index=index[:count], labels=dataset.test.labels[:count])
    evaluate(learner.network, few, learner.device)
    evaluation = _seconds(lambda: evaluate(learner.network, few, learner.device))
    return Pace(statistics.median(times[steps // 2 :]), evaluation / len(few), built - started)


def overhead(trial: Trial, steps: int = 60) -> float:
    """Measure the share of a trial's time that is no step and no evaluation, in one epoch of at most so many steps.

    Loading data and building the model count as overhead; a real trial spreads them over many more steps.
    """
    settings, data = trial.settings.model_dump(), trial.settings.data
    loaded = datasets.load(data, verify=False)
    size = min(steps * settings["training"]["batch_size"], len(loaded.train))
    settings["data"] |= {"train": size, "test": min(2000, len(loaded.test))}
    settings["training"]["epochs"] = 1
    short = Trial(trial.arm, trial.seed, spec.Settings.model_validate(settings))
    seconds = []
    step = Learner.step

    def timed_step(learner: Learner, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        before = perf_counter()
        result = step(learner, inputs, labels)
        seconds.append(perf_counter() - before)
        return result

    Learner.step = timed_step  # type: ignore[method-assign, assignment]
    try:
        before = perf_counter()
        (record,) = loop.train(TrialContext(short, xray=False))
        whole = perf_counter() - before
    finally:
        Learner.step = step  # type: ignore[method-assign]
    assert not isinstance(record, Turn)  # only trials beside others yield it
    return 1 - (sum(seconds) + record["eval_seconds"]) / whole


def matrix_products(
    network: nn.Module, inputs: Tensor, dtype: torch.dtype = torch.float32
) -> list[Callable[[], Tensor]]:
    """List the matrix products that a training step of plain layers needs, as functions to call.

    A linear layer or a convolution that is not depthwise is one product forward, one for the gradient of the weights
    and one for that of its input, except in the first layer. Depthwise convolutions are no matrix products.
    """
    shapes: list[tuple[int, int, int]] = []

    def record_shape(module: nn.Module, _args: object, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            shapes.append((output.numel() // module.out_channels, module.weight[0].numel(), module.out_channels))
        elif isinstance(module, nn.Linear):
            shapes.append((output.numel() // module.out_features, module.in_features, module.out_features))

    hooks = [module.register_forward_hook(record_shape) for module in network.modules()]
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    products: list[Callable[[], Tensor]] = []
    for rows, inner, columns in shapes:
        sizes = (rows, inner), (columns, inner), (rows, columns)
        x, weight, grad = (torch.rand(size, dtype=dtype) for size in sizes)
        products += [partial(torch.mm, x, weight.t()), partial(torch.mm, grad.t(), x)]
        products += [partial(torch.mm, grad, weight)] if len(products) > 2 else []
    return products


def _interleave(sides: Sequence[Callable[[], object]], rounds: int, repeats: int = 3) -> list[float]:
    """Time several functions in turn; return the median seconds of each, after a warm-up round."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds + 1):
        for side, seconds in zip(sides, times, strict=True):
            seconds.extend(_seconds(side) for _ in range(repeats))
    return [statistics.median(seconds[repeats:]) for seconds in times]


def _cores_of_process() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _with_cores(cores: int, action: Callable[[], object]) -> None:
    """Call an action with the help of other cores."""
    use_cores(cores)
    try:
        action()
    finally:
        use_cores(1)


def _seconds(action: Callable[[], object]) -> float:
    before = perf_counter()
    action()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # by what was timed
        torch.cuda.synchronize()
    return perf_counter() - before


def train_and_measure(trial: Trial, threads: int) -> int | None:
    """In a worker: train a little, then add up its private memory; None if the system isn't Linux."""
    pace(trial, threads=threads, steps=4)
    rollup = Path("/proc/self/smaps_rollup")
    if not rollup.exists():
        return None
    lines = (line.split() for line in rollup.read_text(encoding="ascii").splitlines()[1:])
    return sum(int(words[1]) * 1024 for words in lines if words[0] in {"Private_Clean:", "Private_Dirty:"})
