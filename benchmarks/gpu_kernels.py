"""The programs for a GPU (`training/kernels/gpu.py`): their errors, their bits, and training steps a second with them.

    python benchmarks/gpu_kernels.py                       about 70 s on an H100 with nothing compiled before
    python benchmarks/gpu_kernels.py --stem cifar --trials 1 16

Synthetic images, MobileNetV2 on 32x32, batch 64, float32, Adam. Each trial has its training step as a CUDA graph on a
stream of its own; one thread replays them in turn, and "steps/s" counts those of all trials together. Then the GPU's
time for one step of one trial by kind of kernel. A variant that fails is reported, and the others go on.
"""

import argparse
import copy
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairtrial.training.kernels import fused
from fairtrial.training.kernels.gpu import Parts, accelerate_on_gpu
from fairtrial.training.models.mobilenet_v2 import MobileNetV2

CLASSES, IMAGES, BATCH = 10, 4096, 64
COMPILERS = 8
Stem = Literal["stock", "cifar"]


class Variant(NamedTuple):
    """What is accelerated, and up to how many pixels one program goes over all of them; None leaves torch's layers."""

    parts: Parts | None
    largest_whole: int = fused.LARGEST_WHOLE


VARIANTS = {
    "torch": Variant(None),
    "products": Variant(Parts(norms=False, depthwise=False)),
    "norms": Variant(Parts(pointwise=False, depthwise=False)),
    "chains": Variant(Parts(pointwise=False, norms=False)),
    "all": Variant(Parts()),
    "all, whole to 1024": Variant(Parts(), 1024),
    "all, whole to 16384": Variant(Parts(), 16384),
}

#: Maps, channels and strides of the depthwise convolutions, of both stems.
SHAPES = (
    (16, 32, 1), (16, 96, 2), (8, 144, 1), (8, 144, 2), (4, 192, 1), (4, 192, 2), (2, 384, 1), (2, 576, 2),
    (1, 960, 1), (32, 32, 1), (32, 96, 1), (32, 144, 2),
)  # fmt: skip


def main() -> None:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stem", choices=["stock", "cifar"], default="stock")
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--seconds", type=float, default=0.4, help="of each measurement")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--compile", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_kernels: needs a CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    if chosen.compile is not None:
        compile_some(chosen.compile, chosen.stem)
        return
    started = time.perf_counter()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {platform.python_version()}")
    with told("compiling"):
        compile_all(chosen.stem)
    print(f"compiled in {COMPILERS} processes after {time.perf_counter() - started:.0f} s\n")
    check()
    print(f"\nafter {time.perf_counter() - started:.0f} s; steps/s of all trials together, {chosen.stem} stem")
    print(f"{'':22}" + "".join(f"{f'{count} trials':>12}" for count in chosen.trials))
    for name in chosen.variants:
        row = f"{name:22}"
        with told(name):
            fleet = trials(VARIANTS[name], chosen.stem, max(chosen.trials))
            for count in chosen.trials:
                row += f"{steps_a_second(fleet[:count], chosen.seconds):12.0f}"
            del fleet
        print(row, flush=True)
    for name in ("torch", "all"):
        if name in chosen.variants:
            print(f"\none step of one trial, {name}: kernels and microseconds of the GPU by kind")
            with told(name):
                profile(VARIANTS[name], chosen.stem)
    print(f"\n{time.perf_counter() - started:.0f} s")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Print an error and go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (whatever a compiler or a device says)
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119
        print(f"FAILED {what}: {type(error).__name__} at {place}: {str(error)[-600:]}", flush=True)


# ---- compiling ------------------------------------------------------------------------------------------------------


def compile_all(stem: Stem) -> None:
    """Compile in several processes at once: they leave what they compile in Triton's cache."""
    command = [sys.executable, __file__, "--stem", stem, "--compile"]
    children = [subprocess.Popen([*command, str(number)]) for number in range(COMPILERS)]
    for child in children:
        child.wait()


