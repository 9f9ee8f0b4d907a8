"""Who is told what by a run: one event for each file that is made or replaced, once, whatever
becomes of the run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.beam import make_participant
from tests.support.builders import Participant, make_archive, make_call_archive, make_call_members
from tests.support.command import callpress, query
from transforms.catalog import merging
from transforms.catalog.merging import ShardMerge
from transforms.notices import senders
from transforms.notices.sender import Answer, Notice, NoticeState, Sender
from transforms.targets import Target

BASE = "https://files.test"
HOOK = "https://crm.test/hook"


@dataclass
class Hook:
    """An endpoint that takes what it is sent, or is said to."""

    answer: Answer = field(default_factory=lambda: Answer(state=NoticeState.DELIVERED))
    got: list[Notice] = field(default_factory=list)
    most: int = 1
    at_a_time: int = 4

    def send(self, notices: Sequence[Notice]) -> list[Answer]:
        self.got += notices
        return [self.answer] * len(notices)

    def close(self) -> None:
        """Has nothing to close."""

    def take(self) -> list[dict[str, Any]]:
        """Returns what came since the last time."""
        got, self.got = self.got, []
        return _in_order([json.loads(notice.body) for notice in got])


@dataclass
class Night:
    """A folder of archives, an endpoint and a folder for JSON Lines: two who may be told."""

    folder: Path
    hook: Hook = field(default_factory=Hook)
    seen: set[Path] = field(default_factory=set)

    @property
    def lake(self) -> Path:
        return self.folder / "told"

    def take_lines(self) -> list[dict[str, Any]]:
        """Returns what was written since the last time."""
        new = sorted(set(self.lake.glob("*.jsonl")) - self.seen)
        self.seen.update(new)
        return _in_order([json.loads(line) for path in new for line in path.open()])

    def add(self, name: str, people: Sequence[Participant]) -> None:
        (self.folder / "raw").mkdir(exist_ok=True)
        (self.folder / "raw" / f"{name}.tar.gz").write_bytes(make_call_archive(people))

    def add_damaged(self, call_id: str) -> None:
        """Adds an archive of a call of which nothing can be used."""
        people = [make_participant("carol")]
        members = make_call_members(people, call_id=call_id, call_session_id=call_id)
        junk = {name: b"junk" for name in members if name.endswith(".rtpdump")}
        (self.folder / "raw" / f"{call_id}.tar.gz").write_bytes(
            make_archive({**members, **junk}, "tar.gz")
        )

    def lenient(self) -> Path:
        """Returns a profile by which any number of archives may fail."""
        path = self.folder / "lenient.toml"
        path.write_text("max_failed_ratio = 1.0\n")
        return path

    def run(self, *flags: object) -> dict[str, Any]:
        """Presses; returns the end result. Args: flags: also those that say who is told."""
        end = self.folder / "end.json"
        end.unlink(missing_ok=True)
        done = callpress(
            "run", "--input", self.folder / "raw" / "*", "--output", self.folder / "out",
            "--summary-json", end, "--url-base", BASE, *flags,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(end.read_text())
        return {**found, "out": done.out, "err": done.err}

    @property
    def catalog(self) -> Path:
        return self.folder / "out" / "catalog"

    def files(self) -> dict[str, str]:
        """Returns by name the hash of each file that the catalog has."""
        return {row["filename"]: row["sha256"] for row in query(self.catalog, "recordings")}

    def states(self) -> list[tuple[str, str]]:
        return sorted((row["target"], row["state"]) for row in query(self.catalog, "notices"))


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    night, make = Night(tmp_path), senders.make_sender

    def make_sender(target: Target, sender_id: str) -> Sender:
        return night.hook if target.place == HOOK else make(target, sender_id)

    monkeypatch.setattr(senders, "make_sender", make_sender)
    return night


def _in_order(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns events in an order that does not depend on that in which they came."""
    return sorted(events, key=json.dumps)


def _told(events: Sequence[dict[str, Any]]) -> dict[str, str | None]:
    """Returns of each event the file, and what it replaces."""
    return {each["call_recording"]["filename"]: each["callpress"]["replaces"] for each in events}


