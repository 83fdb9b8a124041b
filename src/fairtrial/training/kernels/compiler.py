"""Compiling the kernels in ``native`` with the machine's own C++ compiler, once, into a cache that all processes share.

A library's name says everything that it depends on: the sources, the flags, the compiler and the processor. So a
change of any of them makes another library, and a library that is there is the right one. It gets its name when it is
complete and on the disk, so processes that compile at the same time do no harm, and neither does a power cut.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from fairtrial.files import write_atomically
from fairtrial.training.datasets.cache import folder

#: Set to "off", it keeps the kernels from being used.
SWITCH = "FAIRTRIAL_KERNELS"

#: Names under which a compiler is looked for where the environment variable CXX names none.
COMPILERS = ("g++", "clang++", "c++")

#: NaN and infinities must come through as they are, so nothing that assumes them away (-ffast-math).
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")

#: Tried in turn: not every compiler knows its own processor, or has OpenMP at hand (then kernels use one thread).
EXTRAS = (("-march=native", "-fopenmp"), ("-march=native",), ())

#: Steps that repay compiling: 5 to 9 s, against 0.15 s or so that the kernels save in a step of 64 images.
LEAST_STEPS = 50

_SECONDS = 300

#: Lines of /proc/cpuinfo that are not about a single core.
_ABOUT_PROCESSOR = ("flags", "Features", "model name", "CPU part")

_forbidden = False


class KernelsUnavailableError(Exception):
    """There can be no compiled kernels here; the message says why."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        path: its program.
        version: the first line that it prints about itself.
    """

    path: str
    version: str

    @property
    def label(self) -> str:
        """Name and version in short: ``g++ 12.2.0``."""
        number = re.search(r"\d+(\.\d+)+", self.version)
        return f"{Path(self.path).name} {number[0]}" if number else Path(self.path).name


def forbid_compiling() -> None:
    """Have this process use the libraries that are in the cache, and compile none."""
    global _forbidden  # noqa: PLW0603  (like the cache, it is for the whole process)
    _forbidden = True


def is_cached(real: str) -> bool:
    """Tell whether the library for a type would be found in the cache."""
    try:
        return _path(real).exists()
    except KernelsUnavailableError:
        return False


def library(real: str) -> Path:
    """Find the library for one type in the cache, or compile it into the cache.

    Args:
        real: ``"float"`` or ``"double"``.

    Raises:
        KernelsUnavailableError: kernels are switched off or not worth compiling, there is no compiler, it fails, or the
            cache can't be written to.
    """
    compiler, sources, path = find_compiler(), _sources(), _path(real)
    try:
        if not path.exists():
            if _forbidden:
                raise KernelsUnavailableError(f"not compiled yet, which fewer than {LEAST_STEPS} steps would not repay")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="compiling-", dir=path.parent) as workspace:
                write_atomically(path, _compile(compiler, sources, real, Path(workspace)).read_bytes())
    except OSError as error:
        raise KernelsUnavailableError(f"{path.parent} can't be written to ({error.strerror or error})") from error
    return path


@cache
def find_compiler() -> Compiler:
    """Find a C++ compiler: the one that CXX names, or the first of `COMPILERS` that runs.

    Raises:
        KernelsUnavailableError: kernels are switched off, or there is none.
    """
    if os.environ.get(SWITCH, "").lower() == "off":
        raise KernelsUnavailableError(f"switched off by {SWITCH}")
    named = os.environ.get("CXX")
    for name in (named,) if named else COMPILERS:
        if (path := shutil.which(name)) is None:
            continue
        told = _run([path, "--version"])
        if told.returncode == 0 and told.stdout.strip():
            return Compiler(path, told.stdout.splitlines()[0])
    raise KernelsUnavailableError(f"no compiler found (looked for {named or ', '.join(COMPILERS)})")


def _compile(compiler: Compiler, sources: dict[str, str], real: str, workspace: Path) -> Path:
    for name, text in sources.items():
        (workspace / name).write_text(text, encoding="utf-8")
    made = workspace / "kernels.so"
    for extra in EXTRAS:
        told = _run(
            [compiler.path, *FLAGS, *extra, f"-DFAIRTRIAL_REAL={real}", str(workspace / "kernels.cpp"), "-o", str(made)]
        )
        if told.returncode == 0 and made.exists():
            return made
    complaint = next((line for line in told.stderr.splitlines() if "error" in line), told.stderr.strip()[:200])
    raise KernelsUnavailableError(f"{compiler.label} failed: {complaint}")


def _path(real: str) -> Path:
    return folder("kernels") / f"{_key(find_compiler(), _sources(), real)}.so"


def _sources() -> dict[str, str]:
    home = resources.files("fairtrial.training.kernels") / "native"
    files = sorted(home.iterdir(), key=lambda file: file.name)
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.name.endswith((".cpp", ".h"))}


def _key(compiler: Compiler, sources: dict[str, str], real: str) -> str:
    # What -march=native depends on: a cache folder may be shared by machines with other instructions.
    target = f"{platform.machine()} {sorted(processor().items())}"
    parts = (*sources, *sources.values(), real, *FLAGS, str(EXTRAS), compiler.path, compiler.version, target)
    return f"{real}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"


@cache
def processor() -> dict[str, str]:
    """Tell the processor's ``"model name"``, and what else Linux knows of its kind: flags, features, part number.

    The standard library knows little more than the architecture; that is all where the system is another.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    told = dict(line.replace("\t", "").split(":", 1) for line in lines if line.startswith(_ABOUT_PROCESSOR))
    name = told.get("model name", platform.processor() or platform.machine())
    return told | {"model name": name.strip()}


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelsUnavailableError(f"{command[0]} can't be run ({error})") from error
