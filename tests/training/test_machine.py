"""What a trial's provenance says of the machine."""

import platform

import torch

import fairtrial
from fairtrial.training.machine import describe_process


def test_this_machine():
    machine = describe_process()
    assert machine.versions["torch"] == torch.__version__
    assert machine.versions["fairtrial"] == fairtrial.__version__
    assert machine.versions["python"] == platform.python_version()
    assert machine.threads == torch.get_num_threads()
    assert machine.processor
    assert machine.device == (torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")
    assert platform.system() in machine.system
