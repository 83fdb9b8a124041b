"""Triton's programs where there is no GPU: they compile for some, and its interpreter computes what torch does."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from fairtrial.training.kernels import chains, fused, programs

#: Tests that are quick by the interpreter.
INTERPRETED = [
    *(f"test_a_chain_is_torchs[{case}]" for case in ("5-7-1", "5-7-2", "1-3-2", "3-13-1")),
    *(f"test_chunks_of_pixels_are_merged[5-11-{case}]" for case in ("1-True", "2-True", "2-False")),
    "test_a_chain_without_a_norm_before_and_with_kerass_padding[5-2]",
    *(f"test_a_norm_is_torchs[{case}]" for case in ("2-5-3-ReLU6", "3-24-8-ReLU", "64-160-1-None")),
    "test_a_block_is_torchs_whichever_part_is_accelerated[parts0]",
    "test_no_number_stays_no_number",
    "test_a_second_derivative_is_refused",
]
TESTS = Path(__file__).with_name("test_gpu.py")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available() or fused.is_interpreted(), reason="all these tests run here")
@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) >= "2.4.0", reason="NumPy 2.4 refuses Triton's interpreter")
def test_the_programs_by_tritons_interpreter():
    """In a process of its own, because Triton asks for its interpreter once, when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header"]
    run = subprocess.run(
        [*command, *(f"{TESTS}::{name}" for name in INTERPRETED)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=TESTS.parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" not in run.stdout


NUMBERS = {f"{name}{which}" for name in ("eps", "momentum", "correction") for which in ("", "1", "2")}
COUNTS = {"C", "pixels", "chunk", "pixels_in", "pixels_out", "chunk_in", "chunk_out"}
LAYER = {"H": 8, "W": 8, "OH": 4, "OW": 4, "STRIDE": 2, "TOP": 1, "LEFT": 1, "ACT": 2, "ACT1": 2, "ACT2": 1}


def compile_for(capability, program, **constants):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {name: value for name, value in constants.items() if name in program.arg_names}
    signature = {
        name: "constexpr" if name in constants else "fp32" if name in NUMBERS else "i32" if name in COUNTS else "*fp32"
        for name in program.arg_names
    }
    source = ASTSource(fn=program, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4}).asm["cubin"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None or fused.is_interpreted(), reason="Triton's compiler is not there")
@pytest.mark.parametrize("capability", [fused.OLDEST_GPU[0] * 10 + fused.OLDEST_GPU[1], 90])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("known", [{}, {"C": 1}])  # Triton compiles a number that is 1 as a constant
def test_the_programs_compile_without_a_gpu(capability, before, known):
    for program, last in (
        (programs.norm_forward, 1),
        (programs.norm_backward, 1),
        (chains.chain_forward, 2),
        (chains.chain_backward, 3),
    ):
        phases = [(1, 1, 0, last), *((3, 4, phase, phase) for phase in range(0 if before else 1, last + 1))]
        for splits, slots, start, end in phases:
            several = {"SPLITS": splits, "SLOTS": slots, "FROM": start, "TO": end, "BP": 64, "BC": 8}
            assert compile_for(capability, program, BEFORE=before, **LAYER, **several, **known)
    for program in (programs.norm_evaluate, chains.chain_evaluate):
        for one in (known, known | {"pixels": 1}):
            assert compile_for(capability, program, BEFORE=before, BP=64, BC=32, **LAYER, **one)
