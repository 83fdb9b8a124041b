"""Compiling once into a shared cache, and going on without where that can't be done."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fairtrial.training.kernels import cache, compiler, layers, library

FORGET = (compiler.find_compiler, library._kernels)


@pytest.fixture
def fresh(monkeypatch):
    """Forget what was found out about the compiler and the kernels, before and after."""
    for function in FORGET:
        function.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for function in FORGET:
        function.cache_clear()


@pytest.fixture
def working_compiler(fresh):
    try:
        return compiler.find_compiler()
    except cache.KernelsUnavailableError as reason:
        pytest.skip(str(reason))


def works_plainly():
    layer = layers.accelerate(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU6()))
    return library.load(torch.float32) is None and layer(torch.ones(2, 4, 3, 3)).isfinite().all()


def test_the_switch_turns_the_kernels_off(fresh):
    fresh.setenv("FAIRTRIAL_KERNELS", "off")
    assert works_plainly()
    assert library.path() == "plain: switched off by FAIRTRIAL_KERNELS"


def test_no_compiler(fresh, tmp_path):
    fresh.setenv("PATH", str(tmp_path))
    fresh.delenv("CXX", raising=False)
    assert works_plainly()
    assert library.path() == "plain: no compiler found (looked for g++, clang++, c++)"


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("path", ["", ".", ":{}", ".:{}"])
def test_no_program_in_the_working_folder_is_run(working_compiler, fresh, tmp_path, path):
    """Neither as a compiler, nor by the compiler, which looks for an assembler and a linker."""
    for name in ("g++", "clang++", "c++", "as", "ld"):
        program(Path(name), f"touch {tmp_path}/ran\necho planted 1.0")
    fresh.setenv("CXX", working_compiler.path)
    fresh.setenv("PATH", path.format(os.environ["PATH"]))
    compiler.find_compiler.cache_clear()
    compiler._compile(compiler.find_compiler(), {"kernels.cpp": "int x;"}, "float", tmp_path)
    fresh.delenv("CXX")
    compiler.find_compiler.cache_clear()
    if "{}" in path:
        assert Path(compiler.find_compiler().path).is_absolute()
    else:
        with pytest.raises(cache.KernelsUnavailableError, match="no compiler found"):
            compiler.find_compiler()
    assert not (tmp_path / "ran").exists()


def test_a_compiler_named_by_its_path_may_be_in_the_working_folder(fresh):
    fresh.setenv("CXX", "./fake++")
    program(Path("fake++"), "echo fake 1.2")
    assert compiler.find_compiler().label == "fake++ 1.2"


@pytest.mark.parametrize(
    ("at_compiling", "reason"),
    [
        ('echo "kernels.cpp:1: error: no" >&2; exit 1', "plain: fake++ 1.2 failed: kernels.cpp:1: error: no"),
        ("exit 0", "plain: fake++ 1.2 failed: "),
        ('for last; do :; done; echo junk > "$last"', "can't be loaded"),
    ],
    ids=["an error", "nothing written", "no library written"],
)
def test_a_compiler_that_fails(fresh, tmp_path, at_compiling, reason):
    text = f'[ "$1" = --version ] && echo "fake 1.2" && exit 0\n{at_compiling}'
    fresh.setenv("CXX", program(tmp_path / "fake++", text))
    fresh.setenv("FAIRTRIAL_CACHE", str(tmp_path))
    assert works_plainly()
    assert reason in library.path()


def test_a_cache_that_cant_be_written_to(working_compiler, fresh, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    fresh.setenv("FAIRTRIAL_CACHE", str(tmp_path / "cache"))
    assert works_plainly()
    assert "can't be written to" in library.path()


def test_a_cache_below_a_file_has_no_library(working_compiler, fresh, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    fresh.setenv("FAIRTRIAL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(cache.KernelsUnavailableError, match=r"can't be read \(Not a directory\)"):
        compiler.is_cached("float")


def test_no_home_folder_for_the_cache(working_compiler, fresh):
    fresh.setenv("FAIRTRIAL_CACHE", "~nosuch/x")
    assert works_plainly()
    assert library.path() == "plain: ~nosuch/x: no home folder for the cache; set FAIRTRIAL_CACHE to a folder"


def test_the_key_holds_all_that_matters(fresh, tmp_path):
    sources = {"kernels.cpp": "int x;"}
    known = compiler.Compiler("/usr/bin/g++", "g++ 12.2.0")
    keys = {
        compiler._key(known, sources, "float"),
        compiler._key(known, sources, "double"),
        compiler._key(known, {"kernels.cpp": "int y;"}, "float"),
        compiler._key(compiler.Compiler("/usr/bin/g++", "g++ 13.1.0"), sources, "float"),
    }
    fresh.setattr(compiler, "processor", lambda: {"model name": "another"})
    keys.add(compiler._key(known, sources, "float"))
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("version", "label"),
    [
        ("g++ (Debian 12.2.0-14+deb12u1) 12.2.0", "g++ 12.2.0"),
        ("Apple clang version 15.0.0", "g++ 15.0.0"),
        ("x", "g++"),
    ],
)
def test_the_compilers_label(version, label):
    assert compiler.Compiler("/usr/bin/g++", version).label == label


@pytest.mark.slow
def test_processes_that_compile_at_once_share_one_library(working_compiler, tmp_path):
    code = "from fairtrial.training.kernels import compiler; print(compiler.library('float').path.stat().st_mtime_ns)"
    environment = os.environ | {"FAIRTRIAL_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    racers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(3)]
    assert len({racer.communicate()[0] for racer in racers}) == 1
    assert [racer.returncode for racer in racers] == [0] * 3
    (folder,) = tmp_path.iterdir()
    assert sorted(path.suffix for path in folder.iterdir() if path.name != ".lock") == [".sha256", ".so"]


def test_a_library_gets_its_name_when_it_is_on_the_disk(working_compiler, fresh, tmp_path):
    """Else a power cut could leave half a library under the name that says it is the right one."""
    fresh.setenv("FAIRTRIAL_CACHE", str(tmp_path))
    fresh.setattr(compiler, "_compile", lambda *_: Path(__file__))

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    fresh.setattr(os, "fsync", full)
    with pytest.raises(cache.KernelsUnavailableError, match="No space left on device"):
        compiler.library("float")
    assert [path.name for path in cache.folder_path().iterdir()] == [".lock"]


def test_the_processor_has_a_name_on_every_system(fresh):
    assert compiler.processor()["model name"]
    compiler.processor.cache_clear()
    fresh.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    assert compiler.processor() == {"model name": platform.processor() or platform.machine()}
    fresh.undo()
    compiler.processor.cache_clear()
