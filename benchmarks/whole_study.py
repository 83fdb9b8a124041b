"""The whole study of five arms: Keras `model.fit`, a tutorial's PyTorch loop and fairtrial, all cores used by each.

    pip install 'fairtrial[bench]' && python benchmarks/whole_study.py

The rivals train the arms one after another on all cores; fairtrial has a worker a core. TensorFlow may live in another
environment: --keras-python PATH.
"""

import os

import common

if __name__ == "__main__":
    rivals = ["keras_fit", "torch_loop"]
    common.main(__doc__, rivals, arms=5, workers=os.cpu_count() or 1, threads=1, train=10_000)
