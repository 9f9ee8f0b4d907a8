"""One POST to an endpoint: what each answer means, whom it goes to, how long it may take."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.connect_proxy import running_proxy
from tests.support.processes import HOST, free_port
from tests.support.tell_once import crm
from tests.support.tls_site import Exchange, Page, Site, redirect, running_site
from transforms.media.values import CallKey
from transforms.notices.https_sender import HttpsSender
from transforms.notices.sender import Answer, Notice, NoticeState
from transforms.notices.signatures import headers, webhook_key
from transforms.storage import link_terms, secrets, storage_options
from transforms.storage.storage_options import StorageOptions

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_KEY = "whsec_" + "A" * 32
NOTICE = Notice(
    event_id="e1",
    event_type="call.recording_ready",
    call=CallKey(call_type="default", call_id="standup", call_session_id="s"),
    attempt=3,
    body='{"type":"call.recording_ready","é":1}'.encode(),
    shard="2026-11-20_part-0",
)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_kept", {})
    for name, value in {
        "SECRET": "tell-nobody", "API_KEY": "who", "KEY": KEY, "OTHER": OTHER_KEY, "BAD": "whsec_x",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"NOTICES_{name}", value)


@pytest.fixture
def done() -> Iterator[threading.Event]:
    """That the test is over: servers that wait stop then."""
    event = threading.Event()
    yield event
    event.set()


def send(url: str, **changed: Any) -> Answer:
    """Sends a notice to a target; returns what came of it."""
    sender = HttpsSender(crm(url, **{"timeout_seconds": 5.0, **changed}))
    try:
        (answer,) = sender.send([NOTICE])
    finally:
        sender.close()
    assert "\n" not in answer.why
    assert "tell-nobody" not in answer.why
    return answer


def test_notice_is_posted_and_signed(tls_site: Site) -> None:
    url = tls_site.put("/hook", b"")

    answer = send(
        f"{url}?to=them",
        secret="env:NOTICES_SECRET",
        api_key="env:NOTICES_API_KEY",
        webhook_keys=("env:NOTICES_KEY", "env:NOTICES_OTHER"),
    )

    assert answer == Answer(state=NoticeState.DELIVERED, http_status=200)
    (request,) = tls_site.requests
    assert (request.method, request.path, request.query) == ("POST", "/hook", "to=them")
    assert request.body == NOTICE.body
    at = int(request.headers["webhook-timestamp"])
    assert abs(at - time.time()) < 30
    signed = headers(
        NOTICE.body, "e1", 3, at, secret="tell-nobody", api_key="who",
        webhook_keys=[webhook_key(KEY), webhook_key(OTHER_KEY)],
    )  # fmt: skip
    assert {
        name.lower(): value for name, value in signed.items()
    }.items() <= request.headers.items()
    assert request.headers["user-agent"] == "callpress"
    assert "content-encoding" not in request.headers


def test_whole_url_may_be_a_reference(tls_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tls_site.put("/hook", b"").replace("https://", "https://me:tell-nobody@")
    monkeypatch.setenv("NOTICES_URL", f"{url}?sig=tell-nobody")

    assert send("https://elsewhere.example.org", address="env:NOTICES_URL").state == "delivered"

    (request,) = tls_site.requests
    assert request.query == "sig=tell-nobody"
    assert request.headers["authorization"] == "Basic bWU6dGVsbC1ub2JvZHk="


def test_user_may_have_letters_of_any_script(
    tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tls_site.put("/hook", b"").replace("https://", "https://%E2%82%AC:tell-nobody@")
    monkeypatch.setenv("NOTICES_URL", url)
    assert send("", address="env:NOTICES_URL").state == "delivered"
    (request,) = tls_site.requests
    assert request.headers["authorization"] == "Basic 4oKsOnRlbGwtbm9ib2R5"


def test_host_that_a_reference_hides_is_in_no_message(
    tls_site: Site, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_site(authority.server_context("other.example.org")) as site:
        place = site.put("/hook", b"").replace(HOST, "localhost")
        monkeypatch.setenv("NOTICES_URL", place)
        storage_options.use(StorageOptions(named_hosts=frozenset({f"localhost:{site.port}"})))
        shown, hidden = send(place), send("", address="env:NOTICES_URL")
    told = "its certificate is not accepted: Hostname mismatch, certificate is not valid for"
    assert (shown.why, hidden.why) == (f"{told} 'localhost'.", f"{told} [hidden].")


@pytest.mark.parametrize("status", [100, 102, 103])
def test_answers_that_are_none_yet_are_passed_over(tls_site: Site, status: int) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.wfile.write(b"HTTP/1.1 %d Wait\r\nLink: </style.css>\r\n\r\n" % status * 3)
        exchange.give(204, b"")

    url = tls_site.put("/hook", Page(answers=[answer]))
    assert send(url) == Answer(state=NoticeState.DELIVERED, http_status=204)


@pytest.mark.parametrize(
    ("status", "state", "why"),
    [
        (200, "delivered", ""),
        (204, "delivered", ""),
        (299, "delivered", ""),
        (408, "pending", "HTTP status 408"),
        (425, "pending", "HTTP status 425"),
        (429, "pending", "HTTP status 429"),
        (500, "pending", "HTTP status 500"),
        (503, "pending", "HTTP status 503"),
        (599, "pending", "HTTP status 599"),
        (400, "failed", "HTTP status 400, expected one from 200 to 299"),
        (413, "failed", "HTTP status 413, expected one from 200 to 299"),
        (401, "pending", "HTTP status 401, expected one from 200 to 299"),
        (404, "pending", "HTTP status 404, expected one from 200 to 299"),
        (304, "pending", "HTTP status 304 sends elsewhere, which is not followed, expected one "
         "from 200 to 299"),
        (410, "gone", "HTTP status 410: it takes nothing any more"),
    ],
)  # fmt: skip
def test_status_says_what_becomes_of_a_notice(
    tls_site: Site, status: int, state: str, why: str
) -> None:
    url = tls_site.put("/hook", Page(answers=[lambda exchange: exchange.give(status, b"no")]))
    answer = send(url)
    assert (answer.state, answer.http_status, answer.why) == (state, status, why)
    assert answer.ends_target == (status == 410)
    assert answer.waits_for_next_run == (status in (304, 401, 404))


def test_redirect_is_not_followed(tls_site: Site) -> None:
    there = tls_site.put("/there", b"")
    url = tls_site.put("/hook", Page(answers=[redirect(f"{there}?sig=tell-nobody", 307)]))
    assert send(url).waits_for_next_run
    assert [request.path for request in tls_site.requests] == ["/hook"]


@pytest.mark.parametrize(
    ("status", "asked", "seconds"),
    [
        (429, "17", 17.0), (503, "120", 120.0), (503, None, 0.0), (429, "soon", 0.0),
        (429, "Wed, 07 Jan 2026 02:00:30 GMT", 30.0), (429, "Wed, 07 Jan 2026 01:00:00 GMT", 0.0),
        (500, "17", 0.0), (200, "17", 0.0), (429, "9" * 5_000, 0.0), (429, "-1", 0.0),
    ],
)  # fmt: skip
def test_how_long_to_leave_it_alone(
    tls_site: Site, status: int, asked: str | None, seconds: float
) -> None:
    told = {"Retry-After": asked, "Date": "Wed, 07 Jan 2026 02:00:00 GMT"}
    url = tls_site.put("/hook", Page(answers=[lambda exchange: exchange.give(status, b"", told)]))
    assert send(url).after_seconds == seconds


# --- connections ----------------------------------------------------------------------------------


def _large(exchange: Exchange) -> None:
    exchange.give(200, b"x" * 100_000)


def _chunked(exchange: Exchange) -> None:
    exchange.give(200, b"thanks", is_chunked=True)


@pytest.mark.parametrize(
    ("answer", "connections"),
    [(Exchange.give_page, 1), (_chunked, 1), (_large, 3)],
    ids=["small", "chunked", "large"],
)
def test_connection_is_kept_where_little_is_to_be_read(
    tls_site: Site, answer: Callable[[Exchange], None], connections: int
) -> None:
    url = tls_site.put("/hook", Page(data=b"thanks", answers=[answer]))
    sender = HttpsSender(crm(url, timeout_seconds=5.0))
    answers = sender.send([NOTICE, replace(NOTICE, event_id="e2"), replace(NOTICE, event_id="e3")])
    sender.close()
    assert [answer.state for answer in answers] == ["delivered"] * 3
    assert len({request.connection for request in tls_site.requests}) == connections


def _silent(exchange: Exchange, done: threading.Event) -> None:
    done.wait(30)


def _drip(head: bytes) -> Callable[[Exchange, threading.Event], None]:
    def answer(exchange: Exchange, done: threading.Event) -> None:
        exchange.wfile.write(head)
        while not done.wait(0.02):
            exchange.wfile.write(b"x")

    return answer


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (_silent, "pending"),
        (_drip(b"HTTP/1.1 200 OK\r\nX-Slow: "), "pending"),
        (_drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"), "delivered"),
        (_drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1"), "delivered"),
    ],
    ids=["silent", "head", "body", "chunk"],
)
def test_request_takes_no_longer_than_its_time_out(
    tls_site: Site, done: threading.Event, answer: Callable[..., None], state: str
) -> None:
    url = tls_site.put("/hook", Page(answers=[lambda exchange: answer(exchange, done)]))
    began = time.monotonic()

    found = send(url, timeout_seconds=0.5)

    assert found.state == state
    assert found.why == ("" if state == "delivered" else "no answer within 0.5 s")
    assert not found.ends_target
    assert time.monotonic() - began < 3


def test_server_that_never_encrypts_takes_no_longer_either(tls_site: Site) -> None:
    with socket.create_server((HOST, 0)) as mute:
        host = f"{HOST}:{mute.getsockname()[1]}"
        storage_options.use(StorageOptions(named_hosts=frozenset({host})))
        answer = send(f"https://{host}/hook", timeout_seconds=0.3)
    assert (answer.state, answer.ends_target) == (NoticeState.PENDING, False)


def test_closing_cuts_what_is_under_way(tls_site: Site, done: threading.Event) -> None:
    asked = threading.Event()

    def answer(exchange: Exchange) -> None:
        asked.set()
        done.wait(30)

    sender = HttpsSender(crm(tls_site.put("/hook", Page(answers=[answer])), timeout_seconds=30.0))
    found: list[Answer] = []
    thread = threading.Thread(target=lambda: found.extend(sender.send([NOTICE])))
    thread.start()
    assert asked.wait(20)
    sender.close()
    thread.join(10)
    (again,) = sender.send([NOTICE])
    assert [each.state for each in (*found, again)] == ["pending", "pending"]
    assert len(tls_site.requests) == 1


def test_server_that_is_not_there_may_come_back(tls_site: Site) -> None:
    host = f"{HOST}:{free_port()}"
    storage_options.use(StorageOptions(named_hosts=frozenset({host})))
    answer = send(f"https://{host}/hook")
    assert (answer.state, answer.ends_target) == (NoticeState.PENDING, False)
    assert answer.why == "Connection refused"


# --- whom it goes to ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"secret": "env:NOTICES_NONE"},
            "env:NOTICES_NONE: the environment of this process has no",
        ),
        ({"webhook_keys": ("env:NOTICES_BAD",)}, "env:NOTICES_BAD: is no key of Standard Webhooks"),
        ({"address": "env:NOTICES_SECRET"}, "env:NOTICES_SECRET: is no URL of an endpoint"),
        ({"place": "http://crm.example.org/"}, "its address is none, expected https://HOST"),
        ({"place": "https://crm.example.org/#tell-nobody"}, "its address is none, expected https"),
        ({"place": "https://127.0.0.2/hook"}, "leads to 127.0.0.2, which is no public address"),
        ({"place": "https://no-such-host.invalid/"}, "there is no such host"),
    ],
)
def test_what_an_operator_has_to_mend_ends_the_target(
    tls_site: Site, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], why: str
) -> None:
    def nowhere(*_args: Any, **_kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    url = changed.pop("place", tls_site.put("/hook", b""))
    if "invalid" in url:
        monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    answer = send(url, **changed)
    assert (answer.state, answer.ends_target) == (NoticeState.PENDING, True)
    assert why in answer.why
    assert tls_site.requests == []


def test_address_that_is_not_public_is_sent_nothing(tls_site: Site) -> None:
    url = tls_site.put("/hook", b"")
    storage_options.use(StorageOptions())
    answer = send(url)
    assert (answer.state, answer.ends_target) == (NoticeState.PENDING, True)
    assert "no public address" in answer.why
    storage_options.use(StorageOptions(allow_private_addresses=True))
    assert send(url).state is NoticeState.DELIVERED


@pytest.mark.parametrize(
    ("name", "is_expired", "why"),
    [
        ("other.example.org", False, "its certificate is not accepted: IP address mismatch"),
        (HOST, True, "its certificate is not accepted: certificate has expired"),
    ],
)
def test_certificate_of_another_host_ends_the_target(
    tls_site: Site, authority: Authority, name: str, is_expired: bool, why: str
) -> None:
    with running_site(authority.server_context(name, is_expired=is_expired)) as site:
        storage_options.use(StorageOptions(named_hosts=frozenset({site.host_and_port})))
        answer = send(site.put("/hook", b""))
        assert (answer.state, answer.ends_target) == (NoticeState.PENDING, True)
        assert answer.why.startswith(why)
        assert site.requests == []


def test_server_without_encryption_ends_the_target(tls_site: Site) -> None:
    with running_site(None) as site:
        storage_options.use(StorageOptions(named_hosts=frozenset({site.host_and_port})))
        answer = send(site.put("/hook", b"").replace("http://", "https://"))
    assert (answer.state, answer.ends_target) == (NoticeState.PENDING, True)
    assert answer.why.startswith("no encrypted connection: ")


@pytest.mark.parametrize(
    ("status", "state", "why"),
    [
        (200, "delivered", ""),
        (407, "pending", "the proxy answers HTTP status 407"),
        (503, "pending", "the proxy answers HTTP status 503"),
    ],
)
def test_notice_goes_by_way_of_the_proxy(
    tls_site: Site, monkeypatch: pytest.MonkeyPatch, status: int, state: str, why: str
) -> None:
    with running_proxy() as proxy:
        proxy.status = status
        monkeypatch.setenv("HTTPS_PROXY", f"http://{HOST}:{proxy.port}")
        answer = send(f"{tls_site.put('/hook', b'')}?sig=tell-nobody")
    assert (answer.state, answer.why, answer.ends_target) == (state, why, status == 407)
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {HOST}:{tls_site.port} ")
    assert "tell-nobody" not in head


@pytest.mark.parametrize("event_id", ["", "a\r\nX-Evil: 1", "é", "a" * 257])
def test_id_that_no_header_can_hold_is_not_sent(tls_site: Site, event_id: str) -> None:
    sender = HttpsSender(crm(tls_site.put("/hook", b"")))
    (answer,) = sender.send([replace(NOTICE, event_id=event_id)])
    sender.close()
    assert (answer.state, tls_site.requests) == (NoticeState.FAILED, [])


def test_machine_without_threads_to_spare_tries_again(
    tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cuts connections in time is begun anew with the next one."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    url = tls_site.put("/hook", b"")
    monkeypatch.setattr(link_terms, "_WATCH", link_terms._Watch())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        answer = send(url)
    assert (answer.state, answer.why) == (NoticeState.PENDING, "can't start new thread")
    assert send(url).state is NoticeState.DELIVERED
    assert link_terms._WATCH._is_running
