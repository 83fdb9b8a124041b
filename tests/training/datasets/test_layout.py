"""The digest covers every byte of every array, in order."""

import hashlib

import numpy as np
import pytest

from fairtrial.errors import DataError
from fairtrial.training.datasets.layout import Arrays, digest


def test_digest_is_sha256_over_all_bytes_in_order(mini):
    together = b"".join(array.tobytes() for array in mini.arrays)
    assert digest(*mini.arrays) == hashlib.sha256(together).hexdigest()


def test_memory_order_does_not_matter(mini):
    assert digest(*(np.asfortranarray(array) for array in mini.arrays)) == mini.layout.digest


@pytest.mark.parametrize("which", Arrays._fields)
def test_one_changed_byte_is_found(mini, which):
    changed = getattr(mini.arrays, which).copy()
    changed.flat[-1] ^= 1
    with pytest.raises(
        DataError, match=f"here: these are not the images and labels of cifar10: .*{mini.layout.digest}"
    ):
        mini.layout.check(mini.arrays._replace(**{which: changed}), "here")
    mini.layout.check(mini.arrays, "here")


def test_empty_arrays_have_the_shapes(mini):
    empty = mini.layout.empty()
    assert [array.shape for array in empty] == [array.shape for array in mini.arrays]
