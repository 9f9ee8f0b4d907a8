"""Recordings as the vendor's API lists them, asked for by its SDK."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.support.stream_sdk import importable_sdk
from tests.support.stream_service import CALLS, StreamService, running_stream_service
from tests.support.vendor import ENDED_UNIX_NS, SIGNATURE, link_to, recording, uri_of
from transforms.media.errors import ConfigError, StorageError
from transforms.sources.manifests import stream_api
from transforms.sources.manifests.entry import BadEntry, LeftOut, ManifestEntry
from transforms.sources.manifests.stream_api import (
    check_stream,
    is_stream,
    read_stream,
)
from transforms.storage import storage_options
from transforms.storage.storage_options import StorageOptions, StreamAccount

KEY, SECRET = "planted-key-4711", "planted-secret-0815-planted-secret-0815"
Found = list[ManifestEntry | LeftOut | BadEntry]


@pytest.fixture(scope="module", autouse=True)
def _sdk() -> Iterator[None]:
    with importable_sdk():
        yield


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamService]:
    monkeypatch.setenv("TEST_STREAM_KEY", KEY)
    monkeypatch.setenv("TEST_STREAM_SECRET", SECRET)
    monkeypatch.setattr(stream_api, "_BACK_OFF", lambda _: 0)
    with running_stream_service() as service:
        yield service


def read(service: StreamService, where: str) -> Found:
    account = StreamAccount(api_key="env:TEST_STREAM_KEY", api_secret="env:TEST_STREAM_SECRET")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAM_BASE_URL", service.url)
        patch.setattr(storage_options, "_options", StorageOptions(stream=account))
        return list(read_stream(where))


def names(found: Found) -> list[str]:
    return [
        each.call_cid + each.uri.removeprefix(uri_of("")[:-7]).removesuffix(".tar.gz")
        if isinstance(each, ManifestEntry)
        else str(each)
        for each in found
        if not isinstance(each, BadEntry)
    ]


def bad(found: Found) -> list[str]:
    return [f"{each.position}: {each.why}" for each in found if isinstance(each, BadEntry)]


def test_one_call_gives_its_raw_recordings(service: StreamService) -> None:
    service.recordings["default:a%b!"] = [
        recording("a"),
        recording("b", recording_type="composite"),
        recording("c", end_time="2026-05-08T01:00:00Z"),
        recording("d", url=None),
    ]
    began = time.time_ns()

    found = read(service, "stream:default:a%b!")

    first = found[0]
    assert isinstance(first, ManifestEntry)
    assert first.issued_unix_ns is not None
    assert began <= first.issued_unix_ns <= time.time_ns()
    assert first == ManifestEntry(
        uri=uri_of("a"),
        link=link_to("a"),
        call_cid="default:a%b!",
        call_session_id="session-1",
        ended_unix_ns=ENDED_UNIX_NS,  # to the nanosecond
        issued_unix_ns=first.issued_unix_ns,
    )
    assert names(found[1:]) == ["composite", "default:a%b!c"]
    assert bad(found) == ["call default:a%b!, recordings[3]: url is missing, expected a link"]
    assert {key for key, _ in service.credentials} == {KEY}
    assert all(token.count(".") == 2 for _, token in service.credentials)  # signed, RFC 7519


def test_since_asks_for_calls_page_by_page_and_for_the_recordings_of_each(
    service: StreamService,
) -> None:
    now = time.time_ns()
    for name in "abcde":
        service.recordings[f"default:{name}"] = [
            recording(f"{name}1", end_time=now),
            recording(f"{name}0", end_time=now - 37 * 3_600 * 10**9),
        ]
    service.recordings["default:f"] = [recording("f1", recording_type="individual")]
    service.recordings["default:g"] = []

    found = read(service, "stream:since=36h")

    assert names(found) == [*(f"default:{name}{name}1" for name in "abcde"), "individual"]
    pages = [body for path, body in service.asked if path == CALLS]
    assert [page.get("next") for page in pages] == [None, "2", "4", "6"]
    asked = pages[0]["filter_conditions"]["$or"]
    fields = [name for condition in asked for name in condition]
    assert fields == ["created_at", "updated_at", "starts_at", "ended_at", "ongoing"]


def test_since_takes_an_age_or_a_time(service: StreamService) -> None:
    for since, hours in [("90m", 1.5), ("36h", 36), ("2d", 48)]:
        began = time.time()
        assert read(service, f"stream:since={since}") == []
        _, body = service.asked[-1]
        asked = body["filter_conditions"]["$or"][0]["created_at"]["$gte"]
        assert asked.endswith("Z")
        assert abs(began - datetime.fromisoformat(asked).timestamp() - hours * 3_600) < 60
    assert read(service, "stream:since=2026-05-08T01:00:00+02:00") == []
    _, body = service.asked[-1]
    assert body["filter_conditions"]["$or"][0] == {"created_at": {"$gte": "2026-05-07T23:00:00Z"}}


@pytest.mark.parametrize("status", [400, 403, 404])
def test_call_that_cannot_be_listed_costs_no_other(service: StreamService, status: int) -> None:
    for name in "abc":
        service.recordings[f"default:{name}"] = [recording(name, end_time=None)]
    service.failures["default:b"] = [(status, {})]

    found = read(service, "stream:since=1h")

    assert names(found) == ["default:aa", "default:cc"]
    assert bad(found) == [
        "call default:b: its recordings cannot be listed: "
        f"HTTP status {status}: failed for default:b"
    ]
    service.failures["default:b"] = [(status, {})]
    assert bad(read(service, "stream:default:b")) == bad(found)


def test_refusals_that_may_pass_are_tried_again(service: StreamService) -> None:
    service.recordings = {"default:a": [recording("a", end_time=None)]}
    service.failures["default:a"] = [(429, {"Retry-After": "0"}), (500, {}), (503, {}), (429, {})]
    service.failures[CALLS] = [(500, {}), (429, {})]

    assert names(read(service, "stream:since=1h")) == ["default:aa"]
    assert len(service.asked) == 8


def test_time_to_wait_is_as_the_api_says(service: StreamService) -> None:
    waits: list[float] = []
    service.recordings = {"default:a": []}
    service.failures["default:a"] = [(429, {"Retry-After": "7"}), (429, {"Retry-After": "9999"})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", waits.append)
        assert read(service, "stream:default:a") == []
    assert [wait for wait in waits if wait > 0.5] == [7, 60]


@pytest.mark.parametrize("where", ["stream:default:a", "stream:since=1h"])
def test_refused_key_is_told_once(service: StreamService, where: str) -> None:
    service.recordings = {f"default:{name}": [] for name in "abc"}
    service.failures[CALLS] = [(401, {})]
    service.failures["default:a"] = [(401, {})]

    with pytest.raises(StorageError, match="HTTP status 401") as told:
        read(service, where)

    assert told.value.message == (
        f"{where}: the vendor's API: HTTP status 401: failed for "
        f"{CALLS if 'since' in where else 'default:a'}, look at the key and the secret"
    )


def test_api_that_is_down_is_given_up(service: StreamService) -> None:
    service.recordings = {f"default:{number}": [] for number in range(20)}
    for cid in list(service.recordings)[2:]:
        service.failures[cid] = [(500, {})] * 6

    with pytest.raises(StorageError, match=r"^stream:since=1h: the vendor's API: HTTP status 500"):
        read(service, "stream:since=1h")

    listed = {path for path, _ in service.asked if path.endswith("/recordings")}
    assert len(listed) == 6  # the three calls' pages, not all twenty


@pytest.mark.parametrize("where", ["stream:default:a", "stream:since=1h"])
def test_api_that_does_not_answer_is_given_up(
    service: StreamService, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_api, "_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(stream_api, "_TRIES", 2)
    service.is_silent.set()

    with pytest.raises(StorageError) as told:
        read(service, where)

    assert told.value.message == f"{where}: the vendor's API: it does not answer in time"
    assert told.value.retryable
    service.url = "http://127.0.0.1:9"
    with pytest.raises(StorageError, match="it cannot be connected to"):
        read(service, where)


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"[" * 2_000, b"12", b"\xff", b"", {"recordings": 1}, {"recordings": [1]}],
    ids=["HTML", "nested", "a number", "no UTF-8", "nothing", "no list", "list of no recordings"],
)
def test_answer_that_is_no_list_is_one_bad_entry(service: StreamService, answer: object) -> None:
    service.recordings = {"default:a": answer, "default:b": [recording("b", end_time=None)]}

    found = read(service, "stream:since=1h")

    assert names(found) == ["default:bb"]
    assert len(bad(found)) == 1
    assert bad(found)[0].startswith("call default:a")


def test_pages_that_never_end_are_left(service: StreamService) -> None:
    service.recordings["default:a"] = [recording("a", end_time=None)]
    service.never_ends = True

    assert names(read(service, "stream:since=1h")) == ["default:aa"] * 2


def test_nothing_secret_is_told(
    service: StreamService, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    service.recordings = {"default:a": [recording("a"), recording("b", url=f"ftp{SIGNATURE}")]}
    service.failures["default:a"] = [(429, {})]
    found = read(service, "stream:default:a")
    service.failures["default:a"] = [(401, {})]
    with pytest.raises(StorageError) as told:
        read(service, "stream:default:a")

    out = "".join([repr(found), repr(told.value), caplog.text, *capfd.readouterr()])
    for planted in (KEY, SECRET, SIGNATURE, *(token for _, token in service.credentials)):
        assert planted not in out


@pytest.mark.parametrize(
    "where",
    [
        *("stream:", "stream:default", "stream:default:", "stream::x", "stream:default:.."),
        *("stream:default:a/b", "stream:since=", "stream:since=36", "stream:since=1900-01-01"),
    ],
)
def test_manifest_that_is_spelled_wrong_is_told_with_what_is_expected(where: str) -> None:
    assert is_stream(where)
    with pytest.raises(ConfigError) as told:
        check_stream(where)
    assert str(told.value) == (
        f"{where}: expected stream:TYPE:ID, or stream:since=36h (m, h, d, or a time)"
    )


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "getstream", None)

    with pytest.raises(ConfigError) as told:
        list(read_stream("stream:default:a"))
    assert str(told.value) == (
        "stream:default:a: needs the vendor's SDK, which is not installed: "
        "pip install callpress[stream]"
    )


@pytest.mark.parametrize(
    "url", ["http://example.com", "https://user:planted@h", "h", "https://h?planted", "ftp://h"]
)
def test_address_that_is_none_is_told_without_it(url: str, service: StreamService) -> None:
    service.url = url
    with pytest.raises(ConfigError, match="base_url of its API is no address") as told:
        read(service, "stream:default:a")
    assert "planted" not in str(told.value)


@pytest.mark.parametrize("where", ["gs://stream/x", "/stream:default:a", "streams"])
def test_place_is_no_question_to_the_api(where: str) -> None:
    assert not is_stream(where)