@pytest.mark.slow
def test_each_file_is_told_once_and_what_replaces_it_by_a_late_archive(night: Night) -> None:
    lenient, lake = night.lenient(), str(night.lake)
    night.hook.answer = Answer(state=NoticeState.PENDING, why="it sleeps", ends_target=True)
    night.add("a", [make_participant("alice"), make_participant("bob")])

    result = night.run("--participant", "alice", "--notify", HOOK)

    (alice,) = night.files()
    (line,) = result["told"]
    assert line.startswith(f"notices for {HOOK}: 1 pending (")
    assert "it sleeps" in line
    assert f"callpress: {line}\n" in result["err"]
    assert result["exit_status"] == 0
    (first,) = night.hook.take()
    assert _told([first]) == {alice: None}

    # The rest of the call, and one of which nothing can be used; a target that is new.
    night.hook.answer = Answer(state=NoticeState.DELIVERED)
    night.add_damaged("broken")
    both = ("--notify", HOOK, "--notify", lake, "--config", lenient)
    result = night.run("--portion-archives", 1, *both)

    assert "portion 1 of 2 is published" in result["err"]
    files, told = night.files(), night.hook.take()
    assert first in told
    assert night.take_lines() == [each for each in told if each != first]
    (failed,) = (each for each in told if each["type"] == "call.recording_failed")
    assert (failed["call_cid"], failed["recording_type"]) == ("default:broken", "composite")
    told.remove(failed)
    assert _told(told) == dict.fromkeys(files)
    for row in query(night.catalog, "recordings"):
        (event,) = (e for e in told if e["callpress"]["uri"] == row["uri"])
        assert (event == first) != (event["egress_id"] == result["run_id"])
        assert event["callpress"]["sha256"] == row["sha256"]
        assert event["call_recording"]["url"].startswith(f"{BASE}/recordings/default/standup/")
    rest = {"pending": 0, "failed": 0, "gone": 0, "why": ""}
    assert result["notices"] == [
        {"target": HOOK, "delivered": 4, **rest}, {"target": lake, "delivered": 3, **rest},
    ]  # fmt: skip
    assert f"{HOOK}: 4 delivered" in result["out"]
    # All is sent at the end, not with each portion.
    assert {path.name[: len(result["run_id"])] for path in night.seen} == {result["run_id"]}

    # A late archive of the call: what it changes is told, and what it leaves as it is is not.
    night.add("b", [make_participant("bob", start_ms=3_000)])
    night.run(*both)

    after = night.files()
    changed = {name for name in after if after[name] != files[name]}
    assert {name.split("_")[0] for name in changed} == {"composite", "individual"}
    assert len(changed) == 2 < len(after)
    told = night.hook.take()
    assert told == night.take_lines()
    assert _told(told) == {name: files[name] for name in changed}
    assert {state for _, state in night.states()} == {"delivered"}
    assert callpress("verify", "--catalog", night.catalog).status == 0


def test_what_a_dead_run_was_to_tell_is_told_by_the_next(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends when it has published what is to be told, and no rows of files yet."""
    night.add("a", [make_participant("alice")])
    with monkeypatch.context() as patch:
        merge = merging.merge_shard

        def merge_some(catalog_uri: str, shard: ShardMerge, *more: Any) -> Any:
            assert shard.table != "calls", "the machine lost power"
            return merge(catalog_uri, shard, *more)

        patch.setattr(merging, "merge_shard", merge_some)
        assert night.run("--notify", HOOK)["exit_status"] == 1
    assert night.states() == [(HOOK, "pending")] * 2
    assert (night.hook.got, list(night.catalog.glob("calls/*/*"))) == ([], [])

    # Nobody is told of what was made before, but by those who were to be.
    result = night.run("--notify", HOOK, "--notify", str(night.lake))

    assert "took up 1 calls" in result["err"]
    told = night.hook.take()
    assert _told(told) == dict.fromkeys(night.files())
    runs = {row["run_id"] for row in query(night.catalog, "recordings")}
    assert {each["egress_id"] for each in told} == runs != {result["run_id"]}
    assert night.states() == [(HOOK, "delivered")] * 2
    assert night.take_lines() == []
