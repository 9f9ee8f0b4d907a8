"""ReadManifests and KeepLinks: what manifests name, each archive once, by its newest link."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.testing.util import equal_to

from tests.support.beam import Check, GroupOnce, expect, make_pipeline, nothing
from tests.support.job_run import JobRun
from transforms.bounds import PortionSize
from transforms.elements import Failure
from transforms.filters import Filters
from transforms.proof.listing import ListedRecording
from transforms.read_manifests import (
    ENTRIES,
    FAILURES,
    LEFT_OUT,
    NOT_READ,
    READ,
    UNWANTED,
    KeepLinks,
    KeepNamed,
    ReadLinks,
    ReadManifests,
)
from transforms.recovery import named_recordings
from transforms.sources.manifests.entry import LeftOut, ManifestEntry
from transforms.sources.manifests.reading import ManifestSource

SECRET = "PLANTEDSIGNATURE"
NOON_NS = 1_767_614_400_000_000_000


def _link(name: str, signed_at: str = "20260105T100000Z", signature: str = SECRET) -> str:
    return (
        f"https://files.test/{name}?X-Amz-Date={signed_at}&X-Amz-Expires=60"
        f"&X-Amz-Signature={signature}"
    )


def _event(link: str, created_ns: int = 0, cid: str = "default:standup") -> str:
    recording = {
        "filename": "x", "url": link, "start_time": NOON_NS, "end_time": NOON_NS, "session_id": "s",
        "recording_type": "raw",
    }  # fmt: skip
    event = {
        "type": "call.recording_ready", "created_at": NOON_NS + created_ns, "call_cid": cid,
        "egress_id": "e", "recording_type": "raw", "call_recording": recording,
    }  # fmt: skip
    return json.dumps(event)


def _read(
    context: JobRun,
    sources: Sequence[ManifestSource],
    entries: Check,
    failures: Check = nothing,
    left_out: Check = nothing,
    unwanted: Check = nothing,
    read: Check | None = None,
) -> None:
    context = context.changed(manifests=tuple(sources))
    with make_pipeline() as pipeline:
        found = pipeline | ReadManifests(*context)
        checks = {
            ENTRIES: entries, FAILURES: failures, LEFT_OUT: left_out, UNWANTED: unwanted,
            READ: read or equal_to([(source.shown,) for source in sources]),
        }  # fmt: skip
        expect(**{name: (found[name], check) for name, check in checks.items()})


def _write(path: Path, *lines: str) -> ManifestSource:
    path.write_text("".join(f"{line}\n" for line in lines))
    return ManifestSource(where=str(path), shown=str(path))


def _links(found: list[ManifestEntry]) -> dict[str, str]:
    return {entry.uri: entry.link for entry in found}


def test_of_links_to_one_archive_the_one_counts_that_expires_last(
    context: JobRun, tmp_path: Path
) -> None:
    newest = _link("a", "20260107T100000Z", "of-the-listing")
    events = _write(tmp_path / "events", _event(_link("a"), 9), _event(_link("b"), 8))
    listing = _write(tmp_path / "list", newest, _link("a", "20260106T100000Z"))

    def check(found: list[ManifestEntry]) -> None:
        assert _links(found) == {
            "https://files.test/a": newest,
            "https://files.test/b": _link("b"),
        }

    _read(context, [events, listing], check)


def test_else_that_of_the_newest_event_counts_and_else_the_last(
    context: JobRun, tmp_path: Path
) -> None:
    first = _write(
        tmp_path / "1",
        _event("https://files.test/a?k=2", 2),
        _event("https://files.test/a?k=1", 1),
        _event("https://files.test/b?k=1", 5),
    )
    second = _write(tmp_path / "2", _event("https://files.test/b?k=2", 5))

    def check(found: list[ManifestEntry]) -> None:
        assert _links(found) == {
            "https://files.test/a": "https://files.test/a?k=2",
            "https://files.test/b": "https://files.test/b?k=2",
        }

    _read(context, [first, second], check)


def test_what_cannot_be_read_is_a_failure_of_its_manifest_and_costs_no_neighbour(
    context: JobRun, tmp_path: Path
) -> None:
    good = _write(tmp_path / "good", _event(_link("a")), "{", _event("", 1), _event(_link("b")))
    song = _write(tmp_path / "song", "la la la", _link("c"))
    gone = ManifestSource(
        where=str(tmp_path / "gone"), shown="listing of yesterday", is_staged=True
    )

    def check(found: list[Failure]) -> None:
        assert sorted(
            (each.archive_uri, each.member or "", each.stage, each.error_type) for each in found
        ) == [
            (good.where, "line 2", "ReadManifests", "ArchiveError"),
            (good.where, "line 3", "ReadManifests", "ArchiveError"),
            (song.where, "line 1", "ReadManifests", "ArchiveError"),
            ("listing of yesterday", "", "ReadManifests", "StorageError"),
        ]
        assert {each.archive_modified_unix_ns for each in found} == {context.started_unix_ns}
        assert SECRET not in str(found)

    names = equal_to([f"https://files.test/{name}" for name in "abc"])
    _read(
        context,
        [good, song, gone],
        lambda found: names([e.uri for e in found]),
        check,
        left_out=equal_to([{NOT_READ: 1}]),  # what else is in the one that is gone nobody knows
    )


def test_other_recordings_and_events_are_counted(context: JobRun, tmp_path: Path) -> None:
    other = {"type": "call.ended", "created_at": NOON_NS}
    mix = {"filename": "x", "url": _link("m"), "recording_type": "composite"}
    source = _write(tmp_path / "m", json.dumps(other), json.dumps(other), json.dumps(mix))

    counts = {LeftOut.OTHER_EVENT: 2, LeftOut.COMPOSITE: 1}
    _read(context, [source], nothing, left_out=equal_to([counts]))


def test_call_that_is_not_wanted_is_not_looked_at(context: JobRun, tmp_path: Path) -> None:
    source = _write(
        tmp_path / "m",
        _event(_link("a"), cid="support:1"),
        _event(_link("b"), cid="default:1"),
        _event(_link("c"), cid="default:1"),
        _event(_link("d"), cid="support:2"),
        _link("e"),
    )
    context = context.changed(filters=Filters(calls=("support:*",), excluded_calls=("support:2",)))

    names = equal_to(["https://files.test/a", "https://files.test/e"])
    _read(
        context,
        [source],
        lambda found: names([each.uri for each in found]),
        unwanted=equal_to(["default:1", "support:2"]),
    )


def test_folder_in_staging_is_told_by_the_names_that_people_know(
    context: JobRun, tmp_path: Path
) -> None:
    place = tmp_path / "callpress-0123456789ab" / "manifests" / ("0" * 32)
    (place / "sub").mkdir(parents=True)
    _write(place / "one", _link("a"), "{")
    _write(place / "sub" / "two", _link("b"))
    source = ManifestSource(where=f"{place}/", shown="/events/", is_staged=True)

    def check(found: list[Failure]) -> None:
        assert [(each.archive_uri, each.member) for each in found] == [("/events/one", "line 2")]
        assert str(place) not in str(found)

    _read(
        context,
        [source],
        lambda found: equal_to(["https://files.test/a", "https://files.test/b"])(
            [each.uri for each in found]
        ),
        check,
        read=equal_to([("/events/one",), ("/events/sub/two",)]),
    )


def test_links_are_there_for_later_portions_too(context: JobRun) -> None:
    entries: list[Any] = [
        ManifestEntry(uri="https://files.test/a", link=_link("a")),
        ManifestEntry(uri="/raw/b"),  # which the URI itself opens
    ]
    context = context.changed(portion=PortionSize(archives=1))
    links = equal_to([("https://files.test/a", _link("a"))])
    with make_pipeline() as pipeline:
        kept = pipeline | beam.Create(entries) | GroupOnce() | KeepLinks(*context)
        expect(kept=(kept, links))
    with make_pipeline() as pipeline:
        expect(read=(pipeline | ReadLinks(*context), links))


def test_recordings_that_are_named_are_kept_without_their_links(context: JobRun) -> None:
    ended_ns = NOON_NS - 10**9
    entries = [
        ManifestEntry(
            uri="https://files.test/a", link=_link("a"), call_cid="default:x",
            call_session_id="s", ended_unix_ns=ended_ns,
        ),
        ManifestEntry(uri="/raw/ä"),
    ]  # fmt: skip

    with make_pipeline() as pipeline:
        kept = pipeline | beam.Create(entries) | GroupOnce() | KeepNamed(*context)
        expect(kept=(kept | beam.CombineGlobally(sum), equal_to([2])))

    named = sorted(named_recordings.read(context.run), key=lambda each: each.uri)
    assert named == [
        ListedRecording(uri="/raw/ä"),
        ListedRecording(
            uri="https://files.test/a", call_cid="default:x", call_session_id="s",
            ended_unix_ns=ended_ns, expires_unix_ns=1_767_607_260 * 10**9,
        ),
    ]  # fmt: skip
    files = [path for path in Path(context.staging_uri).rglob("*") if path.is_file()]
    assert files
    assert not any(SECRET in path.read_text() for path in files)
