"""Fixtures: the files that real libraries wrote, unpacked."""

import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

ASSETS = Path(__file__).parent / "assets"


@pytest.fixture
def asset(tmp_path):
    """Unpacks the files that a library wrote (`make_assets.py`) into a folder of the test's own."""

    def unpack(name):
        with zipfile.ZipFile(ASSETS / f"{name}.zip") as archive:
            archive.extractall(tmp_path / name)
        return tmp_path / name

    return unpack


@pytest.fixture
def frame():
    """Reads a source whole, or some of its columns."""

    def read(source, *columns):
        columns = list(columns or source.columns)
        return pa.Table.from_batches(source.read(columns)).to_pandas()

    return read


@pytest.fixture
def finals(frame):
    """The last values of a measure by seed, of each arm: what pandas finds in a source."""

    def find(source, measure, arm="optimizer", seed="seed"):
        rows = frame(source, *dict.fromkeys([source.run, source.epoch, arm, seed, measure])).dropna(subset=[measure])
        last = rows.sort_values(source.epoch).groupby(source.run).last()
        return {name: list(part.sort_values(seed)[measure]) for name, part in last.groupby(arm)}

    return find
