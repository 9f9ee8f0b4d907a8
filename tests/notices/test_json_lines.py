"""Events as lines of objects: none is lost, whatever was written before."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from transforms.media.values import CallKey
from transforms.notices.json_lines import JsonLinesSender
from transforms.notices.sender import Notice, NoticeState
from transforms.sources.own_files import is_our_own
from transforms.targets import Target, TargetKind

RUN = "20261120T010203Z-0a1b2c"
SHARD = "2026-11-20_part-2-01"
CALL = CallKey(call_type="default", call_id="a", call_session_id="s")


def _sender(folder: str | Path, sender_id: str = RUN) -> JsonLinesSender:
    target = Target(name="files", kind=TargetKind.JSON_LINES, place=str(folder))
    return JsonLinesSender(target, sender_id)


def _notices(*bodies: bytes, shard: str = SHARD) -> list[Notice]:
    return [
        Notice(
            event_id=str(number),
            event_type="call.recording_ready",
            call=CALL,
            attempt=1,
            body=body,
            shard=shard,
        )
        for number, body in enumerate(bodies)
    ]


def _states(sender: JsonLinesSender, *bodies: bytes) -> list[NoticeState]:
    return [answer.state for answer in sender.send(_notices(*bodies))]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_events_of_a_shard_are_lines_of_an_object_of_its_run(tmp_path: Path) -> None:
    sender = _sender(tmp_path / "told")
    body = '{"a":"ü"}'.encode()
    assert _states(sender, body, b"{}") == ["delivered", "delivered"]
    sender.send(_notices(b"{}", shard="2026-11-21_part-0"))

    assert _files(tmp_path / "told") == {
        f"{RUN}_{SHARD}.jsonl": body + b"\n{}\n",
        f"{RUN}_2026-11-21_part-0.jsonl": b"{}\n",
    }


def test_what_was_written_is_never_replaced(tmp_path: Path) -> None:
    first = _sender(tmp_path)
    _states(first, b"1", b"2")
    _states(first, b"3")
    _states(_sender(tmp_path), b"4")  # the same run in another process
    _states(_sender(tmp_path, f"tell-{RUN}"), b"5")

    assert _files(tmp_path) == {
        f"{RUN}_{SHARD}.jsonl": b"1\n2\n",
        f"{RUN}_{SHARD}_2.jsonl": b"3\n",
        f"{RUN}_{SHARD}_3.jsonl": b"4\n",
        f"tell-{RUN}_{SHARD}.jsonl": b"5\n",
    }


def test_what_was_written_and_not_marked_is_not_written_again(tmp_path: Path) -> None:
    _states(_sender(tmp_path), b"1", b"2")
    before = _files(tmp_path)
    assert _states(_sender(tmp_path), b"1", b"2") == ["delivered", "delivered"]
    assert _files(tmp_path) == before


def test_what_its_store_does_not_take_stays_pending(store: ModuleType, quick_retries: None) -> None:
    sender = _sender("fake://told/events")
    store.TROUBLE["create"].extend([PermissionError("not you")] * 10)

    answers = sender.send(_notices(b"1", b"2"))
    assert [answer.state for answer in answers] == ["pending", "pending"]
    assert all(answer.ends_target and "not you" in answer.why for answer in answers)
    store.TROUBLE.clear()
    assert _states(sender, b"1", b"2", b"3") == ["delivered"] * 3
    ((content, _),) = store.OBJECTS.values()
    assert content == b"1\n2\n3\n"


def test_body_that_is_no_line_costs_no_other(tmp_path: Path) -> None:
    sender = _sender(tmp_path)
    answers = sender.send(_notices(b"1", b'{\n"planted": 1}', b"3"))
    assert [answer.state for answer in answers] == ["delivered", "failed", "delivered"]
    assert "planted" not in answers[1].why
    assert _states(sender, b"\n") == ["failed"]
    assert list(_files(tmp_path).values()) == [b"1\n3\n"]


@pytest.mark.parametrize("sender_id", [RUN, f"tell-{RUN}"])
def test_objects_are_never_taken_for_archives(sender_id: str, tmp_path: Path) -> None:
    for _ in range(2):
        _sender(tmp_path, sender_id).send(_notices(sender_id.encode() + bytes([65 + _])))
    names = list(_files(tmp_path))
    assert len(names) == 2
    for name in names:
        assert is_our_own(f"gs://told/{name}")
        assert is_our_own(f"/told/.{name}.17.partial")
        assert not is_our_own(f"/told/{name}.tar")
