"""Notices to a topic of Pub/Sub, by Google's client, against Google's stand-in for the service."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.command import callpress
from tests.support.processes import HOST, free_port
from tests.support.pubsub_server import PubSubServer, running_pubsub
from tests.support.receiver import make_catalog, read_table
from tests.support.tell_once import QUICK
from transforms.media.values import CallKey
from transforms.notices.pubsub import PubSubSender
from transforms.notices.sender import Answer, Notice, NoticeState
from transforms.notices.tell import Told, tell_pending
from transforms.targets import Notify, Target, TargetKind

STANDUP = CallKey(call_type="default", call_id="standup", call_session_id="9f1c")
REVIEW = CallKey(call_type="default", call_id="review", call_session_id="77aa")
DELIVERED = Answer(state=NoticeState.DELIVERED, http_status=200)


@pytest.fixture(scope="module")
def server() -> Iterator[PubSubServer]:
    with running_pubsub() as server:
        yield server


@pytest.fixture(autouse=True)
def _emulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "server" in request.fixturenames:
        found: PubSubServer = request.getfixturevalue("server")
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", found.address)


def target(topic: str, *, timeout_seconds: float = 6.0) -> Target:
    return Target(
        name=f"pubsub:{topic}",
        kind=TargetKind.PUBSUB,
        place=topic,
        timeout_seconds=timeout_seconds,
    )


def notices(call: CallKey, *bodies: str) -> list[Notice]:
    return [
        Notice(
            event_id=f"{call.call_id}-{number}",
            event_type="call.recording_ready",
            call=call,
            attempt=1,
            body=body.encode(),
            shard="2026-11-20_part-0",
        )
        for number, body in enumerate(bodies)
    ]


def test_message_is_the_event_under_the_key_of_its_call(server: PubSubServer) -> None:
    topic = server.make_topic("recordings")
    one, two = '{"type":"a","zoë":1}', '{"type":"b"}'
    sender = PubSubSender(target(topic))

    told = sender.send([*notices(STANDUP, one, two), *notices(REVIEW, "{}")])
    sender.close()

    assert told == [DELIVERED] * 3
    found = server.published(topic)
    of_standup = [each for each in found if each.ordering_key == "default:standup:9f1c"]
    assert [each.data.decode() for each in of_standup] == [one, two]
    assert [dict(each.attributes) for each in of_standup] == [
        {"event_id": "standup-0", "type": "call.recording_ready"},
        {"event_id": "standup-1", "type": "call.recording_ready"},
    ]
    assert [each.ordering_key for each in found if each not in of_standup] == [
        "default:review:77aa"
    ]


def test_many_calls_keep_their_order(server: PubSubServer) -> None:
    topic = server.make_topic("many")
    keys = [
        CallKey(call_type="default", call_id=f"c{number}", call_session_id="s")
        for number in range(60)
    ]
    rows = [[*notices(key, *(f"{key.call_id} {number}" for number in range(4)))] for key in keys]
    mixed = [row[number] for number in range(4) for row in rows]  # as no catalog has them
    sender = PubSubSender(target(topic))

    assert sender.send(mixed) == [DELIVERED] * len(mixed)

    assert len(mixed) <= sender.most
    order: dict[str, list[str]] = {}
    for each in server.published(topic):
        order.setdefault(each.ordering_key, []).append(each.data.decode())
    assert order == {
        f"{key.cid}:s": [f"{key.call_id} {number}" for number in range(4)] for key in keys
    }


def test_ids_too_long_for_a_key_give_one_all_the_same(server: PubSubServer) -> None:
    topic = server.make_topic("long")
    long = CallKey(call_type="default", call_id="ü" * 4096, call_session_id="s")

    assert PubSubSender(target(topic)).send(notices(long, "{}", "{}")) == [DELIVERED] * 2

    one, other = (each.ordering_key for each in server.published(topic))
    assert one == other
    assert 0 < len(one) <= 1024


@pytest.mark.parametrize("code", [2, 4, 8, 10, 13, 14])
def test_what_may_pass_is_sent_again(server: PubSubServer, code: int) -> None:
    topic = server.make_topic(f"fails-{code}-1-passing")
    sender = PubSubSender(target(topic))

    (first,), (second,) = (sender.send(notices(STANDUP, "{}")) for _ in range(2))

    assert (first.state, first.ends_target) == (NoticeState.PENDING, False)
    status = {2: None, 4: 504, 8: 429, 10: 409, 13: 500, 14: 503}[code]
    assert first.http_status == status
    assert first.why == (f"HTTP status {status}: " if status else "") + "as the topic says"
    assert first.after_seconds == (7.5 if code == 8 else 0)
    assert second == DELIVERED
    assert len(server.published(topic)) == 1


@pytest.mark.parametrize(("code", "status"), [(7, 403), (9, 400), (16, 401)])
def test_what_an_operator_may_mend_ends_the_target(
    server: PubSubServer, code: int, status: int
) -> None:
    topic = server.make_topic(f"fails-{code}-1-ended")
    sender = PubSubSender(target(topic))

    (told,) = sender.send(notices(STANDUP, "{}"))
    (after,) = sender.send(notices(REVIEW, "{}"))

    assert (told.state, told.ends_target) == (NoticeState.PENDING, True)
    assert told.http_status == status
    assert after == told  # and nothing is sent: it would have gone well
    assert not server.published(topic)


def test_topic_that_is_not_there_is_named(server: PubSubServer) -> None:
    sender = PubSubSender(target("projects/calls/topics/none"))

    one, other = sender.send(notices(STANDUP, "{}", "{}"))

    assert one == other
    assert (one.state, one.http_status, one.ends_target) == (NoticeState.PENDING, 404, True)
    assert one.why == 'HTTP status 404: topic "projects/calls/topics/none"'


def test_refused_message_costs_no_other(server: PubSubServer) -> None:
    topic = server.make_topic("refuses-damaged")
    sent = [*notices(STANDUP, "one", "damaged", "three"), *notices(REVIEW, "four")]

    told = PubSubSender(target(topic)).send(sent)

    assert [each.state for each in told] == ["delivered", "failed", "delivered", "delivered"]
    assert told[1].http_status == 400
    assert {each.data for each in server.published(topic)} == {b"one", b"three", b"four"}


def test_none_overtakes_one_of_its_call_that_is_to_be_tried_again(server: PubSubServer) -> None:
    topic = server.make_topic("refuses-broken")
    sent = [*notices(STANDUP, "one", "broken", "later", "last"), *notices(REVIEW, "other")]

    told = PubSubSender(target(topic)).send(sent)

    assert [each.state for each in told] == [
        "delivered", "failed", "pending", "pending", "delivered",
    ]  # fmt: skip
    assert told[3].http_status == told[2].http_status == 503
    assert {each.data for each in server.published(topic)} == {b"one", b"other"}


def test_calls_that_share_an_event_id_are_told_apart(server: PubSubServer) -> None:
    """No run makes such rows; a catalog that somebody wrote by hand may have them."""
    topic = server.make_topic("refuses-bad")
    (good,), (bad,) = notices(STANDUP, "good"), notices(REVIEW, "bad")

    told = PubSubSender(target(topic)).send([good, replace(bad, event_id=good.event_id)])

    assert [each.state for each in told] == ["delivered", "failed"]


def test_service_that_is_not_there_may_come_back() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUB_EMULATOR_HOST", f"{HOST}:{free_port()}")
        (told,) = PubSubSender(target("projects/calls/topics/t")).send(notices(STANDUP, "{}"))

    assert (told.state, told.http_status, told.ends_target) == (NoticeState.PENDING, 503, False)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service that takes connections and says nothing."""
    with socket.create_server((HOST, 0)) as listening:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"{HOST}:{listening.getsockname()[1]}")
        yield listening


