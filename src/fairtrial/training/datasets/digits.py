"""Scikit-learn's handwritten digits in the format of CIFAR-10, for trials without a network.

The set (Alpaydin & Kaynak 1998, the test part of "Optical Recognition of Handwritten Digits") comes with scikit-learn:
1,797 gray images of 8x8 pixels with values from 0 to 16. Values are scaled to 0..255 and rounded, each pixel becomes a
square of 4x4, and the gray value is repeated as red, green and blue.
"""

from pathlib import Path

import numpy as np

from fairtrial.errors import DataError
from fairtrial.registry import DATASETS
from fairtrial.spec.sections import DataSettings, DataSize
from fairtrial.training.datasets.layout import Arrays


@DATASETS.register("digits")
class Digits(DataSettings):
    """Scikit-learn's handwritten digits, upsampled to 32x32 RGB; no network needed."""

    size = DataSize(1_437, 360)
    class_names = tuple("0123456789")
    sha256 = "97e3f521cb209f13d2e0c5de96fde3d5f1f60968416e1d5f66b4e5fb90f3758a"

    def arrays(self) -> Arrays:
        """See `DataSettings.arrays`."""
        if self.path is not None:
            raise DataError(f"{self.path}: the digits come with scikit-learn; leave the path out")
        # The set has no official split. Here the images are sorted by class, in the set's order within a class, and
        # every fifth, from the first, is a test image: 360, stratified to within one. Both parts keep the set's order.
        from sklearn.datasets import load_digits  # noqa: PLC0415  (slow to import)

        gray, labels = load_digits(return_X_y=True)
        gray = gray.reshape(-1, 8, 8).astype(np.int64)
        scaled = ((gray * 255 + 8) // 16).astype(np.uint8)  # rounded to the nearest, halves up
        images = scaled.repeat(4, axis=1).repeat(4, axis=2)[..., np.newaxis].repeat(3, axis=3)
        labels = labels.astype(np.uint8)
        is_test = np.zeros(len(labels), bool)
        is_test[np.argsort(labels, kind="stable")[::5]] = True
        return Arrays(images[~is_test], labels[~is_test], images[is_test], labels[is_test])

    @classmethod
    def origin(cls) -> tuple[Path, str]:
        """See `DataSettings.origin`."""
        import sklearn  # noqa: PLC0415  (slow to import)

        return Path(sklearn.__file__).parent / "datasets" / "data", f"scikit-learn {sklearn.__version__}"
