"""What a trial may use, and how people write that."""

import pytest

from fairtrial.errors import FairtrialError
from fairtrial.executors.limits import Limits, format_bytes, format_seconds, parse_bytes, parse_seconds

SECONDS = {"90": 90, "90s": 90, "1.5 h": 5400, "30m": 1800, "30 min": 1800, "2H": 7200, "1d": 86400, "0.5": 0.5}
BYTES = {"2GiB": 2 << 30, "800MB": 800_000_000, "1.5 kB": 1500, "64 MiB": 64 << 20, "1TiB": 1 << 40, "4096": 4096}
BYTES |= {"2 G": 2_000_000_000}


@pytest.mark.parametrize(("text", "seconds"), SECONDS.items())
def test_durations_are_read(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(("text", "size"), BYTES.items())
def test_sizes_are_read(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "s", "-3s", "0", "0m", "3 weeks", "nan", "inf", "1e3", "2:30", "3GiB"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a duration such as 90s, 30m or 2h$"):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["", "GiB", "-1GB", "0", "0MB", "2GiBs", "90s", "inf"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a size such as 2GiB or 800MB$"):
        parse_bytes(text)


def test_they_are_written_as_people_do():
    assert [format_seconds(value) for value in (60, 60.0, 0.5, 5400, 2e6)] == [
        "60 s",
        "60 s",
        "0.5 s",
        "5400 s",
        "2000000 s",
    ]
    assert [format_bytes(size) for size in (12, 2 << 30, 800_000_000, 5 << 50)] == [
        "12 B",
        "2.0 GiB",
        "800.0 MB",
        "5.0 PiB",
    ]


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "60", True])
def test_limits_of_time_are_positive_numbers(value):
    with pytest.raises(FairtrialError, match=r"^time_limit = .*: must be a positive number of seconds$"):
        Limits(time=value)
    with pytest.raises(FairtrialError, match=r"^silence = .*: must be a positive number of seconds$"):
        Limits(silence=value)


@pytest.mark.parametrize("value", [0, -1, 1e9, "2GiB", True])
def test_limits_of_memory_are_integers(value):
    with pytest.raises(FairtrialError, match=r"^memory_limit = .*: must be an integer of at least 1$"):
        Limits(memory=value)


def test_no_limit_is_the_default():
    assert (Limits().time, Limits().memory) == (None, None)
