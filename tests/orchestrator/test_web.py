"""The web page over real sockets: who gets which answer, and what a wrong address is told."""

from __future__ import annotations

import http.client
import json
import socket
import time
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import going
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mas_edge.orchestrator.service import open_store, read_store
from mas_edge.orchestrator.views.status_values import Status
from mas_edge.orchestrator.views.web_guard import COOKIE, HEADERS, PageRefused, Visit, is_loopback, judge
from mas_edge.wire import messages as m

pytest.importorskip("uvicorn", reason="the web page needs uvicorn (extra orchestrator)")
from mas_edge.orchestrator.views.web import FRESH_S, PageConfig, serve_page

TOKEN = "correct horse"


@contextmanager
def served(folder, **options):
    page = PageConfig(port=0, **options)
    with (
        closing(open_store(folder)) as store,
        serve_page(page, lambda: read_store(folder)) as url,
    ):
        yield urlsplit(url), store


def ask(place, path="/api/status", method="GET", **headers):
    with closing(http.client.HTTPConnection(place.hostname, place.port, timeout=10)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


def test_the_page_its_parts_and_the_status_are_served_with_headers_that_keep_it_to_itself(tmp_path):
    with served(tmp_path) as (place, store):
        going.fill(store, going.spec(), 3)
        for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
            status, headers, body = ask(place, path)
            assert (status, headers["content-type"].partition(";")[0]) == (200, kind)
            assert body
            assert HEADERS.items() <= {name.title(): value for name, value in headers.items()}.items()
        status, headers, body = ask(place)
        assert (status, headers["content-type"]) == (200, "application/json")
        shown = msgspec.json.decode(body, type=Status)
        assert [job.name for job in shown.jobs] == ["evening"]
        assert [device.name for device in shown.devices] == list(going.DEVICES)
        assert ask(place, "/healthz")[::2] == (200, b"ok\n")
        assert ask(place, "/store.db")[0] == 404
        assert ask(place, "/../page.py")[0] == 404


def test_a_status_that_has_not_changed_is_not_sent_again_and_one_that_has_is(tmp_path):
    with served(tmp_path) as (place, store):
        _, headers, body = ask(place)
        tag = headers["etag"]
        assert ask(place, **{"If-None-Match": tag})[::2] == (304, b"")
        going.fill(store, going.spec(), 3)
        end_s = time.monotonic() + 10 * FRESH_S
        while (found := ask(place, **{"If-None-Match": tag}))[0] == 304:
            assert time.monotonic() < end_s
        assert found[0] == 200
        assert found[1]["etag"] != tag
        assert json.loads(body)["jobs"] == []
        assert json.loads(found[2])["jobs"][0]["name"] == "evening"


def test_nothing_can_be_changed_from_there(tmp_path):
    with served(tmp_path) as (place, _):
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            for path in ("/", "/api/status", "/anything"):
                status, headers, _ = ask(place, path, method)
                assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_a_store_that_is_not_there_yet_is_an_answer_and_not_the_end(tmp_path):
    with serve_page(PageConfig(port=0), lambda: read_store(tmp_path)) as url:
        place = urlsplit(url)
        status, _, body = ask(place)
        assert (status, b"no store is here" in body) == (503, True)
        with closing(open_store(tmp_path)):
            assert ask(place)[0] == 200


def test_with_a_token_only_who_shows_it_is_let_in(tmp_path):
    with served(tmp_path, token=TOKEN) as (place, _):
        assert ask(place)[0] == 401
        assert ask(place, Authorization="Bearer wrong")[0] == 401
        assert ask(place, Authorization=f"Basic {TOKEN}")[0] == 401
        assert ask(place, Authorization=f"Bearer {TOKEN}")[0] == 200
        assert ask(place, "/?token=wrong")[0] == 401
        status, headers, _ = ask(place, "//elsewhere.example/?token=correct%20horse")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
        assert TOKEN not in cookie
        assert ask(place, Cookie=f"other=1; {cookie.partition(';')[0]}")[0] == 200
        assert ask(place, Cookie=f"{COOKIE}={'0' * 64}")[0] == 401


def test_without_a_token_only_who_asks_for_this_machine_by_its_own_name_is_let_in(tmp_path):
    with served(tmp_path) as (place, _):
        for host in ("localhost", "127.0.0.1:8765", "[::1]:8765", "LOCALHOST:1"):
            assert ask(place, Host=host)[0] == 200
        for host in ("evil.example", "127.0.0.1.evil.example:8765", "", "localhost.evil.example"):
            assert ask(place, Host=host)[0] == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "edge.example", ""])
def test_an_address_that_others_reach_is_refused_without_a_token(host, tmp_path):
    with pytest.raises(PageRefused, match="set a token"), serve_page(PageConfig(host=host), tmp_path):
        pass


def test_an_address_that_cannot_be_had_is_said_in_one_line_before_anything_is_served(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = PageConfig(port=port)
        why = f"port {port} of 127.0.0.1 is taken"
        with pytest.raises(PageRefused, match=why) as refused, serve_page(taken, tmp_path):
            pass
    assert "\n" not in str(refused.value)
    foreign = PageConfig(host="192.0.2.7", port=0, token=TOKEN)
    with pytest.raises(PageRefused, match="192"), serve_page(foreign, tmp_path):
        pass


def test_the_page_goes_when_its_context_ends_and_its_port_is_free_again(tmp_path):
    with served(tmp_path) as (place, _):
        assert ask(place)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        ask(place)
    with served(tmp_path) as (again, _):
        assert ask(again)[0] == 200


@given(st.text(), st.text(), st.text(), st.text(min_size=1))
def test_who_does_not_show_the_token_is_not_let_in(authorization, cookie, shown, token):
    visit = Visit(method="GET", host="localhost", authorization=authorization, cookie=cookie, token=shown)
    assume(shown != token and token not in authorization)
    assert judge(visit, token).status == 401


@given(st.sampled_from(["GET", "HEAD", "POST", "TRACE"]), st.text(), st.text())
def test_a_refusal_says_what_to_do(method, host, token):
    verdict = judge(Visit(method=method, host=host), token)
    assert verdict.status == 200 or verdict.text
    assert (verdict.status == 405) == (method in {"POST", "TRACE"})


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("10.0.0.1", "0.0.0.0", "", "localhost.example")),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host, local):
    assert is_loopback(host) is local


def test_a_thousand_devices_and_a_word_of_each_are_a_status_like_any_other(tmp_path):
    with served(tmp_path) as (place, store):
        for n in range(1000):
            store.set_presence(f"board-{n:04}", m.Alive(online=True, boot_id="b"))
        shown = msgspec.json.decode(ask(place)[2], type=Status)
    assert len(shown.devices) == 1000
