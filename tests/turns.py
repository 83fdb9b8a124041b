"""Training loops that take turns in one process, for tests: what only fairtrial's own loop does otherwise."""

import os
import signal
import time
from pathlib import Path

import loops
from fairtrial.trial import Turn

#: The trials that run in this process.
RUNNING = set()

#: Turns in an epoch.
STEPS = 5


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's."""


def steps():
    """The turns of an epoch: some work, and some waiting."""
    for _ in range(STEPS):
        yield Turn.WAITS
        yield Turn.OVER


def mixed(trial):
    """Do what `loops.mixed` does, in turns."""
    for metrics in loops.mixed(trial):
        yield from steps()
        yield metrics


def filling_gpu(trial):
    """Have no memory beside more than two others, and none for an arm named `big` beside any."""
    yield from _beside_others(trial, 1 if trial.arm == "big" else 3)


def _beside_others(trial, most):
    RUNNING.add(trial.trial.hash)
    try:
        for _ in range(trial.epochs):
            yield from steps()
            if len(RUNNING) > most:
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
            yield {"test_acc": 0.5}
    finally:
        RUNNING.discard(trial.trial.hash)


def breaking_gpu(trial):
    """Have the arm `bad` report an error of CUDA's, in each attempt."""
    for _ in range(trial.epochs):
        yield from steps()
        if trial.arm == "bad":
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")
        yield {"test_acc": 0.5}


def slow(trial):
    """Have the arm `slow` take longer than any limit."""
    while trial.arm == "slow":
        time.sleep(0.01)
        yield Turn.OVER
    for _ in range(trial.epochs):
        yield from steps()
        yield {"test_acc": 0.5}


def steady(trial):
    """Take a thousand turns of the same length, in each epoch a third of them."""
    for _ in range(trial.epochs):
        for _ in range(333):
            time.sleep(0.005)
            yield Turn.OVER
        yield {"test_acc": 0.5}


def saving(trial):
    """Save the state in each turn where that is due; count attempts and epochs in files."""
    done, own = trial.load() or 0, f"{trial.arm}{trial.seed}"
    with Path(f"attempts-{own}").open("a") as file:
        file.write(f"{done}\n")
    for epoch in range(done, trial.epochs):
        yield from steps()
        while not Path("go").exists() and epoch == 1:
            yield Turn.WAITS
            if trial.checkpoint_due:
                trial.save(epoch)
        yield {"test_acc": 0.5 + epoch / 10}
        trial.save(epoch + 1)


def filling_real_gpu(trial):
    """Hold more than a quarter of the memory of a real GPU that this process may have."""
    import torch

    allowed = 1 << 30
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    held = torch.zeros(allowed * 3 // 10, dtype=torch.uint8, device="cuda")
    for _ in range(trial.epochs):
        yield from steps()
        yield {"test_acc": 0.5 + held[0].item()}


def breaking_real_gpu(trial):
    """Have the arm `bad` cause a real error of CUDA: it reads a row that there is not."""
    import torch

    rows = torch.arange(4, device="cuda")
    for _ in range(trial.epochs):
        yield from steps()
        yield {"test_acc": 0.5 + rows[rows + 9 * (trial.arm == "bad")].sum().item() / 100}


def recorded(trial):
    """Train by recorded steps on a CPU, too."""
    from fairtrial.training import graphs, loop  # the other loops need no torch, whose import takes a second
    from fairtrial.training.kernels import library

    library.load = lambda dtype: None  # of which the stand-in sees no operations
    loop.recorder_for = lambda device: graphs.recorder_for(device) or graphs.OperationRecorder()
    yield from loop.train(trial)


def recorded_on_cpu(trial):
    """Do the same where a process was told to use a GPU that it does not have."""
    os.environ["FAIRTRIAL_DEVICE"] = "cpu"
    yield from recorded(trial)


def looking_around(trial):
    """Report what a process sees, and how many trials it runs side by side."""
    RUNNING.add(trial.trial.hash)
    for _ in range(trial.epochs):
        yield from steps()
        yield {
            "pid": os.getpid(),
            "gpu": int(os.environ["CUDA_VISIBLE_DEVICES"]),
            "beside": len(RUNNING),
            "told": float(os.environ["FAIRTRIAL_DEVICE"] == "cuda"),
        }
    RUNNING.discard(trial.trial.hash)


def dying_once(trial):
    """Have the arm `own` or `parent` kill its process, or that process's parent, once in its second epoch."""
    for epoch in range(trial.epochs):
        yield from steps()
        if epoch == 1 and trial.arm in {"own", "parent"} and not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid() if trial.arm == "own" else os.getppid(), signal.SIGKILL)
            time.sleep(60)
        yield {"test_acc": 0.5}
