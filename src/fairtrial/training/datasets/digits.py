"""Scikit-learn's handwritten digits, made to look like CIFAR-10: for trying things out with no network.

The set (Alpaydin & Kaynak 1998, the test part of "Optical Recognition of Handwritten Digits") comes inside
scikit-learn: 1,797 grey images of 8x8 pixels with values from 0 to 16. Values are scaled to 0..255 and
rounded, each pixel becomes a square of 4x4, and the grey value is repeated as red, green and blue.
"""

import numpy as np

from fairtrial.spec import DATA_SIZES
from fairtrial.training.datasets.layout import Arrays, Layout

LAYOUT = Layout(
    name="digits",
    class_names=tuple("0123456789"),
    image_size=32,
    train=DATA_SIZES["digits"].train,
    test=DATA_SIZES["digits"].test,
    digest="97e3f521cb209f13d2e0c5de96fde3d5f1f60968416e1d5f66b4e5fb90f3758a",
    array_digests=(
        "a6adfed6cebdbd4971bc2a36a520ccb7db9caca8cb579875b5f0d9b58470de5a",
        "970cadb89f4956ed733d1a7ac5d4b2a4d50b094c268f69917fccec48910cfeaf",
        "61b96f8852a2de2d805a8dfb2d5be7fbef20806ac87d7949f3ee0c7986d919b7",
        "28beeed8f5e51f11d7ddbd7a14a006d30684c0abbb11aaeba722dfe30c55514b",
    ),
)


def decode() -> Arrays:
    """The digits as arrays, split into 1,437 training and 360 test images.

    The set has no official split. Here all images are put in order of class, and of appearance within a
    class, and every fifth from the first on is a test image: 360 of them, stratified to within one. Both
    parts keep the set's own order.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415  (slow to import)

    grey, labels = load_digits(return_X_y=True)
    grey = grey.reshape(-1, 8, 8).astype(np.int64)
    scaled = ((grey * 255 + 8) // 16).astype(np.uint8)  # rounded to the nearest, halves up
    images = scaled.repeat(4, axis=1).repeat(4, axis=2)[..., np.newaxis].repeat(3, axis=3)
    labels = labels.astype(np.uint8)
    is_test = np.zeros(len(labels), bool)
    is_test[np.argsort(labels, kind="stable")[::5]] = True
    return Arrays(images[~is_test], labels[~is_test], images[is_test], labels[is_test])
