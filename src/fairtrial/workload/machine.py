"""What a training run runs on."""

import importlib.metadata
import platform
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

import fairtrial
from fairtrial.records import Machine
from fairtrial.workload.train import choose_device

#: Packages whose version can change a trial's numbers.
PACKAGES = ("numpy", "torch")


def this_machine() -> Machine:
    """Describe the process that trains: versions, processor, device and threads."""
    return replace(_unchanging(), threads=torch.get_num_threads())


@cache
def _unchanging() -> Machine:
    device = choose_device()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return Machine(
        versions={"fairtrial": fairtrial.__version__, "python": platform.python_version(), **versions},
        processor=_processor(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        system=platform.platform(),
    )


def _processor() -> str:
    """Name the processor; the standard library knows only its architecture on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
