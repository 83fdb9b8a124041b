"""Everything that the live page refuses, and what it sends with every answer."""

import re

import pytest
from starlette.testclient import TestClient

from fairtrial.web.app import live_page
from fairtrial.web.security import HEADERS

REFUSED = ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "GETS"]


@pytest.fixture
def client(ran):
    return TestClient(live_page("fairtrial.db", ["lab.example"]).app, base_url="http://localhost:8484")


def check_headers(answer):
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert answer.headers["cache-control"]
    assert "server" not in answer.headers


@pytest.mark.parametrize("method", REFUSED)
def test_only_get_and_head_are_answered(client, method):
    answer = client.request(method, "/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    check_headers(answer)


def test_head_has_the_headers_and_no_content(client):
    answer = client.head("/")
    assert (answer.status_code, answer.content) == (200, b"")
    check_headers(answer)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:84", "[::1]:8484", "lab.example", "10.1.2.3:80"]
)
def test_names_that_are_answered(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:8484", "127.0.0.1.evil.example", "xlocalhost"]
)
def test_another_name_is_refused_as_it_may_be_rebound(client, host):
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert "--allow-host" in answer.text
    assert host not in answer.text
    check_headers(answer)


@pytest.mark.parametrize("host", ["", "a b", "<script>", "localhost:port", "localhost@evil", "[::1", "a:123456"])
def test_a_host_header_that_is_none_is_refused(client, host):
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 400
    check_headers(answer)


def test_two_host_headers_are_refused(client):
    answer = client.get("/", headers=[("Host", "localhost"), ("Host", "evil.example")])
    assert answer.status_code == 400


def test_another_sites_script_is_refused_and_its_link_is_not(client):
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/events", headers=cross | {"Sec-Fetch-Mode": "cors"}).status_code == 403
    assert client.get("/static/page.js", headers=cross | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get("/", headers=cross | {"Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/%2e%2e/app.py",
        "/static/....//app.py",
        "/static/..\\app.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/page.css%00.js",
        "/static/",
        "/static",
        "/study/",
        "/study/..%2f..%2ffairtrial.db",
        "/study/0123456g",
        "/study/0123",
        f"/study/{'a' * 65}",
        f"/study/{'A' * 64}",
        f"/study/{'a' * 64}/chart/..%2f..%2fx",
        f"/study/{'a' * 64}/chart?name=os:system",
        f"/study/{'a' * 64}/chart?name=test_accuracy",
        f"/study/{'a' * 64}/chart",
        "/fairtrial.db",
        "/events/",
    ],
)
def test_what_is_no_page_is_refused_in_one_line(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.text.count("\n")) == (404, 1)
    assert answer.headers["content-type"].startswith("text/plain")
    check_headers(answer)


def test_every_page_and_file_has_the_headers(client, ran):
    for path in ("/", f"/study/{ran.hash}", "/static/page.js", "/static/live.css", "/static/icon.svg"):
        answer = client.get(path)
        assert answer.status_code == 200
        check_headers(answer)


def test_pages_name_nothing_from_elsewhere_and_run_nothing_of_their_own(client, ran):
    for path in ("/", f"/study/{ran.hash}"):
        text = client.get(path).text
        assert re.findall(r'(?:src|href)="(?!/|#)', text) == []
        assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=", text) == []
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_a_bug_shows_the_client_no_traceback(ran, monkeypatch):
    said = []
    monkeypatch.setattr("fairtrial.web.app.render", lambda *_, **__: 1 / 0)
    answer = TestClient(live_page("fairtrial.db", say=said.append).app, base_url="http://localhost").get("/")
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert "Traceback" not in answer.text
    check_headers(answer)
    assert len(said) == 1
    assert "ZeroDivisionError" in said[0]


def test_no_more_pages_are_followed_than_the_server_can(serve, ran, stream, monkeypatch):
    import urllib.error

    monkeypatch.setattr("fairtrial.web.hub.MOST_CLIENTS", 2)
    with serve("fairtrial.db") as url:
        first, _ = stream(f"{url}/events"), stream(f"{url}/events")
        with pytest.raises(urllib.error.HTTPError) as refused:
            stream(f"{url}/events")
        refused.value.close()
        assert refused.value.code == 503
        assert first.part("studies")