def compile_some(number: int, stem: Stem) -> None:
    """Run this process's share of the checks' and the networks' layers once."""
    jobs: list[Callable[[], object]] = []
    for size, channels, stride in SHAPES:
        jobs.append(partial(try_chain, size, channels, stride))
    for name in ("all", "all, whole to 1024", "all, whole to 16384"):
        blocks = range(len(build(stem).features))
        jobs += [partial(run_one, VARIANTS[name], stem, at) for at in blocks]
    for job in jobs[number::COMPILERS]:
        with told("compiling"):
            job()


def try_chain(size: int, channels: int, stride: int) -> None:
    """Run the layers of a check once."""
    gradients(fast(layers(channels, stride)), inputs(size, channels))


def run_one(variant: Variant, stem: Stem, at: int) -> None:
    """Train one step of one block of the network."""
    network = build(stem)
    sizes: list[torch.Size] = []
    block = network.features[at]
    block.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape))
    with torch.no_grad():
        network.eval()(torch.zeros(2, 3, 32, 32, device="cuda"))
    images = torch.randn(BATCH, *sizes[0][1:], device="cuda").contiguous(memory_format=torch.channels_last)
    block._forward_pre_hooks.clear()  # noqa: SLF001
    with whole_up_to(variant.largest_whole):
        gradients(accelerate_on_gpu(nn.Sequential(block.train())), images)


@contextmanager
def whole_up_to(pixels: int) -> Iterator[None]:
    """Let one program go over all pixels if there are at most so many."""
    before = fused.LARGEST_WHOLE
    fused.LARGEST_WHOLE = pixels
    fused.tile.cache_clear()
    try:
        yield
    finally:
        fused.LARGEST_WHOLE = before
        fused.tile.cache_clear()


# ---- errors and bits ------------------------------------------------------------------------------------------------


def layers(channels: int, stride: int) -> nn.Sequential:
    """Norm, activation, depthwise convolution, norm, activation, with parameters that are no constants."""
    made = nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU6(),
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(),
    ).cuda()
    for one in (made[0], made[3]):
        nn.init.uniform_(one.weight, 0.5, 2)
        nn.init.normal_(one.bias)
    return made


def inputs(size: int, channels: int) -> Tensor:
    """Random images for a layer."""
    made = torch.randn(BATCH, channels, size, size, device="cuda") + 0.5
    return made.contiguous(memory_format=torch.channels_last)


def fast(module: nn.Module) -> nn.Module:
    """An accelerated copy."""
    return accelerate_on_gpu(copy.deepcopy(module))


def gradients(module: nn.Module, given: Tensor) -> dict[str, Tensor]:
    """Output, gradients and buffers of a module for a fixed gradient of its output."""
    given = given.detach().requires_grad_()
    output = module(given)
    generator = torch.Generator("cuda").manual_seed(1)
    output.backward(torch.randn(output.shape, device="cuda", dtype=torch.float32, generator=generator).to(output))
    named = {name: one.grad for name, one in module.named_parameters() if one.grad is not None}
    return {"output": output.detach(), "input": cast("Tensor", given.grad)} | named | dict(module.named_buffers())


def check() -> None:
    """Print the largest relative error against float64 of outputs and gradients, and whether two runs agree."""
    print(f"{'map, channels, stride':24}{'ours':>10}{'torch':>10}  two runs")
    torch.manual_seed(0)
    for shape in SHAPES:
        with told(str(shape)):
            size, channels, stride = shape
            plain, given = layers(channels, stride), inputs(size, channels)
            exact = gradients(copy.deepcopy(plain).double(), given.double())
            found = [gradients(fast(plain), given) for _ in range(2)]
            torchs = gradients(copy.deepcopy(plain), given)
            same = all(torch.equal(found[0][name], found[1][name]) for name in exact)
            errors = [
                max(
                    ((one[name].double() - value).norm() / value.norm()).item()
                    for name, value in exact.items()
                    if value.is_floating_point()
                )
                for one in (found[0], torchs)
            ]
            flag = "" if errors[0] < max(1e-5, 10 * errors[1]) else "  TOO FAR"
            print(
                f"{shape!s:24}{errors[0]:10.1e}{errors[1]:10.1e}  {'equal' if same else 'DIFFERENT'}{flag}", flush=True
            )


# ---- steps ----------------------------------------------------------------------------------------------------------