def test_service_that_never_answers_is_left_in_time(silent: socket.socket) -> None:
    began = time.monotonic()

    (told,) = PubSubSender(target("projects/calls/topics/t", timeout_seconds=0.3)).send(
        notices(STANDUP, "{}")
    )

    assert (told.state, told.http_status, told.ends_target) == (NoticeState.PENDING, 504, False)
    assert time.monotonic() - began < 5


def test_closing_cuts_what_is_under_way(silent: socket.socket) -> None:
    sender = PubSubSender(target("projects/calls/topics/t", timeout_seconds=60))
    told: list[Answer] = []
    sending = threading.Thread(target=lambda: told.extend(sender.send(notices(STANDUP, "{}"))))
    sending.start()
    connection, _ = silent.accept()

    sender.close()
    sending.join(20)

    assert not sending.is_alive()
    connection.close()
    assert [each.state for each in told] == [NoticeState.PENDING]
    (after,) = sender.send(notices(STANDUP, "{}"))
    assert after.why == "the time for sending is over"
    assert after.ends_target


def test_what_a_catalog_has_pending_is_published_once(server: PubSubServer, tmp_path: Path) -> None:
    topic = server.make_topic("fails-14-3-catalog")
    bus = target(topic)
    rows = make_catalog(tmp_path, 40, [bus.name])
    notify = Notify(targets=(bus,), budget_seconds=30)

    def tell() -> list[Told]:
        return tell_pending(
            str(tmp_path), notify, "r1", lambda: None, senders=PubSubSender, pace=QUICK
        )

    assert tell() == [Told(target=bus.name, delivered=40, pending=0, failed=0, gone=0, why="")]
    found = server.published(topic)
    assert sorted(each.data.decode() for each in found) == sorted(row["body"] for row in rows)
    marked = {row["event_id"]: row for row in read_table(tmp_path, "notices")}
    assert {(row["state"], row["http_status"]) for row in marked.values()} == {("delivered", 200)}
    assert {row["attempts"] for row in marked.values()} == {1, 2}

    tell()

    assert not server.published(topic)


