"""What is said of a worker's end."""

import pytest

from fairtrial.execute import process

ENDS = {
    0: "worker exited with status 0 before it was done",
    7: "worker exited with status 7 before it was done",
    -9: "worker killed by signal 9 (SIGKILL); out of memory is the usual reason",
    -6: "worker killed by signal 6 (SIGABRT); native code has given up",
    -15: "worker killed by signal 15 (SIGTERM)",
    -40: "worker killed by signal 40",
}


@pytest.mark.parametrize(("code", "words"), ENDS.items())
def test_exit_statuses_in_words(code, words):
    assert process._describe(code) == words