def build(stem: Stem) -> nn.Module:
    """The network on the GPU."""
    network = MobileNetV2(stem=stem).build(classes=CLASSES, image_size=32, channels=3, seed=0)
    return network.cuda().to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload]


class Trial:
    """A trial on a stream of its own, its step a graph."""

    def __init__(self, variant: Variant, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.network = network
        if variant.parts is not None:
            accelerate_on_gpu(self.network, variant.parts)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.num_batches_tracked = None  # fairtrial counts for all norms at once
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True, capturable=True)
        self.order = torch.randperm(IMAGES, device="cuda")
        self.at = torch.zeros((), dtype=torch.int64, device="cuda")
        self.steps = torch.arange(BATCH, device="cuda")
        self.loss = torch.zeros((), device="cuda")
        self.stream = torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(2):
                self.step()
            self.optimizer.zero_grad()  # so that the graph has gradients of its own and adds nothing to old ones
            self.stream.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                self.step()

    def step(self) -> None:
        """Take a training step."""
        rows = self.order.index_select(0, (self.at + self.steps) % IMAGES)
        images = self.images.index_select(0, rows).permute(0, 3, 1, 2).float().div_(255)
        loss = cross_entropy(self.network(images), self.labels.index_select(0, rows))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.loss.copy_(loss.detach())
        self.at += BATCH

    def replay(self) -> None:
        """Start a step."""
        with torch.cuda.stream(self.stream):
            self.graph.replay()


def trials(variant: Variant, stem: Stem, count: int) -> list[Trial]:
    """Some trials, ready."""
    generator = torch.Generator("cuda").manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 32, 32, 3), dtype=torch.uint8, device="cuda", generator=generator)
    labels = torch.randint(0, CLASSES, (IMAGES,), device="cuda", generator=generator)
    network = build(stem)
    with whole_up_to(variant.largest_whole):
        return [Trial(variant, copy.deepcopy(network), images, labels) for _ in range(count)]


def steps_a_second(fleet: list[Trial], seconds: float) -> float:
    """Steps a second of some trials together."""
    rounds, took = 10, 0.0
    while took < seconds / 2:  # the first rounds warm up
        rounds = max(rounds, min(4 * rounds, int(rounds * seconds / max(took, 1e-3))))
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(rounds):
            for trial in fleet:
                trial.replay()
        torch.cuda.synchronize()
        took = time.perf_counter() - began
    losses = torch.stack([trial.loss for trial in fleet])
    if not losses.isfinite().all():
        print("a loss is not finite")
    return rounds * len(fleet) / took


KINDS = {
    "batch norm": ("batch_norm", "bn_"),
    "own programs": ("norm_forward", "norm_backward", "chain_"),
    "products": ("gemm", "gemv", "cutlass", "splitk", "cublas"),
    "convolutions": ("conv", "depthwise", "wgrad", "dgrad", "cudnn", "implicit", "fprop"),
    "Adam": ("adam",),
    "copies": ("memcpy", "memset", "copy", "fill"),
}


def profile(variant: Variant, stem: Stem) -> None:
    """Print the time of one step by kind of kernel, and the longest kernels."""
    trial = trials(variant, stem, 1)[0]
    trial.replay()
    torch.cuda.synchronize()
    steps = 5
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            trial.replay()
        torch.cuda.synchronize()
    kinds: dict[str, list[float]] = {}
    names: dict[str, list[float]] = {}
    for event in profiler.key_averages():
        if event.self_device_time_total <= 0:
            continue
        lower = event.key.lower()
        kind = next((kind for kind, words in KINDS.items() if any(word in lower for word in words)), "other")
        for table, key in ((kinds, kind), (names, event.key[:80])):
            entry = table.setdefault(key, [0.0, 0.0])
            entry[0] += event.count / steps
            entry[1] += event.self_device_time_total / steps
    for table, most in ((kinds, 10), (names, 12)):
        for key, (count, micros) in sorted(table.items(), key=lambda item: -item[1][1])[:most]:
            print(f"  {key:80}{count:7.0f}{micros:9.0f}")
    print(f"  {'sum':80}{sum(c for c, _ in kinds.values()):7.0f}{sum(m for _, m in kinds.values()):9.0f}", flush=True)


if __name__ == "__main__":
    main()
