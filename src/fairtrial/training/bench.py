"""What this machine can do: a training step by the plain and the fast path, beside its matrix products alone."""

import math
import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from fairtrial import spec
from fairtrial.scheduler import plan
from fairtrial.training import datasets, loop, prepare
from fairtrial.training.allocator import keep_freed_memory
from fairtrial.training.kernels import layers
from fairtrial.training.learner import Learner
from fairtrial.training.machine import use_threads
from fairtrial.trial import Trial, TrialContext

#: Rounds of a comparison; in each round every side runs in turn, so that a machine whose speed drifts stays fair.
ROUNDS = 7


@dataclass(frozen=True)
class Side:
    """One way to take a training step.

    Attributes:
        step_ms: milliseconds a step, the median over rounds.
        images_per_second: training images a second at that pace.
    """

    step_ms: float
    images_per_second: float


@dataclass(frozen=True)
class Bench:
    """What was measured of one worker.

    Attributes:
        plain: with torch's own layers, channels last.
        fast: with fairtrial's layers.
        matmul_ms: milliseconds of the matrix products of the same step, alone: the limit.
        step_over_matmul: the fast step as a multiple of that.
        overhead_share: share of a trial's time that is neither a training step nor an evaluation.
        worker_private_bytes: memory that a worker shares with nobody; None where the system does not tell.
        path: which fast path is in use, or why there is none.
        threads: torch threads of the worker that was measured.
    """

    plain: Side
    fast: Side
    matmul_ms: float
    step_over_matmul: float
    overhead_share: float
    worker_private_bytes: int | None
    path: str
    threads: int


def bench(study: spec.Study, *, threads: int = 1, rounds: int = ROUNDS) -> Bench:
    """Measure what a training step costs here, with the settings of a study's first arm.

    Args:
        study: its model, data and batch size are used; the data are fetched if they are not here yet.
        threads: torch threads; a worker has one unless told otherwise.
        rounds: how often each side runs; medians are over these.
    """
    use_threads(threads)
    keep_freed_memory()  # for all sides: page faults are no part of what the layers or the products need
    prepare.prepare(study)
    trial = plan(study)[0]
    dataset = datasets.load(trial.settings.data, verify=False)
    batch = min(trial.settings.training.batch_size, len(dataset.train))
    inputs, labels = dataset.train.batch(torch.arange(batch))
    fast, plain = (Learner.build(trial, dataset, fast=fast) for fast in (True, False))
    inputs, labels = inputs.to(fast.device), labels.to(fast.device)
    products = matrix_products(plain.network, inputs)
    plain_s, fast_s, matmul_s = _interleave(
        [lambda: plain.step(inputs, labels), lambda: fast.step(inputs, labels), lambda: _multiply(products)], rounds
    )
    return Bench(
        plain=Side(plain_s * 1e3, batch / plain_s),
        fast=Side(fast_s * 1e3, batch / fast_s),
        matmul_ms=matmul_s * 1e3,
        step_over_matmul=fast_s / matmul_s,
        overhead_share=overhead(trial),
        worker_private_bytes=private_bytes_of_a_worker(trial, threads),
        path=layers.path(),
        threads=threads,
    )


@dataclass(frozen=True)
class Pace:
    """What one trial costs on one worker here, beside its start.

    Attributes:
        step_seconds: a training step.
        image_seconds: evaluating one image.
        start_seconds: building the model and loading the data.
    """

    step_seconds: float
    image_seconds: float
    start_seconds: float

    def trial_seconds(self, settings: spec.Settings, dataset: datasets.Dataset) -> float:
        """Estimate a whole trial's seconds."""
        steps = math.ceil(len(dataset.train) / settings.training.batch_size)
        evaluated = len(dataset.test) + (len(dataset.validation) if dataset.validation else 0)
        epoch = steps * self.step_seconds + evaluated * self.image_seconds
        return self.start_seconds + settings.training.epochs * epoch


