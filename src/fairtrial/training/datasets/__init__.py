"""Data sets as images in memory: fetched once, verified, shared between processes, and handed out in batches.

    load(settings)    what a trial trains and tests on
    fetch("cifar10")  what `fairtrial data cifar10` does: make sure that the data are here, and say where

A data set is a module here with its settings, or a class of the user's own; see `fairtrial.spec.sections.DataSettings`.
"""

from fairtrial.training.datasets.dataset import Dataset, ImageSet, load
from fairtrial.training.datasets.fetching import FetchedData, FetchedDataset, cached, fetch
from fairtrial.training.datasets.progress import DownloadProgress

__all__ = ["Dataset", "DownloadProgress", "FetchedData", "FetchedDataset", "ImageSet", "cached", "fetch", "load"]
