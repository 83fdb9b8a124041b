"""The thread that sends: its order, its patience, what it says, and how it ends."""

import threading
import time

import pytest

from fairtrial.trackers import sender as module
from fairtrial.trackers.sender import Sender


@pytest.fixture
def sender(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    return Sender("receiver", lambda error: isinstance(error, ConnectionError))


def raising(error):
    raise error


def test_jobs_are_sent_in_their_order_and_closing_waits_for_them(sender):
    sent = []
    for number in range(100):
        sender.put(lambda number=number: sent.append(number))
    sender.close(10)
    assert sent == [*range(100)]
    assert sender.messages() == []


def test_a_sender_can_be_used_again_after_it_was_closed(sender):
    sent = []
    for number in range(3):
        sender.put(lambda number=number: sent.append(number))
        sender.close(10)
    assert sent == [0, 1, 2]
    sender.close(10)  # and closed with nothing to send


def test_a_temporary_error_is_tried_again_and_said_once(sender):
    failures = iter([ConnectionError("refused\nmore"), ConnectionError("refused"), ConnectionError("refused")])
    sent, done = [], threading.Event()

    def job():
        if error := next(failures, None):
            raise error
        sent.append("job")

    sender.put(job)
    sender.put(lambda: (sent.append("next"), done.set()))
    assert done.wait(60)
    sender.close(10)
    assert sent == ["job", "next"]
    assert sender.messages() == ["receiver does not answer; training goes on without it"]


def test_another_error_loses_one_job_and_is_said_once(sender):
    sent = []
    for job in (lambda: raising(ValueError("\x1b[2J")), lambda: raising(KeyError("b")), lambda: sent.append("ok")):
        sender.put(job)
    sender.close(10)
    assert sent == ["ok"]
    assert sender.messages() == [
        r"receiver: something was not logged: \u001b[2J",
        "receiver: 2 messages about trials were not logged",
    ]


def test_a_receiver_that_is_silent_at_the_end_is_given_up(sender):
    tried = []

    def job(name):
        tried.append(name)
        raise ConnectionError("refused")

    for name in "abc":
        sender.put(lambda name=name: job(name))
    sender.close(60)
    assert {"b", "c"}.isdisjoint(tried)
    assert sender.messages()[-1] == "receiver: 3 messages about trials were not logged"


def test_a_call_that_does_not_return_is_left_behind(sender):
    hang, begun = threading.Event(), threading.Event()
    sender.put(lambda: (begun.set(), hang.wait(60)))
    sender.put(lambda: None)
    assert begun.wait(60)
    sender.close(0.01)
    (said,) = sender.messages()
    assert said.endswith("messages about trials were not logged")
    hang.set()


def test_what_waits_is_bounded(sender, monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    go, begun = threading.Event(), threading.Event()
    sender.put(lambda: (begun.set(), go.wait(60)))
    assert begun.wait(60)
    for _ in range(8):
        sender.put(lambda: None)
    go.set()
    sender.close(10)
    assert sender.messages() == ["receiver: 3 messages about trials were not logged"]


def test_closing_waits_so_long_in_all_however_many_jobs_a_slow_receiver_takes(sender):
    sent = []
    for number in range(100):
        sender.put(lambda number=number: (time.sleep(0.05), sent.append(number)))
    began = time.monotonic()
    sender.close(0.5)
    assert time.monotonic() - began < 3
    (said,) = sender.messages()
    lost = int(said.removeprefix("receiver: ").split()[0])
    assert 0 < lost < 100
    sender.put(lambda: sent.append("later"))
    sender.close(10)
    assert sent[-1] == "later"
    assert 100 - lost <= len(sent) - 1 <= 100 - lost + 1  # the job that was being sent may have got through
    assert sender.messages() == []
