"""What is planted in a link comes out nowhere: in no message, traceback, log, row or name, whatever
goes wrong, and whatever a server does with it.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.certificates import Authority
from tests.support.processes import HOST, free_port
from tests.support.tls_site import Exchange, Page, Site, redirect, running_site
from transforms.media.errors import StorageError
from transforms.sources import archive_files
from transforms.storage import globs, objects, storage_options
from transforms.storage.inputs import ARCHIVE_INPUTS
from transforms.storage.link_connections import pool_of
from transforms.storage.registry import store_of
from transforms.storage.storage_options import StorageOptions
from transforms.storage.uris import shown, split_link

pytestmark = pytest.mark.usefixtures("quick_retries")
SECRET = "Planted7Signature0f9e8d7c"
QUERIES = {
    "s3": f"?X-Amz-Date=20260105T100000Z&X-Amz-Expires=9&X-Amz-Signature={SECRET}",
    "s3-token": f"?X-Amz-Security-Token={SECRET}%2F%2B&X-Amz-Signature=0",
    "gcs": f"?GoogleAccessId=x&Expires=1767607200&Signature={SECRET}%2B%3D",
    "sas": f"?sv=2024&se=2026-01-05T10%3A00Z&sig={SECRET}%2F",
    "bare": f"?{SECRET}",
    "fragment": f"?x#{SECRET}",
    "slash": f"?sig={SECRET}/",
    "user": "",
}


@pytest.fixture(autouse=True)
def _no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name leads anywhere but that of this machine: no test asks the network."""
    look_up = socket.getaddrinfo

    def local(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in (HOST, "localhost"):
            raise socket.gaierror(socket.EAI_NONAME, f"nothing known of {host}")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local)


def echo(status: int, *names: str) -> Callable[[Exchange], None]:
    """Returns an answer that repeats what was asked in its body and in headers."""

    def answer(exchange: Exchange) -> None:
        asked = exchange.path + " " + (exchange.headers.get("Authorization") or "")
        told: dict[str, str | None] = dict.fromkeys(names, asked)
        exchange.give(status, f"<Code>{asked}</Code>".encode(), told)

    return answer


def echo_location(before: str) -> Callable[[Exchange], None]:
    """Returns an answer that sends elsewhere, with what was asked in the link."""
    return lambda exchange: redirect(before + quote(exchange.path, safe="/?&=%"))(exchange)


ANSWERS: dict[str, Callable[[Exchange], None]] = {
    **{str(status): echo(status) for status in (302, 400, 401, 403, 404, 410, 416, 429, 503)},
    "none": lambda exchange: exchange.hang_up(),
    "short": lambda exchange: exchange.send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"),
    "headers": echo(200, "ETag", "Last-Modified", "Date", "Content-Type"),
    "no-headers": echo(200, "Content Length", "X\x00Y"),
    "broken-headers": lambda exchange: exchange.send_raw(
        f"HTTP/1.1 200 OK\r\n{exchange.path}\r\n: {exchange.path}\r\n\r\n".encode()
    ),
    "status-line": lambda exchange: exchange.send_raw(f"{exchange.path} 200\r\n\r\n".encode()),
    "encoding": echo(200, "Content-Encoding"),
    "range": echo(206, "Content-Range"),
    "length": echo(200, "Content-Length"),
    "chunks": lambda exchange: exchange.send_raw(
        b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 0-9/10\r\n\r\n"
        + exchange.path.encode()
    ),
    "retry-after": echo(503, "Retry-After"),
    "loop": echo_location(""),
    "to-http": echo_location("http://host.example"),
    "to-private": echo_location("https://10.0.0.1"),
    "to-user": lambda exchange: redirect(f"https://{SECRET}:x@10.0.0.1/")(exchange),
    "to-host": lambda exchange: redirect(f"https://{SECRET}.localhost.invalid/")(exchange),
    "to-nothing": lambda exchange: redirect(f"gopher://{exchange.path}")(exchange),
    "login": lambda exchange: exchange.give(
        200, f"<html><a href='{exchange.path}'>".encode(), {"Content-Type": "text/html"}
    ),
}


