"""`fairtrial serve` and `fairtrial run --serve`: what they refuse, each in one line."""

import pytest

from fairtrial.web.ports import listen


def refused(result):
    status, out, err = result
    assert status != 0
    assert out == ""
    assert err.startswith("fairtrial: ")
    assert err.count("\n") == 1
    return err


def test_a_store_that_is_not_there(invoke):
    assert "no store at nothing.db" in refused(invoke("serve", "--store", "nothing.db"))


def test_a_port_that_is_taken(invoke, make_study, tmp_path):
    from datetime import UTC, datetime

    from fairtrial.store.sql import SQLStore

    with SQLStore("fairtrial.db") as store:
        store.add_study(make_study(), datetime.now(UTC))
    with listen(port=0) as taken:
        port = str(taken.getsockname()[1])
        assert f"--port {port}: another program listens there" in refused(invoke("serve", "--port", port))
    assert "--host 192.0.2.1" in refused(invoke("serve", "--host", "192.0.2.1", "--port", "0"))


@pytest.mark.parametrize("port", ["70000", "-1", "x"])
def test_a_port_that_is_none(invoke, port):
    assert "--port" in refused(invoke("serve", "--port", port))


def test_a_port_of_a_run_needs_a_page(invoke):
    assert "--port: requires --serve" in refused(invoke("run", "quick", "--port", "8000"))
