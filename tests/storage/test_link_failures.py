"""Links that lead to nothing, or to what is no archive: one line each, and no try too many."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import NoReturn

import pytest
import tenacity

from tests.support.processes import free_port
from tests.support.tls_site import Exchange, Page, Site, redirect, signed
from transforms.media.errors import LinkExpiredError, StorageError, exhausted_resource
from transforms.storage import (
    globs,
    https,
    link_requests,
    link_terms,
    objects,
    retry,
    storage_options,
)
from transforms.storage.registry import store_of
from transforms.storage.storage_options import StorageOptions
from transforms.storage.store import StoreBusyError

pytestmark = pytest.mark.usefixtures("quick_retries")
NOW = "Wed, 07 Jan 2026 02:00:00 GMT"
DATA = bytes(range(256)) * 1_000


def refusal(link: str) -> StorageError:
    """Returns what comes of looking at a link; the same comes of opening it."""
    with pytest.raises(StorageError) as looked:
        objects.match(globs.quote(link))
    with pytest.raises(StorageError) as opened:
        objects.open_input(link)
    assert opened.value.message == looked.value.message
    assert "\n" not in looked.value.message
    return looked.value


# --- refused, gone, expired -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_link_that_has_expired_is_told_by_its_own_time(tls_site: Site, status: int) -> None:
    path = tls_site.put("/a.tar.gz", Page(status=status, headers={"Date": NOW}))
    link = signed(path, "0f0f", "20260105T100000Z", 3_600)

    error = refusal(link)

    assert isinstance(error, LinkExpiredError)
    assert error.retryable
    assert error.message == (
        f"{path}: its link expired at 2026-01-05T11:00:00Z: HTTP status {status}"
    )
    assert len(tls_site.requests) == 2  # one each: it does not pass


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, "HTTP status 400"),
        (401, "refused: HTTP status 401"),
        (403, "refused: HTTP status 403"),
        (404, "gone: HTTP status 404"),
        (410, "gone: HTTP status 410"),
    ],
)
def test_link_that_is_good_is_refused_or_gone_for_another_reason(
    tls_site: Site, status: int, told: str
) -> None:
    """Whatever the clock of this machine says."""
    path = tls_site.put("/a.tar.gz", Page(status=status, headers={"Date": NOW}))

    good = refusal(signed(path, "0f0f", "20260107T000000Z", 86_400))
    bare = refusal(path)

    assert not isinstance(good, LinkExpiredError)
    assert good.message == f"{path}: {told}; its link is good until 2026-01-08T00:00:00Z"
    assert bare.message == f"{path}: {told}"
    assert len(tls_site.requests) == 4


def test_word_of_the_store_is_told_where_it_is_a_known_one(tls_site: Site) -> None:
    body = b"<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code><StringToSign>x"
    link = tls_site.put("/a", Page(status=403, data=body))

    assert refusal(link).message.endswith("a: refused: HTTP status 403 SignatureDoesNotMatch")


# --- no archive -----------------------------------------------------------------------------------

LOGIN = b"\xef\xbb\xbf \r\n<!DOCTYPE html><html><head><title>Sign in</title>" + b" " * 2_000


@pytest.mark.parametrize("has_ranges", [True, False])
def test_html_is_told_from_an_archive(tls_site: Site, has_ranges: bool) -> None:
    html = "text/html; charset=utf-8"
    link = tls_site.put(
        "/a", Page(data=LOGIN.lstrip(b"\xef\xbb\xbf \r\n"), has_ranges=has_ranges,
                   headers={"Content-Type": html})
    )  # fmt: skip

    assert refusal(link).message.endswith("a: HTML came (a page to log in?), expected a file")
    assert len(tls_site.requests) == 2


def test_html_under_another_name_is_told_when_it_is_opened(tls_site: Site) -> None:
    link = tls_site.put("/a", Page(data=LOGIN))

    with pytest.raises(StorageError, match="HTML came"):
        objects.open_input(link)


def _with_headers(status: int, **headers: str | None) -> Callable[[Exchange], None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.give(status, DATA[:10], named)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (_with_headers(206), "Content-Range missing, expected"),
        (_with_headers(206, Content_Range="bytes 5-14/100"), "Content-Range bytes 5-14/100"),
        (_with_headers(206, Content_Range="bytes 0-9/5"), "Content-Range bytes 0-9/5"),
        (_with_headers(206, Content_Range="bytes 0-9/*"), r"Content-Range bytes 0-9/\*"),
        (_with_headers(206, Content_Range="bytes 0-8/100"), "0-8/100 and Content-Length 10"),
        (_with_headers(206, Content_Range="lines 0-9/100"), "Content-Range lines 0-9/100"),
        (_with_headers(206, Content_Range="bytes 9-0/100"), "Content-Range bytes 9-0/100"),
        (_with_headers(206, Content_Range=f"bytes 0-9/{'9' * 5_000}"), "Content-Range bytes 0-9/9"),
        (_with_headers(200, Content_Length="ten"), "no size came with it"),
        (_with_headers(200, Content_Length=None, Connection="close"), "no size came with it"),
        (_with_headers(200, Content_Encoding="br"), "Content-Encoding br, expected the bytes as"),
        (_with_headers(200, Content_Encoding="gzip, br"), "Content-Encoding gzip, br"),
        (_with_headers(200, Content_Range="bytes 5-14/100"), "with HTTP status 200, and with"),
        (_with_headers(204), "HTTP status 204"),
        (_with_headers(304), "HTTP status 304"),
        (_with_headers(418), "HTTP status 418"),
        (lambda exchange: exchange.give(200, DATA, is_chunked=True), "no size came with it"),
    ],
)  # fmt: skip
def test_answer_that_does_not_fit_is_one_line(
    tls_site: Site, answer: Callable[[Exchange], None], told: str
) -> None:
    link = tls_site.put("/a", Page(answers=[answer]))

    with pytest.raises(StorageError, match=told) as refused:
        objects.match(link)
    assert len(refused.value.message) < 250
    assert len(tls_site.requests) == 1


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("/a", "is redirected more than 5 times"),
        ("http://127.0.0.1/a", "is redirected to http://127.0.0.1: is no https://"),
        ("http://host.example/a", "is redirected to http://host.example: is no https://"),
        ("https://10.0.0.7/a", "is redirected to https://10.0.0.7: leads to 10.0.0.7, which is"),
        ("https://[::ffff:10.0.0.7]/a", "to https://[::ffff:10.0.0.7]: leads to ::ffff:10.0.0.7"),
        ("https://169.254.169.254/latest", "leads to 169.254.169.254, which is no public"),
        ("https://2130706433/a", "leads to 2130706433, which is no public address"),
        ("file:///etc/passwd", "is redirected: is no link"),
        ("ftp://host/a", "is redirected: is no link"),
        ("https://:8/a", "is redirected: is no link"),
        ("https://[::1/a", "is redirected: is no link"),
        ("https://h/" + "a" * 20_000, "is redirected: is no link"),
    ],
)
def test_redirect_that_is_not_followed_is_one_line(
    tls_site: Site, location: str, told: str
) -> None:
    link = tls_site.put("/a", Page(answers=[redirect(location)]))

    assert told in refusal(link).message


# --- what may pass --------------------------------------------------------------------------------


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is waited, in place of waiting."""
    waited: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=waited.append))
    return waited


