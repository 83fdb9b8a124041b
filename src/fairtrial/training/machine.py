"""Describe and set up the process that trains."""

import importlib.metadata
import platform
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch

import fairtrial
from fairtrial import sources
from fairtrial.measures import compares_times
from fairtrial.spec import BUILT_IN, Study
from fairtrial.training import devices, precision
from fairtrial.training.devices import choose_device
from fairtrial.training.kernels import compiler, fused, library
from fairtrial.training.kernels.assistance import use_cores
from fairtrial.training.loop import load_once
from fairtrial.trial import Machine, Trial

#: Packages whose version can change a trial's numbers.
PACKAGES = ("numpy", "torch")


def describe_process() -> Machine:
    """Describe this process: versions, processor, device and threads."""
    return replace(_unchanging(), threads=torch.get_num_threads())


def describe_machine(trial: Trial) -> Machine:
    """Describe this process, the user's own code that the trial names, and of fairtrial's own loop layers and data."""
    settings = trial.settings
    machine = replace(describe_process(), code=sources.code_of(settings.entries))
    if settings.training.loop != BUILT_IN:
        return machine
    precision.check(settings.training.precision, choose_device())
    computed_by = {"cpu": library.path, "cuda": fused.path}.get(choose_device().type, lambda: "torch's own")()
    if settings.training.precision != "float32":  # torch's own by the setting, in which arms may differ
        computed_by = ""
    data, weights = load_once(settings.data).digest, settings.model.fetch()
    return replace(machine, layers=computed_by, data=data, weights=weights)


@cache
def _unchanging() -> Machine:
    device = choose_device()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return Machine(
        versions={"fairtrial": fairtrial.__version__, "python": platform.python_version(), **versions},
        processor=compiler.processor()["model name"],
        device=devices.describe(device),
        threads=torch.get_num_threads(),
        system=platform.platform(),
    )


def set_up_worker(threads: int) -> None:
    """Set up a worker before its first trial."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, on CUDA too


def sharing_cores(study: Study) -> Callable[[int], None] | None:
    """What a worker calls when its trial may use another number of cores; None where nothing must help trials.

    Cores that help change no number but the times of the trials that they help, which a study may ask about.
    """
    return None if compares_times(study) else use_cores
