"""Who is told what by a run: one event for each file that is made or replaced, once, whatever
becomes of the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines import run as run_module
from tests.support.beam import make_participant
from tests.support.builders import Participant, make_archive, make_call_archive, make_call_members
from tests.support.command import callpress, query
from transforms.catalog import merging, partitions
from transforms.catalog.merging import ShardMerge
from transforms.context import JobSettings
from transforms.notices import tell
from transforms.notices.sender import Answer, Notice, NoticeState
from transforms.notices.tell import Told
from transforms.targets import Notify, Target, TargetKind

CRM = Target(name="crm", kind=TargetKind.HTTPS, place="https://crm.test/hook")
LAKE = Target(name="lake", kind=TargetKind.JSON_LINES, place="/lake")
BASE = "https://files.test"


@dataclass
class Inbox:
    """A target that takes what it is sent, or is said to."""

    answer: Answer = field(default_factory=lambda: Answer(state=NoticeState.DELIVERED))
    got: list[Notice] = field(default_factory=list)
    most: int = 10
    at_a_time: int = 1

    def send(self, notices: Sequence[Notice]) -> list[Answer]:
        self.got += notices
        return [self.answer] * len(notices)

    def close(self) -> None:
        """Has nothing to close."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """What came, each once."""
        bodies = {notice.event_id: notice.body for notice in self.got}
        assert all(bodies[notice.event_id] == notice.body for notice in self.got)
        return [json.loads(body) for body in bodies.values()]

    def take(self) -> list[dict[str, Any]]:
        """Returns what came since the last time."""
        events, self.got = self.events, []
        return events


@dataclass
class Night:
    """A folder of archives, and two who are told what becomes of them."""

    folder: Path
    crm: Inbox = field(default_factory=Inbox)
    lake: Inbox = field(default_factory=Inbox)
    targets: tuple[Target, ...] = (CRM, LAKE)
    times: int = 0
    """How often something was to be sent."""

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
        """Presses; returns the end result."""
        end = self.folder / "end.json"
        end.unlink(missing_ok=True)
        done = callpress(
            "run", "--input", self.folder / "raw" / "*", "--output", self.folder / "out",
            "--summary-json", end, *flags,
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
    night = Night(tmp_path)
    settings = run_module.job_settings

    def with_targets(*given: Any) -> JobSettings:
        notify = Notify(targets=night.targets, url_base=BASE)
        return replace(settings(*given), notify=notify)

    monkeypatch.setattr(run_module, "job_settings", with_targets)
    monkeypatch.setattr(tell, "tell_pending", lambda *given: _tell(night, *given))
    return night


def _tell(
    night: Night, catalog_uri: str, notify: Notify, _: str, check: Callable[[], None]
) -> list[Told]:
    """Sends what is pending, as simply as it can be done."""
    found = []
    night.times += 1
    for target in notify.targets:
        counts = dict.fromkeys(map(str, NoticeState), 0)
        for file in partitions.list_files(catalog_uri, "notices"):
            rows = [
                row
                for row in partitions.read_table(file, "notices").to_pylist()
                if (row["target"], row["state"]) == (target.name, "pending")
            ]
            inbox = {"crm": night.crm, "lake": night.lake}[target.name]
            marks = []
            for row in rows:
                assert row["uri"] is None or Path(row["uri"]).exists()
                assert row["sha256"] is None or row["sha256"] in night.files().values()
                notice = Notice(
                    event_id=row["event_id"], event_type=row["event_type"], attempt=1,
                    body=row["body"].encode(), shard="",
                    call=None,  # type: ignore[arg-type]
                )  # fmt: skip
                (answer,) = inbox.send([notice])
                counts[answer.state] += 1
                marks.append({**row, "state": answer.state, "attempts": row["attempts"] + 1})
            merging.add_rows(catalog_uri, "notices", file.call_date, marks, check)
        found.append(Told(target=target.name, **counts, why=""))
    return found


def _told(events: Sequence[dict[str, Any]]) -> dict[str, str | None]:
    """Returns of each event the file, and what it replaces."""
    return {each["call_recording"]["filename"]: each["callpress"]["replaces"] for each in events}


@pytest.mark.slow
def test_each_file_is_told_once_and_what_replaces_it_by_a_late_archive(night: Night) -> None:
    night.targets = (CRM,)
    night.crm.answer = Answer(state=NoticeState.PENDING)
    night.add("a", [make_participant("alice"), make_participant("bob")])

    result = night.run("--participant", "alice")

    (alice,) = night.files()
    assert result["told"] == ["notices for crm: 1 pending; the next run sends what is pending"]
    assert f"callpress: {result['told'][0]}\n" in result["err"]
    assert (result["exit_status"], night.times) == (0, 1)
    (first,) = night.crm.take()
    assert _told([first]) == {alice: None}

    # The rest of the call, and one of which nothing can be used; a target that is new.
    night.targets = (CRM, LAKE)
    night.crm.answer = Answer(state=NoticeState.DELIVERED)
    night.add_damaged("broken")
    result = night.run("--portion-archives", 1, "--config", night.lenient())

    assert "portion 1 of 2 is published" in result["err"]
    assert night.times == 2
    files, told = night.files(), night.crm.take()
    assert first in told
    assert night.lake.take() == [each for each in told if each != first]
    (failed,) = (each for each in told if each["type"] == "call.recording_failed")
    assert (failed["call_cid"], failed["recording_type"]) == ("default:broken", "composite")
    told.remove(failed)
    assert _told(told) == dict.fromkeys(files)
    for row in query(night.catalog, "recordings"):
        (event,) = (e for e in told if e["callpress"]["uri"] == row["uri"])
        assert (event == first) != (event["egress_id"] == result["run_id"])
        assert event["callpress"]["sha256"] == row["sha256"]
        assert event["call_recording"]["url"].startswith(f"{BASE}/recordings/default/standup/")
    counts = {"pending": 0, "failed": 0, "gone": 0, "why": ""}
    assert result["notices"] == [
        {"target": "crm", "delivered": 4, **counts}, {"target": "lake", "delivered": 3, **counts},
    ]  # fmt: skip
    assert "crm: 4 delivered" in result["out"]

    # A late archive of the call: what it changes is told, and what it leaves as it is is not.
    night.add("b", [make_participant("bob", start_ms=3_000)])
    night.run("--config", night.lenient())

    after = night.files()
    changed = {name for name in after if after[name] != files[name]}
    assert {name.split("_")[0] for name in changed} == {"composite", "individual"}
    assert len(changed) == 2 < len(after)
    told = night.crm.take()
    assert told == night.lake.take()
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
        assert night.run()["exit_status"] == 1
    assert night.states() == [("crm", "pending")] * 2 + [("lake", "pending")] * 2
    assert (night.times, list(night.catalog.glob("calls/*/*"))) == (0, [])

    assert night.run()["exit_status"] == 0

    assert _told(night.crm.events) == _told(night.lake.events) == dict.fromkeys(night.files())
    assert night.states() == [("crm", "delivered")] * 2 + [("lake", "delivered")] * 2
