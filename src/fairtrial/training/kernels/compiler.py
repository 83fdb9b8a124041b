"""Compile the kernels in ``native`` with the machine's C++ compiler, once, into a cache that all processes share.

A library's name is a hash of everything it depends on: the sources, the flags, the compiler and the processor.
"""

import hashlib
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from fairtrial.files import find_program, program_path
from fairtrial.training.kernels import cache as libraries
from fairtrial.training.kernels.cache import KernelsUnavailableError, Library, UnsoundError

#: Environment variable that turns the kernels off if it is "off".
SWITCH = "FAIRTRIAL_KERNELS"

#: Compilers to look for if the environment variable CXX names none.
COMPILERS = ("g++", "clang++", "c++")

#: No -ffast-math: NaN and infinities must be kept.
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-pthread", "-shared", "-fPIC")

#: Tried in turn: not every compiler knows its processor.
EXTRAS = (("-march=native",), ())

_SECONDS = 300


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: its program, and the first line that it prints with --version."""

    path: str
    version: str

    @property
    def label(self) -> str:
        """Name and version in short: ``g++ 12.2.0``."""
        number = re.search(r"\d+(\.\d+)+", self.version)
        return f"{Path(self.path).name} {number[0]}" if number else Path(self.path).name


def is_cached(real: str) -> bool:
    """Whether the cache has the library for a type; nothing is loaded and nothing is changed.

    Raises:
        UnsoundError: it has one that must not be loaded.
        KernelsUnavailableError: as `library`.
    """
    name = _name(real)
    try:
        found = libraries.find(name)
    except OSError as error:
        reason = error.strerror or error
        raise KernelsUnavailableError(f"{libraries.folder_path()} can't be read ({reason})") from error
    if found is not None:
        os.close(found.descriptor)
    return found is not None


def library(real: str) -> Library:
    """Find the library for ``"float"`` or ``"double"`` in the cache; compile it if there is none that may be loaded.

    Raises:
        KernelsUnavailableError: kernels are switched off, there is no compiler, it fails, or the cache can't be
            written to or is another user's.
    """
    compiler, sources, name = find_compiler(), _sources(), _name(real)
    try:
        libraries.prepare()
        if found := _sound(name):
            return found
        with libraries.compiling() as workspace:
            if _sound(name) is None:  # no other process was faster
                libraries.write(name, _compile(compiler, sources, real, workspace).read_bytes())
        if found := _sound(name):
            return found
    except OSError as error:
        reason = error.strerror or error
        raise KernelsUnavailableError(f"{libraries.folder_path()} can't be written to ({reason})") from error
    raise KernelsUnavailableError(f"{libraries.folder_path() / name} was changed as soon as it was written")


@cache
def find_compiler() -> Compiler:
    """Find a C++ compiler: the one in CXX, or the first of `COMPILERS` that runs.

    Raises:
        KernelsUnavailableError: kernels are switched off, or there is none.
    """
    if os.environ.get(SWITCH, "").lower() == "off":
        raise KernelsUnavailableError(f"switched off by {SWITCH}")
    named = os.environ.get("CXX")
    for name in (named,) if named else COMPILERS:
        if (path := find_program(name)) is None:
            continue
        result = _run([path, "--version"])
        if result.returncode == 0 and result.stdout.strip():
            return Compiler(path, result.stdout.splitlines()[0])
    raise KernelsUnavailableError(f"no compiler found (looked for {named or ', '.join(COMPILERS)})")


def _compile(compiler: Compiler, sources: dict[str, str], real: str, workspace: Path) -> Path:
    for name, text in sources.items():
        (workspace / name).write_text(text, encoding="utf-8")
    output = workspace / "kernels.so"
    for extra in EXTRAS:
        command = [compiler.path, *FLAGS, *extra, f"-DFAIRTRIAL_REAL={real}", str(workspace / "kernels.cpp")]
        result = _run([*command, "-o", str(output)], TMPDIR=str(workspace))  # so that a kill leaves nothing elsewhere
        if result.returncode == 0 and output.exists():
            return output
    reason = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip()[:200])
    raise KernelsUnavailableError(f"{compiler.label} failed: {reason}")


def _sound(name: str) -> Library | None:
    try:
        return libraries.find(name)
    except UnsoundError:
        return None


def _name(real: str) -> str:
    return f"{_key(find_compiler(), _sources(), real)}.so"


def _sources() -> dict[str, str]:
    home = resources.files("fairtrial.training.kernels") / "native"
    files = sorted(home.iterdir(), key=lambda file: file.name)
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.name.endswith((".cpp", ".h"))}


def _key(compiler: Compiler, sources: dict[str, str], real: str) -> str:
    # What -march=native depends on: machines with other instructions may share a cache folder.
    target = f"{platform.machine()} {sorted(processor().items())}"
    parts = (*sources, *sources.values(), real, *FLAGS, str(EXTRAS), compiler.path, compiler.version, target)
    return f"{real}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"


@cache
def processor() -> dict[str, str]:
    """Describe the processor: its ``"model name"`` and, on Linux, flags, features and part number."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    about = ("flags", "Features", "model name", "CPU part")
    found = dict(line.replace("\t", "").split(":", 1) for line in lines if line.startswith(about))
    name = found.get("model name", platform.processor() or platform.machine())
    return found | {"model name": name.strip()}


def _run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    # Compilers look for their assembler and linker in PATH; an empty one would name the working folder.
    whole = os.environ | {"PATH": program_path() or os.defpath} | environment
    try:
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False, env=whole
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelsUnavailableError(f"{command[0]} can't be run ({error})") from error
