"""What a trial's provenance says of the machine."""

import platform

import pytest
import torch

import fairtrial
from fairtrial.errors import ProvenanceError
from fairtrial.executors.inline import InlineExecutor
from fairtrial.spec import Study
from fairtrial.store.sql import SQLStore
from fairtrial.training.kernels import compiler, library
from fairtrial.training.machine import describe_process
from workloads import run


def test_this_machine():
    machine = describe_process()
    assert machine.versions["torch"] == torch.__version__
    assert machine.versions["fairtrial"] == fairtrial.__version__
    assert machine.versions["python"] == platform.python_version()
    assert machine.threads == torch.get_num_threads()
    assert machine.processor
    assert machine.device == "cpu"
    assert platform.system() in machine.system


@pytest.mark.slow
def test_a_study_does_not_go_on_with_torchs_layers_where_it_began_with_compiled_ones(monkeypatch):
    def forget():
        compiler.find_compiler.cache_clear()
        library._kernels.cache_clear()

    forget()
    if library.load(torch.float32) is None:
        pytest.skip(library.path())
    table = {
        "name": "s",
        "reference": "a",
        "data": {"name": "digits", "train": 64, "test": 10},
        "model": {"width": 0.35},
        "training": {"epochs": 1},
        "arms": {"a": {}},
    }
    with SQLStore("fairtrial.db") as store:
        run(Study.from_dict(table | {"seeds": 1}), store=store, executor=InlineExecutor())
        monkeypatch.setenv("FAIRTRIAL_KERNELS", "off")
        forget()
        more = Study.from_dict(table | {"seeds": 2})
        layers = r"began with layers compiled kernels \(.*\), now plain: switched off by FAIRTRIAL_KERNELS: mixing"
        with pytest.raises(ProvenanceError, match=layers):
            run(more, store=store, executor=InlineExecutor())
        monkeypatch.delenv("FAIRTRIAL_KERNELS")
        forget()
        assert run(more, store=store, executor=InlineExecutor()).trained == 1