def pace(trial: Trial, *, threads: int = 1, steps: int = 12) -> Pace:
    """Time a few steps and an evaluation of a trial; half of the steps warm up and do not count.

    Args:
        trial: what to time; its data must be in the cache.
        threads: torch threads, as the workers will have.
        steps: steps to take.
    """
    use_threads(threads)
    keep_freed_memory()
    started = perf_counter()
    dataset = datasets.load(trial.settings.data, verify=False)
    learner = Learner.build(trial, dataset)
    built = perf_counter()
    batch = min(trial.settings.training.batch_size, len(dataset.train))
    inputs, labels = (tensor.to(learner.device) for tensor in dataset.train.batch(torch.arange(batch)))
    times = [_seconds(lambda: learner.step(inputs, labels)) for _ in range(steps)]
    few = _head(dataset.test, loop.EVALUATION_BATCH)
    loop.evaluate(learner.network, few, learner.device)
    evaluation = _seconds(lambda: loop.evaluate(learner.network, few, learner.device))
    return Pace(statistics.median(times[steps // 2 :]), evaluation / len(few), built - started)


def overhead(trial: Trial, steps: int = 60) -> float:
    """Measure which share of a short trial's time is neither a training step nor an evaluation.

    Loading data and building the model count as overhead; in a real trial they are spread over many more steps.

    Args:
        trial: what to train, cut to one epoch of at most so many steps.
        steps: training steps to take.
    """
    settings = trial.settings.model_dump()
    data = trial.settings.data
    size = min(steps * settings["training"]["batch_size"], data.train_images)
    settings["data"] |= {"train": size, "test": min(2000, data.test_images)}
    settings["training"]["epochs"] = 1
    short = Trial(trial.arm, trial.seed, spec.Settings.model_validate(settings))
    inside = 0.0
    step = Learner.step

    def timed_step(learner: Learner, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal inside
        before = perf_counter()
        result = step(learner, inputs, labels)
        inside += perf_counter() - before
        return result

    Learner.step = timed_step  # type: ignore[method-assign, assignment]
    try:
        before = perf_counter()
        (record,) = loop.train(TrialContext(short))
        whole = perf_counter() - before
    finally:
        Learner.step = step  # type: ignore[method-assign]
    return 1 - (inside + record["eval_seconds"]) / whole


def private_bytes_of_a_worker(trial: Trial, threads: int) -> int | None:
    """Measure, in a process of its own, the memory that a training worker shares with nobody.

    Returns:
        Bytes after a few steps and an evaluation, as Linux tells them; None on other systems.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_train_and_look, (trial.settings.model_dump(), threads))


def matrix_products(network: nn.Module, inputs: Tensor) -> list[Callable[[], Tensor]]:
    """List the matrix products that a training step can't do without, ready to be run.

    A convolution that is not depthwise is one product of (pixels, inputs a pixel) with (inputs, outputs) forward, one
    for the gradient of the weights and one for that of its input; the first layer needs no gradient of its input. So is
    a linear layer. Depthwise convolutions are no matrix products.

    Args:
        network: plain layers.
        inputs: a batch, shape (batch, channels, height, width).
    """
    shapes: list[tuple[int, int, int]] = []

    def note(module: nn.Module, _args: object, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            shapes.append((output.numel() // module.out_channels, module.weight[0].numel(), module.out_channels))
        elif isinstance(module, nn.Linear):
            shapes.append((output.numel() // module.out_features, module.in_features, module.out_features))

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    products: list[Callable[[], Tensor]] = []
    for layer, (rows, inner, columns) in enumerate(shapes):
        products += _three_products(rows, inner, columns, input_gradient=layer > 0)
    return products


def _three_products(rows: int, inner: int, columns: int, *, input_gradient: bool) -> Iterator[Callable[[], Tensor]]:
    x, weight, grad = torch.rand(rows, inner), torch.rand(columns, inner), torch.rand(rows, columns)
    yield lambda: x @ weight.t()
    yield lambda: grad.t() @ x
    if input_gradient:
        yield lambda: grad @ weight


def _head(images: datasets.ImageSet, count: int) -> datasets.ImageSet:
    """The first images of a set."""
    index = torch.arange(len(images)) if images.index is None else images.index
    return replace(images, index=index[:count], labels=images.labels[:count])


def _multiply(products: list[Callable[[], Tensor]]) -> None:
    for product in products:
        product()


def _interleave(sides: list[Callable[[], object]], rounds: int, repeats: int = 3) -> list[float]:
    """Time several things in turn; the median seconds of each, after one round that warms up."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds + 1):
        for side, seen in zip(sides, times, strict=True):
            seen.extend(_seconds(side) for _ in range(repeats))
    return [statistics.median(seen[repeats:]) for seen in times]


def _seconds(action: Callable[[], object]) -> float:
    before = perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter() - before


def _train_and_look(settings: dict[str, object], threads: int) -> int | None:
    """In a worker: train a little, then add up what the system says is private."""
    use_threads(threads)
    trial = Trial("bench", 0, spec.Settings.model_validate(settings))
    pace(trial, threads=threads, steps=4)
    rollup = Path("/proc/self/smaps_rollup")
    if not rollup.exists():
        return None
    lines = (line.split() for line in rollup.read_text(encoding="ascii").splitlines()[1:])
    return sum(int(words[1]) * 1024 for words in lines if words[0] in {"Private_Clean:", "Private_Dirty:"})
