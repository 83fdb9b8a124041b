"""The check of pickles: what data sets and weights consist of passes, whatever the protocol."""

import io
import pickle

import numpy as np
import pytest
import torch

from fairtrial.training.pickles import LARGEST_TUPLE, check

VALUES = {
    "batch": {
        b"labels": list(range(1000)),
        b"data": np.zeros((3, 4), np.uint8),
        b"names": [str(n) for n in range(1000)],
    },
    "nested": {"a": {1: (2, (3, [4]))}, "b": frozenset([1, 2]), "c": [(), None, True, 0.5, b"x"]},
    "shared": [(one := ("a",) * 9), one, {"k": one}],
    "large tuple": tuple(range(LARGEST_TUPLE - 1)),
    "large integer": 10**100,
    "object": slice(1, 2),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_what_files_consist_of_passes_and_the_file_stands_behind_it(value, protocol):
    content = pickle.dumps(value, protocol)
    file = io.BytesIO(b"before" + content + b"behind")
    file.seek(6)
    check(file)
    assert file.read() == b"behind"


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_of_a_network_pass(zipped):
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    file = io.BytesIO()
    torch.save(network.state_dict(), file, _use_new_zipfile_serialization=zipped, pickle_protocol=2)
    file.seek(0)
    for _ in range(0 if zipped else 5):
        check(file, lambda name: name.startswith(("torch", "collections OrderedDict")))


def test_a_tuple_counts_each_time_that_it_is_there():
    ten = (0,) * 10
    check(io.BytesIO(pickle.dumps((ten,) * 9)))
    with pytest.raises(pickle.UnpicklingError, match="a tuple of more than 100 objects"):
        check(io.BytesIO(pickle.dumps((ten,) * 10)))


def test_a_name_that_is_not_allowed_is_refused():
    with pytest.raises(pickle.UnpicklingError, match="it asks for os mkdir"):
        check(io.BytesIO(b"cos\nmkdir\n."), lambda name: name == "os path")
