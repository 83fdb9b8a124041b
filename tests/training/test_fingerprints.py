"""Fingerprints: whatever differs shows, whatever is only a place in memory does not."""

import hashlib

import pytest
import torch

import fairtrial
from fairtrial.training.fingerprints import fingerprint

TENSORS = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "n": torch.tensor(7)}


def test_it_is_what_the_docstring_says():
    """Recorded by hand: two releases must agree on what the same weights are called."""
    values = TENSORS["w"].numpy().tobytes() + b"'n' torch.int64 ()\n" + (7).to_bytes(8, "little")
    assert fingerprint(TENSORS) == hashlib.sha256(b"'w' torch.float32 (2, 2)\n" + values).hexdigest()
    assert fairtrial.fingerprint is fingerprint


def test_arrays_count_as_tensors_even_if_they_can_not_be_written():
    arrays = {name: tensor.numpy() for name, tensor in TENSORS.items()}
    arrays["w"].flags.writeable = False  # as JAX's are
    assert fingerprint(arrays) == fingerprint(TENSORS)
    assert fingerprint({"w": arrays["w"].T}) == fingerprint({"w": TENSORS["w"].T})


@pytest.mark.parametrize(
    "other",
    [
        {"v": TENSORS["w"], "n": TENSORS["n"]},
        {"w": TENSORS["w"]},
        {"n": TENSORS["n"], "w": TENSORS["w"]},
        TENSORS | {"w": TENSORS["w"].double()},
        TENSORS | {"w": TENSORS["w"].T},
        TENSORS | {"w": TENSORS["w"].reshape(4)},
        TENSORS | {"w": TENSORS["w"].view(torch.int32)},
        TENSORS | {"w": torch.nextafter(TENSORS["w"], torch.tensor(9.0))},
        {},
    ],
    ids=["name", "one less", "order", "type", "values", "shape", "same bytes", "last bit", "nothing"],
)
def test_another_list_of_tensors_has_another_fingerprint(other):
    assert fingerprint(other) != fingerprint(TENSORS)


def test_layout_and_gradients_do_not_matter():
    plain = torch.arange(48.0).reshape(2, 3, 4, 2)
    copy = plain.to(memory_format=torch.channels_last).requires_grad_()
    assert copy.stride() != plain.stride()
    assert fingerprint({"x": copy}) == fingerprint({"x": plain})


def test_pairs_may_come_one_at_a_time():
    assert fingerprint((name, tensor) for name, tensor in TENSORS.items()) == fingerprint(TENSORS)


def test_every_type_that_a_state_dict_may_hold():
    kinds = [torch.bfloat16, torch.float16, torch.bool, torch.uint8, torch.complex64]
    assert len({fingerprint({"x": torch.ones(3, dtype=kind)}) for kind in kinds}) == len(kinds)
    assert fingerprint({"x": torch.empty(0, 3)}) != fingerprint({"x": torch.empty(3, 0)})


def test_one_element_or_none_with_odd_strides():
    wide = torch.arange(4, dtype=torch.int16).reshape(2, 2)
    assert fingerprint({"a": wide[1:, 1]}) == fingerprint({"a": torch.tensor([3], dtype=torch.int16)})
    assert fingerprint({"a": wide[2:, 1]}) == fingerprint({"a": torch.empty(0, dtype=torch.int16)})
