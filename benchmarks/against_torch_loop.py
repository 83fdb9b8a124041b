"""One training run: a PyTorch loop as tutorials write it, against fairtrial on the same cores; sides in turn.

python benchmarks/against_torch_loop.py
"""

import os

import common

if __name__ == "__main__":
    common.main(__doc__, ["torch_loop"], arms=1, workers=1, threads=os.cpu_count() or 1, train=10_000)
