"""Events: the vendor's shape, with what we know beside, never longer than 4,096 bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.beam import CALL, CALL_START_UNIX_NS, call_row, recording_row
from transforms.elements import Row
from transforms.media.values import CallKey
from transforms.notices.events import MOST_BYTES, Event, event_id_of, failed_event, ready_event
from transforms.storage.uris import url_of_recording

URI = "gs://b/out/recordings/default/standup/session-1/individual_a_b.mkv"
LONG = CallKey(call_type="t" * 4_096, call_id="\x01é😀" * 1_365, call_session_id="s\\" * 2_048)


def _recording(call: CallKey = CALL, participant_id: str | None = "alice", **more: Any) -> Row:
    found = {
        "filename": URI.rpartition("/")[2],
        "sha256": "ab" * 32,
        "size_bytes": 4_000,
        "offset_ms": 500,
        "duration_ms": 1_000,
        **more,
    }
    return recording_row(participant_id, str(found.pop("uri", URI)), call, **found)


def _parsed(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.body)
    return found


def test_ready_event_has_the_vendors_shape_and_ours_beside() -> None:
    told = {"status": "partial", "missing_ms": 20, "sync_error_ms": 1.5}
    event = ready_event(_recording(), told, "cd" * 32, "https://x.test/a")

    assert event.event_id == event_id_of("session-1", "individual_a_b.mkv", "ab" * 32)
    assert _parsed(event) == {
        "type": "call.recording_ready",
        "created_at": CALL_START_UNIX_NS,
        "call_cid": "default:standup",
        "egress_id": "earlier",
        "recording_type": "individual",
        "call_recording": {
            "filename": "individual_a_b.mkv",
            "url": "https://x.test/a",
            "start_time": CALL_START_UNIX_NS,
            "end_time": CALL_START_UNIX_NS + 1_000_000_000,
            "session_id": "session-1",
            "recording_type": "individual",
        },
        "callpress": {
            "uri": URI,
            "sha256": "ab" * 32,
            "size_bytes": 4_000,
            "output_type": "audio_only",
            "participant_id": "alice",
            "user_session_id": "sess-alice",
            "offset_ms": 500,
            "duration_ms": 1_000,
            "status": "partial",
            "missing_ms": 20,
            "sync_error_ms": 1.5,
            "replaces": "cd" * 32,
        },
    }


def test_failed_event_has_no_recording() -> None:
    event = failed_event(call_row(status="failed", missing_ms=7), "composite", "RtpdumpError")

    assert event.event_id == event_id_of("session-1", "default:standup", "failed")
    assert _parsed(event) == {
        "type": "call.recording_failed",
        "created_at": CALL_START_UNIX_NS,
        "call_cid": "default:standup",
        "egress_id": "earlier",
        "recording_type": "composite",
        "callpress": {
            "session_id": "session-1",
            "status": "failed",
            "missing_ms": 7,
            "error_type": "RtpdumpError",
        },
    }


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), None])
def test_figure_that_is_none_is_null(figure: float | None) -> None:
    event = ready_event(_recording(), {"sync_error_ms": figure}, None, "")

    assert _parsed(event)["callpress"]["sync_error_ms"] is None


@pytest.mark.parametrize(
    ("fields", "cut"),
    [
        ({"participant_id": "p" * 1_200}, []),
        ({"participant_id": "p" * 4_096}, ["participant_id"]),
        (
            {"participant_id": "‮" * 4_096, "call": LONG},
            ["call_cid", "participant_id", "session_id", "user_session_id"],
        ),
        (
            {"uri": f"/{'é' * 400}/recordings/a/b/c/d.mkv", "participant_id": '"' * 4_096},
            ["participant_id", "user_session_id"],
        ),
        ({"uri": f"/{'é' * 1_000}/recordings/a/b/c/d.mkv"}, ["url"]),
        ({"uri": f"/{'x' * 4_000}/recordings/a/b/c/d.mkv"}, ["uri", "url"]),
    ],
    ids=["short", "long", "all long", "escaped", "no url", "no place"],
)
def test_what_is_too_long_is_cut_and_told(fields: dict[str, Any], cut: list[str]) -> None:
    recording = _recording(**fields)
    event = ready_event(recording, {}, "cd" * 32, url_of_recording(recording["uri"]))

    found = _parsed(event)
    assert len(event.body.encode()) <= MOST_BYTES
    assert set(cut) <= set(found["callpress"].get("cut", ()))
    flat = {**found["call_recording"], **found["callpress"], "call_cid": found["call_cid"]}
    for name, whole in (
        ("call_cid", recording["call_cid"]),
        ("session_id", recording["call_session_id"]),
        ("participant_id", recording["participant_id"]),
        ("user_session_id", recording["user_session_id"]),
    ):
        if name in found["callpress"].get("cut", ()):
            assert flat[name].endswith("…")
            assert len(flat[name]) >= 30
            assert whole.startswith(flat[name][:-1])
        else:
            assert flat[name] == whole
    assert flat["uri"] == (None if "uri" in cut else recording["uri"])
    assert flat["url"] == ("" if "url" in cut else url_of_recording(recording["uri"]))
    assert (flat["sha256"], flat["replaces"]) == ("ab" * 32, "cd" * 32)
    assert flat["filename"] == recording["filename"]


def test_failed_event_of_a_long_call_fits() -> None:
    event = failed_event(call_row(LONG, status="failed"), "composite", None)

    assert len(event.body.encode()) <= MOST_BYTES
    assert _parsed(event)["callpress"]["cut"] == ["call_cid", "session_id"]


@pytest.mark.parametrize(
    ("uri", "base", "url"),
    [
        (URI, "", URI),
        ("s3://b/é/recordings/a/b/c/d.mkv", "", "s3://b/é/recordings/a/b/c/d.mkv"),
        ("/out put/é/recordings/a/b/c/d.mkv", "", "file:///out%20put/%C3%A9/recordings/a/b/c/d.mkv"),
        (
            "/out/recordings/a~20/b%/c?/d#.mkv",
            "https://x.test/files/",
            "https://x.test/files/recordings/a~20/b%25/c%3F/d%23.mkv",
        ),
        (URI, "https://x.test", "https://x.test/recordings/default/standup/session-1/"
        "individual_a_b.mkv"),
    ],
)  # fmt: skip
def test_url_of_a_recording(uri: str, base: str, url: str) -> None:
    assert url_of_recording(uri, base) == url