def everything_of(error: BaseException | None) -> str:
    """Returns all that can be printed of an error, and of those behind it."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error), repr(error.args), repr(vars(error))]
        texts += traceback.format_exception(error)
        texts.append(repr(pickle.dumps(error.args)))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def all_done_with(link: str, *, is_brief: bool = False) -> str:
    """Returns all that is told of a link by whatever reads it."""
    told: list[str] = []
    done: list[Callable[[], Any]] = [
        lambda: archive_files.stat_archive(link),
        lambda: _read(link),
        lambda: objects.delete(link),
        lambda: objects.list_below(link),
        lambda: objects.read_for_swap(link),
        lambda: objects.resolve(link),
        lambda: shown(link),
        lambda: split_link(link),
        lambda: store_of(link),
    ]
    if not is_brief:
        done += [
            lambda: archive_files.find_archives(link),
            lambda: archive_files.fingerprint(link),
            lambda: objects.match(globs.quote(link)),
            lambda: objects.change_token(link),
            lambda: len(objects.read_bytes(link)),
            lambda: len(objects.read_range(link, 1, 2)),
            lambda: objects.write_bytes(link, b""),
        ]
    for do in done:
        try:
            told.append(repr(do()))
        except Exception as error:  # whatever it is: what it says is looked at
            told.append(everything_of(error))
    return "\n".join(told)


def _read(link: str) -> str:
    with ARCHIVE_INPUTS.open(link) as file:
        told = repr((file, getattr(file, "raw", None)))
        with contextlib.suppress(StorageError):
            file.read()
    return told


@pytest.mark.parametrize("kind", QUERIES)
def test_what_is_planted_in_a_link_comes_out_nowhere(
    tls_site: Site, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = ""
    for name, answer in ANSWERS.items():
        link = tls_site.put(f"/{name}.tar.gz", Page(answers=[answer])) + QUERIES[kind]
        if kind == "user":
            link = link.replace("://", f"://me:{SECRET}@")
        seen += all_done_with(link, is_brief=kind != "s3")
    seen += all_done_with(tls_site.put("/good", b"x" * 100) + QUERIES[kind])

    assert seen.count("StorageError") > 3 * len(ANSWERS)
    logged = caplog.text + "".join(record.getMessage() for record in caplog.records)
    printed = "".join(capfd.readouterr())
    for text in (seen, logged, printed):
        assert SECRET.lower() not in text.lower()


def test_what_is_planted_comes_out_of_no_connection_that_fails(
    authority: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    tls_site: Site,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("NO_PROXY", f"{HOST},localhost")
    storage_options.use(StorageOptions(allow_private_addresses=True))
    query = QUERIES["s3"]
    with (
        running_site(authority.server_context(HOST, is_expired=True)) as expired,
        running_site(None) as clear,
    ):
        links = [
            expired.link("/a") + query,
            clear.link("/a").replace("http:", "https:") + query,
            f"https://me:{SECRET}@localhost:{free_port()}/a{query}",
            f"https://nowhere.invalid/a{query}",
            f"https://me:{SECRET}/x@{HOST}/a{query}",
            f"https://{HOST}:99999/a{query}",
            f"https://h\x00{HOST}/a{query}",
            f"https://{'a' * 300}.example/a{query}",
            f"https://..example/a{query}",
            f"https://{HOST}/a\n{query}",
            f"http://host.example/a{query}",
        ]
        told = [all_done_with(link) for link in links]
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@{HOST}:{free_port()}")
    monkeypatch.delenv("NO_PROXY")
    told.append(all_done_with(f"https://host.example/a{query}"))

    for text in [*told, caplog.text]:
        assert SECRET not in text


def test_library_logs_no_query(caplog: pytest.LogCaptureFixture, tls_site: Site) -> None:
    caplog.set_level(logging.DEBUG)
    link = split_link(tls_site.put("/a", b"x"))
    assert link is not None

    pool_of(link).urlopen("GET", f"/a?sig={SECRET}", retries=1)
    logging.getLogger("urllib3.connectionpool").warning(
        "Failed to parse headers (url=%s): %s", f"/a?{SECRET}", "x", exc_info=ValueError(SECRET)
    )

    assert "Failed to parse headers (url=/a?[hidden]" in caplog.text
    assert SECRET not in caplog.text
