"""Data sets as images in memory: fetched once, verified, shared between processes, and read in batches.

A data set is a module here with its settings, or a user's class; see `fairtrial.spec.sections.DataSettings`.
"""

from fairtrial.training.datasets.dataset import Dataset, ImageSet, load, unaugmented
from fairtrial.training.datasets.download import DownloadProgress
from fairtrial.training.datasets.fetching import FetchedDataset, cached, fetch, gather, install

__all__ = [
    "Dataset", "DownloadProgress", "FetchedDataset", "ImageSet", "cached", "fetch", "gather", "install", "load",
    "unaugmented",
]  # fmt: skip
