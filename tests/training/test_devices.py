"""Names and choice of devices, on a machine that is said to have some GPUs, and on one that has."""

import math

import pytest
import torch

from fairtrial.errors import FairtrialError
from fairtrial.scheduler import plan
from fairtrial.training import devices, loop
from fairtrial.trial import TrialContext


@pytest.fixture
def machine(monkeypatch):
    """Make a machine with so many GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")

    def make(gpus, chosen=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.version, "cuda", "13.0" if gpus else None)
        monkeypatch.setenv(devices.VARIABLE, chosen or "")

    return make


@pytest.mark.parametrize(
    ("gpus", "chosen", "device", "count"),
    [
        (0, None, "cpu", 0),
        (2, None, "cuda:0", 2),
        (2, "cpu", "cpu", 0),
        (2, "cuda", "cuda:0", 2),
        (2, "cuda:1", "cuda:1", 1),
    ],
)
def test_the_chosen_device_or_all_gpus(machine, gpus, chosen, device, count):
    machine(gpus, chosen)
    assert str(devices.choose_device()) == device
    assert devices.gpus() == count


@pytest.mark.parametrize(
    ("gpus", "chosen", "message"),
    [
        (0, "tpu", "must be cpu, cuda, cuda:0 and so on, or mps"),
        (0, "cuda:", "must be cpu, cuda, cuda:0 and so on, or mps"),
        (0, "cuda", f"torch {torch.__version__} is built without CUDA; leave it out, or write cpu"),
        (1, "cuda:1", "this machine has cuda:0 alone"),
        (2, "cuda:7", "this machine has cuda:0 to cuda:1"),
    ],
)
def test_devices_that_are_none(machine, gpus, chosen, message):
    machine(gpus, chosen)
    with pytest.raises(FairtrialError) as error:
        devices.choose_device()
    assert str(error.value) == f"device {chosen!r} (of --device or FAIRTRIAL_DEVICE): {message}"
    with pytest.raises(FairtrialError):
        devices.gpus()


def test_a_machine_without_apples_gpu(machine, monkeypatch):
    machine(0, "mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(FairtrialError, match=r"no GPU of Apple's that torch can use; leave it out$"):
        devices.choose_device()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.choose_device().type == "mps"


def test_each_process_sees_one_of_the_chosen_gpus(machine, monkeypatch):
    machine(0)
    assert devices.show_one_gpu(0) == {}
    machine(2)
    assert [devices.show_one_gpu(worker)["CUDA_VISIBLE_DEVICES"] for worker in range(3)] == ["0", "1", "0"]
    assert devices.show_one_gpu(0)[devices.VARIABLE] == "cuda"
    machine(2, "cpu")
    assert devices.show_one_gpu(0) == {"CUDA_VISIBLE_DEVICES": "-1"}
    machine(2, "cuda:1")
    assert devices.show_one_gpu(0)["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert devices.show_one_gpu(0)["CUDA_VISIBLE_DEVICES"] == "GPU-b"


def test_products_on_gpus_are_deterministic_unless_the_user_says_otherwise(machine, monkeypatch):
    machine(1)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    assert devices.show_one_gpu(0)["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert devices.show_one_gpu(0)["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_memory_and_name_of_a_cpu(machine):
    machine(0)
    assert devices.memory() == (0, 0)
    assert devices.describe(torch.device("cpu")) == "cpu"


@pytest.mark.gpu
def test_memory_and_name_of_a_gpu():
    device = devices.choose_device()
    held = torch.zeros(1 << 20, device=device)
    free, taken = devices.memory()
    assert free > 0
    assert taken >= held.numel() * held.element_size()
    assert devices.describe(device) == torch.cuda.get_device_name()
    assert devices.gpus() == torch.cuda.device_count()


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs a GPU of Apple's")
def test_a_trial_trains_on_apples_gpu(make_study, monkeypatch):
    monkeypatch.setenv(devices.VARIABLE, "mps")
    data = {"name": "digits", "train": 70, "test": 30}
    study = make_study(
        seeds=1, data=data, model={"width": 0.25}, training={"epochs": 2, "batch_size": 16}, arms={"a": {}}
    )
    records = list(loop.train(TrialContext(plan(study)[0])))
    assert len(records) == 2
    assert all(math.isfinite(value) for one in records for value in one.values())
