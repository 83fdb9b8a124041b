"""One training run: Keras `model.fit`, the paper's own stack, against fairtrial on the same cores; sides in turn.

    pip install 'fairtrial[bench]' && python benchmarks/against_keras.py

TensorFlow may live in another environment: --keras-python PATH.
"""

import os

import common

if __name__ == "__main__":
    common.main(__doc__, ["keras_fit"], arms=1, workers=1, threads=os.cpu_count() or 1, train=10_000)
