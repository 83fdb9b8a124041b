"""Measuring trials side by side, through the stand-in for CUDA graphs: what is measured. No time is asserted."""

import json
import os

import pytest
import torch

from fairtrial.errors import FairtrialError
from fairtrial.report.costs import bench_text, to_json
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import bench, bench_gpu, devices, graphs, loop
from fairtrial.training.kernels import fused, library

TINY = {
    "name": "s",
    "reference": "a",
    "arms": {"a": {}},
    "data": {"name": "digits", "train": 70, "test": 30},
    "model": {"name": "mlp"},
    "training": {"epochs": 1, "batch_size": 32},
}


@pytest.fixture
def recorders(monkeypatch):
    """Record steps on a CPU, too; returns the recorders that were made."""
    made = []

    def make(device):
        made.append(graphs.recorder_for(device) or graphs.OperationRecorder())
        return made[-1]

    monkeypatch.setattr(library, "load", lambda dtype: None)  # of which the stand-in sees no operations
    monkeypatch.setattr(loop, "recorder_for", make)
    return made


def first(**changes):
    return plan(Study.from_dict(TINY | changes))[0]


@pytest.mark.parametrize("settings", [{}, {"optimizer": {"name": "muon"}}, {"optimizer": {"lr": 1e30}}])
def test_trials_train_and_evaluate_in_turns_without_end(recorders, settings):
    """An epoch is three steps: the trials come to their end, or diverge, many times."""
    trial = first(**settings)
    measured = bench_gpu.measure([trial, trial], 0.2)
    assert measured.trials == 2
    assert measured.steps_per_second > 0
    assert measured.images_per_second > 0
    assert measured.start_seconds > 0
    assert 0 <= measured.waited_share < 1
    assert len(recorders) >= 2 or "optimizer" in settings
    if not torch.cuda.is_available():
        assert measured.bytes_per_trial is measured.peak_bytes is None


def test_the_json_and_the_table_have_both_kinds_of_layers(recorders, monkeypatch):
    monkeypatch.setattr(fused, "is_available", lambda: True)
    monkeypatch.setattr(fused, "path", lambda: "Triton's programs (0)")
    monkeypatch.setattr(bench_gpu, "_memory", lambda *_: (3 << 20, 5 << 30))
    monkeypatch.setattr(devices, "memory", lambda: (1 << 30, 0))
    monkeypatch.delenv("FAIRTRIAL_KERNELS", raising=False)
    measured = bench_gpu.bench_gpu(Study.from_dict(TINY), counts=(1, 2), seconds=0.1)
    assert "FAIRTRIAL_KERNELS" not in os.environ
    told = json.loads(to_json(measured))
    assert [one["trials"] for one in told["fast"]] == [one["trials"] for one in told["plain"]] == [1, 2]
    assert set(told["fast"][0]) == {
        "trials",
        "steps_per_second",
        "images_per_second",
        "waited_share",
        "start_seconds",
        "bytes_per_trial",
        "peak_bytes",
    }
    assert told["not_recorded"] == ""
    text = bench_text(measured)
    assert "fairtrial's layers: all trials together" in text
    assert text.count("MiB a trial") == 2
    assert text.splitlines()[-1].split()[-2:] == ["3", "5.0"]


def test_where_there_are_no_layers_but_torchs(recorders, monkeypatch):
    monkeypatch.setenv("FAIRTRIAL_KERNELS", "off")
    study = Study.from_dict(TINY | {"optimizer": {"name": "muon"}})
    measured = bench_gpu.bench_gpu(study, counts=(1,), seconds=0.1)
    assert os.environ["FAIRTRIAL_KERNELS"] == "off"
    assert (measured.fast, measured.path) == ((), "torch's own")
    assert "none, optimizer muon decides in Python what it computes" in bench_text(measured)
    assert "fairtrial's layers" not in bench_text(measured)


def test_numbers_rise_as_long_as_there_is_memory(monkeypatch):
    """A trial takes 4 bytes of 20; another process may take what is left meanwhile."""
    free, refused = [20], []

    def measure(trials, seconds):
        if len(trials) in refused:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has ...")
        return bench_gpu.SideBySide(len(trials), 1.0, 1.0, 0.0, 1.0, 4, 4)

    monkeypatch.setattr(devices, "memory", lambda: (free[0], 0))
    monkeypatch.setattr(bench_gpu, "measure", measure)

    def numbers():
        return [one.trials for one in bench_gpu.measure_each(first(), (1, 2, 4, 8), 1.0)]

    assert numbers() == [1, 2, 4]
    refused.append(4)
    assert numbers() == [1, 2]
    refused.append(1)
    with pytest.raises(FairtrialError, match=r"^one trial has not enough memory on the GPU: CUDA out of memory$"):
        numbers()


def test_on_a_gpu_the_benchmark_and_the_pace_are_of_trials_that_take_turns(monkeypatch):
    monkeypatch.setattr(bench, "choose_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(bench, "bench_gpu", lambda study, threads: (study, threads))
    monkeypatch.setattr(
        bench, "measure", lambda trials, seconds: bench_gpu.SideBySide(1, 50.0, 400.0, 0.0, 0.5, None, None)
    )
    assert bench.bench("study", threads=2) == ("study", 2)
    assert bench.pace(first()) == bench.Pace(step_seconds=0.02, image_seconds=0.0025, start_seconds=0.5)
