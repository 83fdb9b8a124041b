"""Names and choice of devices: the CPU, one GPU of NVIDIA's or all of them, or Apple's."""

import os
import re

import torch

from fairtrial.errors import FairtrialError

#: The variable that chooses the device; ``--device`` sets it, and worker processes inherit it.
VARIABLE = "FAIRTRIAL_DEVICE"

#: Without it, the products of cuBLAS may differ from run to run where several streams use it, says its documentation.
_DETERMINISTIC_PRODUCTS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

_NAME = re.compile(r"(cpu|mps|cuda)|cuda:([0-9]{1,3})")


def choose_device() -> torch.device:
    """Choose the device that this process trains on: what `VARIABLE` names; else a CUDA device if there is one.

    Raises:
        FairtrialError: the name is none, or this machine has no such device.
    """
    name = _chosen()
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        for variable, value in _DETERMINISTIC_PRODUCTS.items():
            os.environ.setdefault(variable, value)
        return torch.device("cuda", int(name.partition(":")[2] or 0))
    return torch.device(name)


def gpus() -> int:
    """Count the CUDA devices that a study may use: all that this process sees, the chosen one, or none."""
    return len(_numbers())


def show_one_gpu(worker: int) -> dict[str, str]:
    """Make the environment in which a worker (from 0) sees one of the chosen GPUs; more workers share them.

    Where the CPU was chosen it sees none, so that training loops of users' own, whatever library they use, train there.
    """
    numbers = _numbers()
    if not numbers:
        return {"CUDA_VISIBLE_DEVICES": "-1"} if _chosen() == "cpu" else {}
    number = numbers[worker % len(numbers)]
    visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    shown = visible[number] if number < len(visible) else str(number)
    given = {key: os.environ.get(key, value) for key, value in _DETERMINISTIC_PRODUCTS.items()}
    return {"CUDA_VISIBLE_DEVICES": shown, VARIABLE: "cuda"} | given


def memory() -> tuple[int, int]:
    """Bytes of this process's device that are free, and that this process has taken; both 0 where torch can't say."""
    device = choose_device()
    if device.type != "cuda":
        return 0, 0
    return torch.cuda.mem_get_info(device)[0], torch.cuda.memory_reserved(device)


def shortages(device: torch.device) -> int:
    """Count how often this process found no memory on a device for what it asked."""
    return int(torch.cuda.memory_stats_as_nested_dict(device)["num_ooms"]) if device.type == "cuda" else 0


def check_memory(device: torch.device, before: int) -> None:
    """Raise torch's error for a lack of memory if there were more shortages than before, which somebody has caught.

    cuDNN does: it takes an algorithm that needs less memory, and that one rounds otherwise.
    """
    if shortages(device) > before:
        raise torch.OutOfMemoryError("CUDA out of memory: convolutions may have used another algorithm for lack of it")


def describe(device: torch.device) -> str:
    """Name a device as records do: ``"cpu"``, or the accelerator's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type


def _chosen() -> str | None:
    """The chosen device's name, once it is sure that there is such a device; None if none was chosen."""
    name = os.environ.get(VARIABLE) or None
    if name is None:
        return None
    matched = _NAME.fullmatch(name)
    where = f"device {name[:40]!r} (of --device or {VARIABLE})"
    if matched is None:
        raise FairtrialError(f"{where}: must be cpu, cuda, cuda:0 and so on, or mps")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise FairtrialError(f"{where}: {_why_no_cuda()}; leave it out, or write cpu")
        if int(matched[2] or 0) >= count:
            raise FairtrialError(f"{where}: this machine has {_range(count)}")
    if name == "mps" and not torch.backends.mps.is_available():
        raise FairtrialError(f"{where}: this machine has no GPU of Apple's that torch can use; leave it out")
    return name


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "torch finds no CUDA device here"


def _range(count: int) -> str:
    return "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"


def _numbers() -> range:
    """The chosen CUDA devices, by their numbers in this process."""
    name = _chosen()
    if name is None or name == "cuda":
        return range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    if name.startswith("cuda:"):
        number = int(name.partition(":")[2])
        return range(number, number + 1)
    return range(0)
