"""Files appear whole or not at all."""

import os
from pathlib import Path

import pytest

from fairtrial.errors import ReportError
from fairtrial.report.files import write_document


def test_a_new_file_and_one_in_its_place(tmp_path):
    path = tmp_path / "out.csv"
    write_document(path, b"old")
    write_document(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match=r"out\.csv: can't be written: No space left on device"):
        write_document(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"]


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_document(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_a_device_is_written_to_and_not_replaced():
    write_document(Path(os.devnull), b"gone")
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize(("place", "reason"), [("missing/out.csv", "No such file"), (".", "Is a directory")])
def test_a_place_that_takes_no_file_is_named_in_one_line(tmp_path, place, reason):
    with pytest.raises(ReportError, match=reason) as caught:
        write_document(tmp_path / place, b"")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