def _busy(status: int, retry_after: str | None = None) -> Callable[[Exchange], None]:
    headers = {"Retry-After": retry_after, "Date": NOW}
    return lambda exchange: exchange.give(status, b"<Code>SlowDown</Code>", headers)


def test_busy_server_is_left_alone_for_as_long_as_it_asks(
    tls_site: Site, waits: list[float]
) -> None:
    answers = [
        _busy(429, "7"),
        _busy(503, "Wed, 07 Jan 2026 02:00:11 GMT"),
        _busy(503, "Tue, 06 Jan 2026 02:00:00 GMT"),
        _busy(500, "soon"),
        Exchange.give_page,
    ]
    link = tls_site.put("/a", Page(data=DATA, answers=answers))

    assert objects.match(link)[0].size_bytes == len(DATA)
    assert waits == [7, 11, 0, 0]


def test_server_that_asks_for_too_much_is_left_to_the_next_run(
    tls_site: Site, waits: list[float]
) -> None:
    link = tls_site.put("/a", Page(answers=[_busy(429, "3600")]))

    assert refusal(link).message.endswith("HTTP status 429 SlowDown, asks to wait for 3600 s")
    assert waits == []
    assert len(tls_site.requests) == 2


def test_server_that_stays_busy_is_given_up(tls_site: Site) -> None:
    link = tls_site.put("/a", Page(answers=[_busy(503)]))

    assert refusal(link).message.endswith("a: HTTP status 503 SlowDown")
    assert len(tls_site.requests) == 12


