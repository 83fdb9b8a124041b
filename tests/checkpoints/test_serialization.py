"""States of training loops: what goes in comes out, to the bit; what can't is refused where it stands."""

import collections
import enum
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load, save

from fairtrial.checkpoints.serialization import pack, unpack
from fairtrial.training import tensors as _tensors  # noqa: F401  (lets checkpoints hold tensors)

KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False))
NUMPY = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
NUMPY += ["float16", "float32", "float64"]
TORCH = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint64]
TORCH += [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn]
arrays = st.sampled_from(NUMPY).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))


@st.composite
def tensors(draw):
    """Tensors of all dtypes whose bits are anything, contiguous or not, with gaps or none."""
    dtype = draw(st.sampled_from(TORCH))
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    content = draw(st.binary(min_size=size, max_size=size))
    if dtype is torch.bool:
        content = bytes(byte & 1 for byte in content)
    flat = torch.tensor(list(content), dtype=torch.uint8).view(dtype) if size else torch.empty(0, dtype=dtype)
    values = flat.reshape(shape).permute(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()) and values.dim():
        values = torch.stack([values, values], dim=-1)[..., 0]  # with gaps
    if draw(st.booleans()) and values.dim() and values.shape[0] == 1:
        values = values.expand(2, *values.shape[1:])  # with overlaps
    return values


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), arrays, tensors())
STATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(KEYS, inner), hnp.from_dtype(np.dtype("f4"))
    ),
    max_leaves=12,
)


def back_and_forth(state):
    """Pack, write, read and unpack."""
    tree, packed = pack(state)
    content = save(packed) if packed else b""
    return unpack(json.loads(json.dumps(tree, allow_nan=False)), load(content) if content else {})


def bits(value):
    """A value as something that is equal only where every bit, type and order is."""
    if isinstance(value, torch.Tensor):
        content = value.contiguous().as_strided((value.numel(),), (1,)).view(torch.uint8).tolist()
        return value.dtype, value.shape, content
    if isinstance(value, np.ndarray | np.generic):
        return type(value), value.dtype, value.shape, value.tobytes()
    if isinstance(value, dict):
        return dict, [(bits(key), bits(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [bits(item) for item in value]
    return type(value), value.hex() if isinstance(value, float) else value


@given(STATES)
def test_a_state_comes_back_to_the_bit(state):
    assert bits(back_and_forth(state)) == bits(state)


@given(tensors())
def test_a_tensor_without_gaps_comes_back_with_its_strides(values):
    found = back_and_forth(values)
    if values.numel() and values.is_contiguous():
        assert found.stride() == values.stride()
    found.zero_()  # it has memory of its own


@pytest.mark.parametrize("shape", [(9, 1, 3, 3), (8, 4, 1, 1), (2, 3, 4, 5)])
def test_channels_last_stays_channels_last(shape):
    for values in (torch.rand(shape).to(memory_format=torch.channels_last), torch.rand(shape)):
        found = back_and_forth({"weights": values})["weights"]
        assert found.stride() == values.stride()
        assert torch.equal(found, values)


def test_what_is_packed_of_a_part_is_that_part():
    whole = torch.arange(12.0).reshape(3, 4)
    _, packed = pack([whole[1], whole[:, 2], torch.nn.Parameter(whole[2:])])
    assert [array.nbytes for array in packed.values()] == [16, 12, 16]
    found = back_and_forth([whole[1], whole[:, 2], torch.nn.Parameter(whole[2:])])
    assert [values.tolist() for values in found] == [[4, 5, 6, 7], [2, 6, 10], [[8, 9, 10, 11]]]


def test_a_conjugate_is_kept_as_what_it_stands_for():
    values = torch.tensor([1 + 2j]).conj()
    assert back_and_forth([values, values.imag])[0].tolist() == [1 - 2j]
    assert back_and_forth(values.imag).tolist() == [-2.0]


def test_the_state_of_an_optimizer_fits_another_one():
    def made():
        weights = torch.nn.Parameter(torch.ones(3))
        return weights, torch.optim.Adam([weights], betas=(0.8, 0.9))

    weights, optimizer = made()
    weights.grad = torch.full((3,), 2.0)
    optimizer.step()
    _, other = made()
    other.load_state_dict(back_and_forth(optimizer.state_dict()))
    assert bits(other.state_dict()) == bits(optimizer.state_dict())


class Color(enum.IntEnum):
    RED = 1


Pair = collections.namedtuple("Pair", "a b")
TAKES = "a checkpoint takes dictionaries, lists, tuples, strings, numbers, NumPy arrays and torch tensors"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (object(), f"state is a object: {TAKES}"),
        ({"a": [1, {2: {3}}]}, f"state['a'][1][2] is a set: {TAKES}"),
        ((len,), f"state[0] is a builtin_function_or_method: {TAKES}"),
        (Pair(1, 2), f"state is a Pair: {TAKES}"),
        (Color.RED, f"state is a Color: {TAKES}"),
        (b"bytes", f"state is a bytes: {TAKES}"),
        (1j, f"state is a complex: {TAKES}"),
        ({"x": {None: 1}}, "state['x'] has the key None: keys in a checkpoint are strings or numbers"),
        ({(1, 2): 1}, "state has the key (1, 2): keys in a checkpoint are strings or numbers"),
        (np.ma.masked_array([1, 2], [True, False]), f"state is a MaskedArray: {TAKES}"),
        ([torch.ones(2).to_sparse()], "state[0] is a sparse, quantized or meta tensor: a checkpoint takes plain ones"),
        (torch.ones(2, device="meta"), "state is a sparse, quantized or meta tensor: a checkpoint takes plain ones"),
    ],
)
def test_what_can_not_be_kept_is_refused_where_it_stands(state, message):
    with pytest.raises(TypeError) as caught:
        pack(state)
    assert str(caught.value) == message


@pytest.mark.parametrize("dtype", ["O", "U3", "S3", "M8[s]", "c8", "longdouble", ">f4", "i4,f4"])
def test_arrays_of_other_kinds_are_refused(dtype):
    with pytest.raises(TypeError, match=r"^state\['a'\] is a NumPy array of dtype\(.*: a checkpoint takes bool,"):
        pack({"a": np.zeros(2, dtype)})
