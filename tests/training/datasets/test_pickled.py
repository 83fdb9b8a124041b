"""A pickle from anywhere is read, and nothing in it is run."""

import contextlib
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.errors import DataError
from fairtrial.training.datasets.pickled import read_batch


def read(content):
    return read_batch(content, 20, 48, "data_batch_1")


def test_the_official_stream(mini):
    pixels, labels = read(mini.files("python")["data_batch_1"])
    assert pixels.shape == (20, 48)
    np.testing.assert_array_equal(labels, mini.arrays.train_labels[:20])


class Runs:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("call", [os.mkdir, exec, np.fromfile, getattr])
def test_a_malicious_pickle_runs_nothing(call, protocol, tmp_path):
    trap = tmp_path / "trap"
    argument = f"open({str(trap)!r}, 'w')" if call is exec else str(trap)
    content = pickle.dumps({b"data": Runs(call, argument)}, protocol)
    with pytest.raises(DataError, match=r"data_batch_1: .* asks for .*; nothing was run"):
        read(content)
    assert not trap.exists()


def test_names_beside_the_known_ones_are_refused():
    """An allowed module does not open its other names, not even with dots in them."""
    for name in ("load", "ndarray.tofile", "dtype.__class__"):
        content = b"\x80\x04\x8c\x05numpy\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
        with pytest.raises(DataError, match=f"asks for numpy.{name}, which no batch needs"):
            read(content)


def test_persistent_references_are_refused():
    with pytest.raises(DataError, match="asks for a persistent object"):
        read(b"\x80\x02U\x01aQ.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps([1, 2]), "holds a list, expected a dictionary"),
        (pickle.dumps({b"labels": [1] * 20}), "its data must be 20 x 48 bytes"),
        (b"", "not a batch of CIFAR images"),
        (b"\x80\x02}q\x01(U\x0bbatch", "not a batch of CIFAR images"),
    ],
)
def test_what_else_it_may_hold(content, said):
    with pytest.raises(DataError, match=f"data_batch_1: {said}"):
        read(content)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"U\x02u1", b"U\x02f4"),  # another type of number
        (b"J\x30\x00\x00\x00", b"J\x31\x00\x00\x00"),  # another shape
        (b"\x89T", b"\x88T"),  # Fortran order
    ],
)
def test_an_array_of_another_kind(mini, old, new):
    content = mini.files("python")["data_batch_1"]
    assert content.count(old) == 1
    with pytest.raises(DataError, match="its data must be 20 x 48 bytes in C order"):
        read(content.replace(old, new))


def test_labels_of_another_number(mini):
    content = mini.files("python")["data_batch_1"]
    with pytest.raises(DataError, match="its labels must be a list of 20 class numbers"):
        read(content.replace(b"](K", b"](K\x01K", 1))


def test_a_memo_that_would_take_all_memory():
    with pytest.raises(DataError, match="it is damaged or was made up"):
        read(b"\x80\x02}r\xff\xff\xff\x7f.")


@given(position=st.integers(0, 2000), value=st.integers(0, 255))
def test_damage_anywhere_is_a_data_error_or_harmless(mini, position, value):
    content = bytearray(mini.files("python")["data_batch_1"])
    content[position % len(content)] = value
    with contextlib.suppress(DataError):
        pixels, labels = read(bytes(content))
        assert (pixels.shape, labels.shape) == ((20, 48), (20,))