def test_answer_that_is_no_http_is_one_line(tls_site: Site) -> None:
    for raw in (b"", b"\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nX"):

        def answer(exchange: Exchange, raw: bytes = raw) -> None:
            exchange.send_raw(raw)

        link = tls_site.put("/a", Page(answers=[answer]))
        with pytest.raises(StorageError, match=r"/a: (the connection broke|no size)"):
            objects.match(link)


@pytest.mark.parametrize(
    ("code", "told", "tries"),
    [
        (socket.EAI_NONAME, "there is no such host", 1),
        (socket.EAI_AGAIN, "its host cannot be looked up", 6),
    ],
)
def test_host_whose_name_leads_nowhere_is_one_line(
    monkeypatch: pytest.MonkeyPatch, code: int, told: str, tries: int
) -> None:
    asked = []

    def look_up(host: str, *_: object, **__: object) -> NoReturn:
        asked.append(host)
        raise socket.gaierror(code, "as the resolver says")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    with pytest.raises(StorageError, match=rf"^https://nowhere\.example/a: {told}$"):
        objects.match("https://nowhere.example/a?sig=x")
    assert asked == ["nowhere.example"] * tries


def test_machine_that_has_run_out_of_files_is_told_from_a_host_that_fails(
    tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    tls_site.put("/a", DATA)
    storage_options.use(StorageOptions(allow_private_addresses=True))  # without open connections
    monkeypatch.setattr(os, "dup", no_more)

    with pytest.raises(StorageError, match="/a: Too many open files") as failed:
        objects.match(tls_site.link("/a"))
    assert exhausted_resource(failed.value) is not None


def test_silent_host_is_not_asked_for_each_archive_and_costs_no_other(
    tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_DOWN_SECONDS", 0)
    dead = f"https://localhost:{free_port()}"
    good = tls_site.put("/a", DATA)
    for number in range(3):
        with pytest.raises(StorageError, match=f"/{number}: Connection refused$"):
            objects.match(f"{dead}/{number}?sig=x")

    with pytest.raises(StorageError, match=rf"/3: {dead} has not answered for \d+ s, last w"):
        objects.match(f"{dead}/3?sig=x")

    assert objects.match(good)[0].size_bytes == len(DATA)
    monkeypatch.setattr(retry, "_ASK_AGAIN_SECONDS", 0)
    with pytest.raises(StorageError, match=r"/3: Connection refused$"):
        objects.match(f"{dead}/3?sig=x")


# --- what drips -----------------------------------------------------------------------------------


@pytest.fixture
def done() -> threading.Event:
    """That the test is over: servers that drip stop then."""
    return threading.Event()


def _drip(exchange: Exchange, data: bytes, done: threading.Event) -> None:
    for byte in data:
        if done.wait(0.02):
            return
        try:
            exchange.wfile.write(bytes([byte]))
        except OSError:
            return


@pytest.mark.parametrize("at", ["head", "continue", "beginning", "body"])
def test_answer_that_drips_is_cut_off(
    tls_site: Site, monkeypatch: pytest.MonkeyPatch, done: threading.Event, at: str
) -> None:
    monkeypatch.setattr(link_terms, "READING", link_terms.Terms(answer_seconds=0.2))
    monkeypatch.setattr(link_requests, "_BEGINNING_SECONDS", 0.2)
    monkeypatch.setattr(https, "_PIECE_SECONDS", 0.2)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"

    def answer(exchange: Exchange) -> None:
        if at == "head":
            _drip(exchange, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000, done)
        elif at == "continue":
            _drip(exchange, b"HTTP/1.1 100 Continue\r\n\r\n" * 100, done)
        else:
            exchange.wfile.write(head + (b"\0" * 600 if at == "body" else b""))
            _drip(exchange, b"\0" * 1_000, done)
        exchange.hang_up()

    link = tls_site.put("/a", Page(answers=[answer]))
    try:
        with pytest.raises(StoreBusyError, match=r"within 0\.2 s"):
            store_of(link).open(link).read_at(0, 50_000)
    finally:
        done.set()


def test_endless_redirect_bodies_are_not_read(tls_site: Site, done: threading.Event) -> None:
    tls_site.put("/there", DATA)

    def answer(exchange: Exchange) -> None:
        exchange.wfile.write(
            b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 999999999\r\n\r\n"
        )
        _drip(exchange, b"x" * 10_000, done)

    link = tls_site.put("/a", Page(answers=[answer]))
    try:
        assert objects.match(link)[0].size_bytes == len(DATA)
    finally:
        done.set()
