"""Weights that libraries publish: names, addresses, what is known of their content, and where they are kept."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fairtrial.errors import WeightsError
from fairtrial.files import open_regular
from fairtrial.registry import did_you_mean
from fairtrial.spec.hashing import is_name
from fairtrial.training.datasets import cache
from fairtrial.training.datasets.download import DownloadProgress, UnreachableError, WebArchive, silent

#: How the pixels are scaled that a network gets: see `scaling`.
ScalingName = Literal["unit", "symmetric", "imagenet"]

#: What the names of Keras's files end in.
KERAS_SUFFIX = ".h5"

_FOLDER = "weights"


@dataclass(frozen=True)
class Published:
    """Weights at the address that a library's own code names.

    Attributes:
        name: what a study calls them: ``"torchvision:IMAGENET1K_V1"``, with the library's own name behind the colon.
        library: whose network they are for.
        url: the address.
        size: of the file, in bytes, at most.
        sha256: the beginning of its SHA-256. torchvision puts eight digits into the name of each file, and checks
            them; Keras publishes none for this network.
        is_exact: whether `size` is exact, which is all that can be checked without a digest.
        scaling: what the network was trained on.
    """

    name: str
    library: Literal["torchvision", "keras"]
    url: str
    size: int
    sha256: str
    is_exact: bool
    scaling: ScalingName

    @property
    def path(self) -> Path:
        """Where the file is kept: in fairtrial's cache, under its own name; it may be put there by other means."""
        return cache.folder(_FOLDER) / self.url.rsplit("/", 1)[-1]

    def check(self, content: bytes, path: Path) -> None:
        """Raise `WeightsError` unless the content of a file can be these weights."""
        found = hashlib.sha256(content).hexdigest()
        if not found.startswith(self.sha256):
            problem = f"its SHA-256 is {found}, which must begin with {self.sha256}"
        elif self.is_exact and len(content) != self.size:
            problem = f"it has {len(content):,} bytes instead of {self.size:,}"
        else:
            return
        raise WeightsError(f"{path}: not the file of {self.name}: {problem}; remove it to fetch it again")

    def fetch(self, progress: DownloadProgress = silent) -> Path:
        """Make sure that the file is on this machine, and return its path; its content is checked when it is read.

        Raises:
            WeightsError: the address can't be reached; the message says where to put the file.
        """
        path = self.path
        if path.is_file():
            return path
        with cache.fetching(_FOLDER, progress) as workspace:
            if path.is_file():  # another process has just fetched it
                return path
            try:
                downloaded = WebArchive(self.url, self.sha256, self.size).download(workspace, progress)
            except UnreachableError as reason:
                raise WeightsError(
                    f"{self.name} can't be fetched from {self.url} ({reason}); download it by other means and put it "
                    f"at {path}, or name another file in model.weights"
                ) from reason
            self.check(downloaded.read_bytes(), path)
            downloaded.replace(path)
        return path


def of_torchvision(name: str, url: str, mebibytes: float) -> Published:
    """Describe weights of torchvision's by what it says of them; it rounds sizes to a thousandth of a mebibyte.

    Example:
        >>> of_torchvision("torchvision:V1", "https://download.pytorch.org/models/resnet18-f37072fd.pth", 44.661).sha256
        'f37072fd'
    """
    digits = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", url)
    size = int((mebibytes + 0.001) * 2**20)
    return Published(name, "torchvision", url, size, digits[1] if digits else "", is_exact=False, scaling="imagenet")


_TORCHVISION, _KERAS = "https://download.pytorch.org/models/", "https://storage.googleapis.com/tensorflow/"

#: MobileNetV2's, of width 1.
MOBILENET_V2: Mapping[str, Published] = {
    one.name: one
    for one in (
        of_torchvision("torchvision:IMAGENET1K_V1", f"{_TORCHVISION}mobilenet_v2-b0353104.pth", 13.555),
        of_torchvision("torchvision:IMAGENET1K_V2", f"{_TORCHVISION}mobilenet_v2-7ebf99e0.pth", 13.598),
        Published(
            name="keras:imagenet",
            library="keras",
            url=f"{_KERAS}keras-applications/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
            size=14_536_120,
            sha256="",
            is_exact=True,
            scaling="symmetric",
        ),
    )
}


def digest_of(path: Path) -> str:
    """SHA-256 of a weights file, in hexadecimal; empty if it can't be read, which whoever loads it reports."""
    try:
        with open_regular(path, follow=True) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def problem(weights: str, known: Mapping[str, Published], *, library: str, has_width_1: bool) -> str:
    """Say why published weights can't be a network's; empty if they can, or if it is a path."""
    if not is_name(weights):
        return ""
    if weights not in known:
        return did_you_mean(weights, known)
    if known[weights].library != library:
        return f'are for flavor = "{known[weights].library}": padding and batch norm differ'
    return "" if has_width_1 else "are for width = 1; name a file instead"
