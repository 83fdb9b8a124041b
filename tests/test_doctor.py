"""`fairtrial doctor`: what it finds, and that it changes nothing."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fairtrial import doctor
from fairtrial.cli.main import app
from fairtrial.doctor import CheckStatus, check_installation
from fairtrial.store.sql import SQLStore


def found(store="fairtrial.db", **options):
    return {finding.part: finding for finding in check_installation(store, **options)}


def test_every_part_is_checked_and_nothing_is_left_behind():
    findings = found()
    assert list(findings) == [
        "versions",
        "processor",
        "GPU",
        "memory",
        "disk",
        "layers",
        "data",
        "store",
        "Ray",
        "PostgreSQL",
    ]
    assert "torch 2" in findings["versions"].detail
    assert f"SQLite {sqlite3.sqlite_version}" in findings["versions"].detail
    assert "can be written to" in findings["store"].detail
    assert list(Path().iterdir()) == []


@pytest.fixture
def machine(monkeypatch):
    """Make a machine with so many GPUs, of which torch can use all or none."""
    from fairtrial.training import devices, gpus
    from fairtrial.training.gpus import Gpu

    def make(number, *, cuda="13.0", usable=True, chosen=""):
        folder = Path("dev")
        folder.mkdir()
        for index in range(number):
            (folder / f"nvidia{index}").touch()
        (folder / "nvidiactl").touch()  # the driver, which needs no GPU
        found = (Gpu("NVIDIA H200", (9, 0), 139 << 30, 140 << 30),) * (number if usable else 0)
        monkeypatch.setattr(doctor, "DEVICES", folder)
        monkeypatch.setattr(gpus, "find_gpus", lambda: found)
        monkeypatch.setattr(gpus, "cuda_version", lambda: cuda)
        monkeypatch.setattr(gpus, "has_mps", lambda: False)
        monkeypatch.setenv(devices.VARIABLE, chosen)
        monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: bool(found))
        monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: len(found))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    return make


@pytest.mark.parametrize(
    ("given", "state", "detail"),
    [
        ({"number": 0, "cuda": None}, "good", "none; trials are trained on the CPU"),
        (
            {"number": 1, "cuda": None, "usable": False},
            "note",
            "this machine has one of NVIDIA's, but torch is built without CUDA: to train on it, install a build",
        ),
        (
            {"number": 1, "usable": False},
            "note",
            "this machine has one of NVIDIA's, but torch can't use it: check its driver, which must know CUDA 13.0",
        ),
        (
            {"number": 1},
            "good",
            "cuda:0 NVIDIA H200 (compute capability 9.0, 139.0 of 140.0 GiB free); torch has CUDA 13.0; cuda:0 is",
        ),
        ({"number": 2}, "good", "all are used, with Triton's programs (0)"),
        ({"number": 2, "chosen": "cuda:1"}, "good", "cuda:1 is used, with Triton's programs (0)"),
        ({"number": 1, "chosen": "cpu"}, "good", "torch has CUDA 13.0; not used, as device cpu is chosen"),
        (
            {"number": 1, "chosen": "cuda:3"},
            "bad",
            "device 'cuda:3' (of --device or FAIRTRIAL_DEVICE): this machine has",
        ),
    ],
)
def test_gpus(machine, monkeypatch, given, state, detail):
    from fairtrial.training.kernels import fused

    machine(**given)
    monkeypatch.setattr(fused, "is_available", lambda: True)
    monkeypatch.setattr(fused, "path", lambda: "Triton's programs (0)")
    gpu = next(one for one in check_installation() if one.part == "GPU")
    assert gpu.state == state
    assert detail in gpu.detail
    if given["number"] == 0:
        assert gpu.detail == detail


def test_gpus_that_a_variable_hides(machine, monkeypatch):
    machine(1, usable=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpu = next(one for one in check_installation() if one.part == "GPU")
    assert "torch can't use it (CUDA_VISIBLE_DEVICES is ''): check" in gpu.detail


@pytest.mark.parametrize(
    ("triton", "switch", "state", "detail"),
    [
        (
            None,
            "",
            "note",
            "with torch's own layers, several times slower: Triton is not installed; pip install triton",
        ),
        (object(), "off", "good", "with torch's own layers, as FAIRTRIAL_KERNELS=off asks"),
        (object(), "", "note", "with torch's own layers, several times slower: Triton can't compile (no gcc)"),
    ],
)
def test_layers_of_a_gpu_and_why_not(machine, monkeypatch, triton, switch, state, detail):
    from fairtrial.training.kernels import fused

    machine(1)
    monkeypatch.setenv("FAIRTRIAL_KERNELS", switch)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: triton)
    monkeypatch.setattr(fused, "is_available", lambda: False)
    monkeypatch.setattr(fused, "obstacle", lambda: "Triton can't compile (no gcc)")
    gpu = next(one for one in check_installation() if one.part == "GPU")
    assert gpu.state == state
    assert detail in gpu.detail


def test_memory_of_a_machine_with_gpus(machine, monkeypatch):
    machine(1000)
    memory = next(one for one in check_installation() if one.part == "memory")
    assert memory.state is CheckStatus.NOTE
    assert memory.detail.endswith("a process for each GPU can need 4 GB of it: close other programs")


def test_a_store_is_opened_and_checked(make_study):
    study = make_study()
    with SQLStore("fairtrial.db") as store:
        store.add_study(study, doctor_time())
    assert found()["store"].state is CheckStatus.GOOD
    assert "fairtrial.db is sound, with 1 study" in found()["store"].detail


def doctor_time():
    from datetime import UTC, datetime

    return datetime(2026, 1, 2, tzinfo=UTC)


def test_a_damaged_store_is_bad():
    with SQLStore("fairtrial.db"):
        pass
    content = bytearray(Path("fairtrial.db").read_bytes())
    content[4096:4200] = bytes(104)
    Path("fairtrial.db").write_bytes(content)
    assert found()["store"].state is CheckStatus.BAD


def test_a_file_that_is_no_database_is_bad():
    Path("fairtrial.db").write_text("notes, and no database at all " * 100)
    assert found()["store"].state is CheckStatus.BAD


def test_what_is_missing_is_reported(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    from fairtrial.training.kernels import compiler

    compiler.find_compiler.cache_clear()
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(Path("cache").resolve()))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    findings = found("postgresql://somewhere/db", address="somewhere:6379")
    compiler.find_compiler.cache_clear()
    assert (findings["layers"].state, findings["data"].state) == (CheckStatus.NOTE, CheckStatus.NOTE)
    assert "no compiler found (looked for no-such-compiler)" in findings["layers"].detail
    assert findings["Ray"].state is findings["PostgreSQL"].state is CheckStatus.BAD
    assert 'pip install "fairtrial[ray]"' in findings["Ray"].detail


@pytest.fixture
def _a_compiler(monkeypatch):
    from fairtrial.training.kernels import compiler

    monkeypatch.setattr(compiler, "find_compiler", lambda: compiler.Compiler("/usr/bin/g++", "g++ 12.2.0"))


@pytest.mark.usefixtures("_a_compiler")
def test_a_cache_without_a_home_folder_is_bad(monkeypatch):
    monkeypatch.setenv("FAIRTRIAL_CACHE", "~nosuch/x")
    findings = found()
    states = [findings[part].state for part in ("disk", "data", "layers")]
    assert states == [CheckStatus.BAD, CheckStatus.BAD, CheckStatus.NOTE]
    for part in ("disk", "data", "layers"):
        assert "no home folder for the cache; set FAIRTRIAL_CACHE to a folder" in findings[part].detail


@pytest.mark.usefixtures("_a_compiler")
def test_layers_that_cant_be_kept_are_not_ready(monkeypatch):
    """Asked is the nearest folder that exists; root, who may write everywhere, would not notice a refusal."""
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(Path("a/b").resolve()))
    assert found()["layers"].detail == "kernels by g++ 12.2.0, compiled when a study first needs them"
    asked = []
    monkeypatch.setattr("os.access", lambda path, *_: asked.append(path))
    layers = found()["layers"]
    assert layers.state is CheckStatus.NOTE
    assert layers.detail.startswith("torch's own, several times slower: ")
    assert layers.detail.endswith("can't be written to; set FAIRTRIAL_CACHE to a folder that can")
    assert Path.cwd() in asked


@pytest.mark.usefixtures("_a_compiler")
def test_layers_below_a_file_are_not_ready(monkeypatch):
    Path("file").write_text("in the way")
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(Path("file").resolve()))
    layers = found()["layers"]
    assert layers.state is CheckStatus.NOTE
    assert layers.detail.startswith("torch's own, several times slower: ")
    assert layers.detail.endswith("can't be read (Not a directory)")


def test_damaged_data_are_bad(monkeypatch):
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(Path("cache").resolve()))
    folder = Path("cache/cifar10")
    folder.mkdir(parents=True)
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        (folder / f"{name}.npy").write_bytes(b"no array")
    assert found()["data"].state is CheckStatus.BAD


@pytest.mark.parametrize(("state", "code"), [(CheckStatus.GOOD, 0), (CheckStatus.NOTE, 0), (CheckStatus.BAD, 1)])
def test_the_command_ends_by_what_it_found(monkeypatch, state, code):
    monkeypatch.setattr("fairtrial.doctor._versions", lambda: (state, "as they are"))
    monkeypatch.setattr("fairtrial.doctor._memory", lambda: (CheckStatus.GOOD, "enough"))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == code
    assert done.stdout.splitlines()[0].split() == [
        {"good": "ok", "note": "note", "bad": "BAD"}[state],
        "versions",
        "as",
        "they",
        "are",
    ]


def test_json_has_all_of_it():
    done = CliRunner().invoke(app, ["doctor", "--json"])
    parts = json.loads(done.stdout)
    assert [part["part"] for part in parts] == list(found())
    assert set(parts[0]) == {"part", "state", "detail"}


def test_a_part_that_breaks_is_a_finding(monkeypatch):
    monkeypatch.setitem(sys.modules, "fairtrial.training.machine", None)
    assert found()["processor"].state is CheckStatus.BAD