def test_command_tells_a_topic(server: PubSubServer, tmp_path: Path) -> None:
    topic = server.make_topic("command")
    rows = make_catalog(tmp_path, 3, [f"pubsub:{topic}"])
    flags = ("--catalog", tmp_path, "--notify")

    done = callpress("tell", *flags, f"pubsub:{topic}")

    assert (done.status, done.err) == (0, "")
    assert f"pubsub:{topic}: 3 delivered" in done.out
    bodies = {each.data.decode() for each in server.published(topic)}
    assert bodies == {row["body"] for row in rows}

    done = callpress("tell", *flags, "pubsub:projects/calls/topics/none", "--since", "9d")

    assert done.status == 1
    assert 'topics/none: 3 pending (HTTP status 404: topic "projects/calls' in done.out + done.err


# --- credentials ----------------------------------------------------------------------------------


def test_no_credentials_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    began = time.monotonic()

    told = PubSubSender(target("projects/calls/topics/t")).send(notices(STANDUP, "{}", "{}"))

    assert time.monotonic() - began < 1
    assert [(each.state, each.ends_target) for each in told] == [(NoticeState.PENDING, True)] * 2
    assert told[0].why == (
        "Google credentials: "
        f"GOOGLE_APPLICATION_CREDENTIALS {tmp_path}/none.json: No such file or directory"
    )


def service_account(file: Path, token_uri: str) -> Path:
    """Writes the key of an account. Args: token_uri: where it is made tokens for."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": "calls",
        "client_email": "telling@calls.example",
        "private_key": key.decode(),
        "private_key_id": "planted",
        "token_uri": token_uri,
    }
    file.write_text(json.dumps(account))
    return file


class _RefusesTokens(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}'
        self.send_response_only(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_refused_key_is_told_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Google's client would take it for a service that cannot be reached."""
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    with HTTPServer((HOST, 0), _RefusesTokens) as server:
        key = service_account(tmp_path / "key.json", f"http://{HOST}:{server.server_port}/token")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        (told,) = PubSubSender(target("projects/calls/topics/t")).send(notices(STANDUP, "{}"))
        serving.join()

    assert (told.state, told.ends_target) == (NoticeState.PENDING, True)
    assert told.why == "Google credentials: invalid_grant: Invalid JWT Signature."


def test_closing_does_not_wait_for_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    with socket.create_server((HOST, 0)) as silent:
        link = f"http://{HOST}:{silent.getsockname()[1]}/token"
        key = service_account(tmp_path / "key.json", link)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
        sender = PubSubSender(target("projects/calls/topics/t", timeout_seconds=20))
        told: list[Answer] = []
        sending = threading.Thread(target=lambda: told.extend(sender.send(notices(STANDUP, "{}"))))
        sending.start()
        connection, _ = silent.accept()
        began = time.monotonic()

        sender.close()

        assert time.monotonic() - began < 5
        connection.close()
        sending.join(20)
    assert [(each.state, each.ends_target) for each in told] == [(NoticeState.PENDING, False)]
