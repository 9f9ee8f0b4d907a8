"""Taking up what a dead run had finished: what counts, what does not, and what goes with it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import apache_beam as beam
import pytest

from tests.support.beam import (
    CALL,
    archive_row_of,
    bundled_rows,
    call_row,
    expect,
    list_files,
    make_failure,
    make_participant,
    make_pipeline,
    make_plan,
    stage_sources,
    write_call,
    write_rows,
)
from tests.support.job_run import JobRun
from transforms.catalog import partitions, pending_replacement
from transforms.catalog.bundles import Bundle, WrittenBundle
from transforms.catalog.schema import TABLES
from transforms.context import VERSION
from transforms.elements import ArchiveRef, ArchiveSummary, Failure, Row, Status
from transforms.extract_tracks import ExtractTracks
from transforms.media.errors import StorageError
from transforms.media.settings import Mp3Settings, PressSettings
from transforms.media.values import CallKey
from transforms.media.wall_time import to_time
from transforms.mix_calls import MixCalls
from transforms.recovery import completed_work, manifests
from transforms.recovery.take_up import TakenUp, find_calls, keep_completed_work
from transforms.sources.manifests.reading import ManifestSource
from transforms.storage import objects
from transforms.take_up_completed import TakeUpCompleted

Dead = tuple[JobRun, ArchiveRef]


@pytest.fixture
def dead(context: JobRun, tmp_path: Path) -> Dead:
    """A run that finished one call of one archive, and the reference to that."""
    ref = write_call(
        tmp_path / "raw" / "a.tar.gz", [make_participant("alice"), make_participant("bob")]
    )
    press(context, ref)
    return context, ref


def press(context: JobRun, ref: ArchiveRef, failures: tuple[Failure, ...] = ()) -> None:
    """Does all that a run does before it publishes rows."""
    sources = stage_sources(context, ref)
    sources = [
        replace(s, parts=tuple(replace(p, archive_fingerprint=ref.fingerprint) for p in s.parts))
        for s in sources
    ]
    pipeline = make_pipeline()
    plans = pipeline | "Plans" >> beam.Create([make_plan(sources)])
    extracted = plans | beam.FlatMap(lambda plan: plan.sources) | ExtractTracks(*context)
    (plans, extracted.tracks, extracted.failures) | MixCalls(*context)
    pipeline.run().wait_until_finish()
    leave_archive(context, ref, failures)


def leave_archive(
    context: JobRun,
    ref: ArchiveRef,
    failures: tuple[Failure, ...] = (),
    calls: tuple[CallKey, ...] = (CALL,),
) -> None:
    bundle = Bundle()
    summary = summary_of(ref, failures, calls)
    bundle.add(notes=completed_work.note_of_archive(*context, summary, failures))
    bundle.write(context.staging_uri)


def summary_of(
    ref: ArchiveRef, failures: tuple[Failure, ...], calls: tuple[CallKey, ...]
) -> ArchiveSummary:
    return ArchiveSummary(
        ref=ref, is_complete=True, member_count=6, track_count=2, calls=calls, could_read=True,
        bytes_read=1, cpu_ns=1,
        first_failure=failures[0] if failures else None,
    )  # fmt: skip


def next_run(context: JobRun) -> JobRun:
    return context.changed(
        run_id="run-2",
        staging_uri=str(Path(context.staging_uri).parent / "run-2"),
        started_unix_ns=context.started_unix_ns + 10**9,
    )


def take_up(context: JobRun) -> TakenUp:
    """Takes up what runs before this one had completed."""
    root = Path(context.staging_uri).parent
    context = context.changed(staging_root=str(root))
    told = root.parent / "taken.json"

    def check(taken: list[TakenUp]) -> None:  # in the pipeline, which hands nothing back
        (found,) = taken
        told.write_text(json.dumps(asdict(found)))

    with make_pipeline() as pipeline:
        runs = pipeline | beam.Create([context.run])
        expect(taken=(runs | TakeUpCompleted(context.job), check))
    found = json.loads(told.read_text())
    return TakenUp(found["calls"], tuple((Status(how), n) for how, n in found["archives"]))


def take(context: JobRun) -> int:
    return take_up(next_run(context)).calls


def rows_of(context: JobRun, table: str) -> list[Row]:
    files = partitions.list_files(context.catalog_uri, table)
    return [row for file in files for row in partitions.read_table(file, table).to_pylist()]


def test_finished_call_and_archive_go_into_the_catalog(dead: Dead) -> None:
    context, ref = dead
    media = {
        name: Path(context.output_uri, name).stat().st_mtime_ns
        for name in list_files(context.output_uri)
    }

    assert take(context) == 1

    assert {row["uri"] for row in rows_of(context, "recordings")} == {
        f"{context.output_uri}/{name}" for name in media
    }
    assert {row["run_id"] for row in rows_of(context, "tracks")} == {"run-1"}  # who made them
    (archive,) = rows_of(context, "archives")
    assert (archive["archive_uri"], archive["fingerprint"], archive["status"]) == (
        ref.uri,
        ref.fingerprint,
        "ok",
    )
    assert (archive["attempts"], archive["run_id"]) == (1, "run-2")
    assert not Path(context.staging_uri).exists()
    assert media == {
        name: Path(context.output_uri, name).stat().st_mtime_ns
        for name in list_files(context.output_uri)
    }
    assert take(context) == 0


def test_failures_of_the_archive_come_with_it(context: JobRun, tmp_path: Path) -> None:
    ref = write_call(tmp_path / "raw" / "a.tar.gz", [make_participant("alice")])
    press(
        context,
        ref,
        (
            make_failure(
                archive_uri=ref.uri,
                archive_modified_unix_ns=ref.modified_unix_ns,
                member="b.rtpdump",
            ),
        ),
    )

    taken = take_up(next_run(context))

    assert taken == TakenUp(1, ((Status.PARTIAL, 1),))
    assert [(row["member"], row["call_id"]) for row in rows_of(context, "failures")] == [
        ("b.rtpdump", None)
    ]
    assert [(row["status"], row["callpress_version"]) for row in rows_of(context, "archives")] == [
        ("partial", VERSION)
    ]


@pytest.mark.parametrize("version", [None, "0.0.9"], ids=["said nothing", "an older one"])
def test_what_an_older_version_left_stays_its_own(context: JobRun, version: str | None) -> None:
    """So that this one tries it once more."""
    ref = ArchiveRef(
        uri="/raw/gone", size_bytes=1, modified_unix_ns=0, fingerprint="1", is_known_failure=True
    )
    failure = make_failure(archive_uri=ref.uri, archive_modified_unix_ns=0)
    summary = summary_of(ref, (failure,), calls=())
    ((kind, note),) = completed_work.note_of_archive(*context, summary, (failure,)).items()
    told = json.loads(note)
    del told["callpress_version"]
    older = {**told, "callpress_version": version} if version else told
    bundle = Bundle()
    bundle.add(notes={kind: json.dumps(older).encode()})
    bundle.write(context.staging_uri)

    taken = take_up(next_run(context))

    (row,) = rows_of(context, "archives")
    assert (row["status"], row["callpress_version"]) == ("failed", version)
    assert taken == TakenUp(0, ())


def test_the_runs_own_staging_stays(dead: Dead) -> None:
    context, _ = dead

    assert take_up(context).calls == 0

    assert Path(context.staging_uri).exists()


def test_run_that_is_stopped_keeps_what_is_finished_and_touches_no_other(dead: Dead) -> None:
    context, _ = dead
    other = Path(context.staging_uri).parent / "living" / "packets" / "x"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"x")
    stopped = next_run(context)
    Path(stopped.staged("packets")).mkdir(parents=True)

    keep_completed_work(context.job, context.run)
    keep_completed_work(context.job, stopped.run)

    assert other.exists()
    assert not Path(stopped.staging_uri).exists()
    assert {path.name for path in Path(context.staging_uri).iterdir()} == {"bundles", "rows"}


def break_mix(context: JobRun, ref: ArchiveRef) -> None:
    (mix,) = Path(context.output_uri).rglob("*.mp3")
    mix.write_bytes(mix.read_bytes()[:-1] + b"\0")


def cut_track(context: JobRun, ref: ArchiveRef) -> None:
    track = next(Path(context.output_uri).rglob("*.mkv"))
    os.truncate(track, 100)


def remove_track(context: JobRun, ref: ArchiveRef) -> None:
    next(Path(context.output_uri).rglob("*.mkv")).unlink()


def touch_archive(context: JobRun, ref: ArchiveRef) -> None:
    os.utime(ref.uri, (5, 5_000_000_000))


def bundle_of_calls(context: JobRun) -> Path:
    (found,) = [
        path
        for path in Path(context.staging_uri, "bundles").iterdir()
        if completed_work.calls_in(WrittenBundle(str(path)))
    ]
    return found


def lose_rows(context: JobRun, ref: ArchiveRef) -> None:
    bundle_of_calls(context).unlink()


def garble_note(context: JobRun, ref: ArchiveRef) -> None:
    bundle_of_calls(context).unlink()
    bundle = Bundle()
    bundle.add(notes={completed_work.CALL: b'{"pressed": "of another version"}'})
    bundle.write(context.staging_uri)


def cut_rows(context: JobRun, ref: ArchiveRef) -> None:
    os.truncate(bundle_of_calls(context), 100)


def cut_end(context: JobRun, ref: ArchiveRef) -> None:
    path = bundle_of_calls(context)
    os.truncate(path, path.stat().st_size - 3)


def blank_block(context: JobRun, ref: ArchiveRef) -> None:
    """As a power cut leaves a file of which not all was on the disk."""
    with bundle_of_calls(context).open("r+b") as file:
        file.seek(400)
        file.write(bytes(100))


def pipe_for_archive(context: JobRun, ref: ArchiveRef) -> None:
    os.unlink(ref.uri)
    os.mkfifo(ref.uri)


CHANGES = [
    break_mix,
    cut_track,
    remove_track,
    touch_archive,
    lose_rows,
    cut_rows,
    cut_end,
    blank_block,
    garble_note,
    pipe_for_archive,
]


def found_in(context: JobRun) -> list[CallKey]:
    """Returns the calls whose notes hold, by all bundles of a run."""
    found = []
    for path in Path(context.staging_uri, "bundles").iterdir():
        with contextlib.suppress(StorageError):
            bundle = WrittenBundle(str(path))
            found += list(find_calls(str(path), bundle, context.job))
    return [each.completed.pressed.call for each in found]


@pytest.mark.parametrize("change", CHANGES)
def test_call_that_is_not_as_it_was_is_left_to_be_pressed(dead: Dead, change: object) -> None:
    context, _ = dead
    assert found_in(context) == [CALL]

    change(*dead)  # type: ignore[operator]

    assert found_in(context) == []


def test_what_cannot_be_read_now_stays_for_the_next_run(
    dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _ = dead
    bundle = bundle_of_calls(context)
    read_bytes = objects.read_bytes

    def fail(uri: str) -> bytes:
        if uri == str(bundle):
            raise StorageError(f"{uri}: HTTP status 503")
        return read_bytes(uri)

    with monkeypatch.context() as patched:
        patched.setattr(objects, "read_bytes", fail)
        assert take(context) == 0
    assert bundle.exists()

    assert take(context) == 1
    assert not Path(context.staging_uri).exists()


def test_what_is_not_as_it_was_is_swept_without_a_row(dead: Dead) -> None:
    context, ref = dead
    break_mix(context, ref)
    Path(context.staging_uri, "bundles", "cut.jsonl").write_bytes(b'[["default"')

    assert take(context) == 0

    assert all(not rows_of(context, table) for table in TABLES)
    assert not Path(context.staging_uri).exists()


@pytest.mark.parametrize("table", ["calls", "archives"])
def test_note_older_than_the_catalogs_row_is_left(dead: Dead, table: str) -> None:
    """A later run, with another staging folder, has pressed the call again since."""
    context, ref = dead
    row = call_row() if table == "calls" else archive_row_of(ref, context)
    later = to_time(context.started_unix_ns + 5 * 10**8)
    write_rows(context, table, [{**row, "run_id": "later", "created_at": later}])

    assert take(context) == (0 if table == "calls" else 1)

    assert [row["run_id"] for row in rows_of(context, table)] == ["later"]


def test_other_settings_take_nothing_up(dead: Dead) -> None:
    context, _ = dead
    other = next_run(context).changed(settings=PressSettings(mp3=Mp3Settings(channels=1)))

    assert take_up(other).calls == 0

    assert all(not rows_of(context, table) for table in TABLES)


def test_call_whose_archive_is_gone_is_taken_up(dead: Dead) -> None:
    context, ref = dead
    os.unlink(ref.uri)

    assert take(context) == 1

    assert len(rows_of(context, "recordings")) == 3
    assert [row["archive_uri"] for row in rows_of(context, "archives")] == [ref.uri]


def test_archive_of_which_a_call_is_not_finished_is_read_again(dead: Dead) -> None:
    context, ref = dead
    other = write_call(Path(ref.uri).parent / "b.tar.gz", [make_participant("carol")])
    leave_archive(context, other)  # its call was made from the other archive alone

    assert take(context) == 1

    assert [row["archive_uri"] for row in rows_of(context, "archives")] == [ref.uri]


def test_rows_of_before_go_with_their_files(dead: Dead) -> None:
    context, ref = dead
    old = Path(context.output_uri, "recordings", "default", "old.mkv")
    old.write_bytes(b"old")
    gone = {**rows_like(context), "uri": str(old), "participant_id": "carol"}
    write_rows(context, "recordings", [gone])
    write_rows(
        context,
        "archives",
        [archive_row_of(replace(ref, modified_unix_ns=1_600_000_000 * 10**9), context)],
    )
    pending_replacement.announce(context.catalog_uri, CALL, [ref.uri], [])

    assert take(context) == 1

    assert not old.exists()
    assert {row["participant_id"] for row in rows_of(context, "recordings")} == {
        None,
        "alice",
        "bob",
    }
    assert [row["fingerprint"] for row in rows_of(context, "archives")] == [ref.fingerprint]
    assert pending_replacement.archives_to_repeat(context.catalog_uri) == frozenset()


def rows_like(context: JobRun) -> Row:
    """Returns a row of `recordings` that the dead run left."""
    return bundled_rows(context, "recordings")[0]


def test_of_several_dead_runs_the_last_counts(dead: Dead) -> None:
    context, ref = dead
    later = context.changed(run_id="run-1b", staging_uri=f"{context.staging_uri}b")
    press(later, ref)

    assert take(context) == 1

    assert len(rows_of(context, "recordings")) == 3
    assert {row["run_id"] for row in rows_of(context, "tracks")} == {"run-1b"}


def test_storage_lists_nothing_where_no_run_ever_was(context: JobRun) -> None:
    assert objects.list_below(str(Path(context.staging_uri).parent)) == []
    assert take(context) == 0


# --- manifests in staging -------------------------------------------------------------------------


def _stage_manifest(context: JobRun, name: str, age_seconds: float = 0) -> Path:
    root = Path(context.staging_uri).parent
    path = root / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("https://files.test/a?sig")
    when = time.time() - age_seconds
    os.utime(path, (when, when))
    return path


def test_manifests_of_other_launchers_stay_for_a_day(context: JobRun) -> None:
    """Their jobs may wait to be begun; what a killed launcher left goes."""
    fresh = _stage_manifest(context, "0" * 32, 80_000)
    forgotten = _stage_manifest(context, "1" * 32, 90_000)
    _stage_manifest(context, "2" * 32 + "/sub/events.json", 90_000)

    assert take(context) == 0

    assert fresh.exists()
    assert list(forgotten.parent.iterdir()) == [fresh]
    os.utime(fresh, (0, 0))
    assert take(context) == 0
    assert not forgotten.parent.exists()


def test_manifests_of_a_run_go_with_it(context: JobRun) -> None:
    root = Path(context.staging_uri).parent
    own = _stage_manifest(context, "2" * 32)
    folder = _stage_manifest(context, "3" * 32 + "/sub/events.json").parent.parent
    in_place = root.parent / "list.txt"
    in_place.write_text("https://files.test/a")
    sources = (
        ManifestSource(where=str(own), shown="standard input", is_staged=True),
        ManifestSource(where=f"{folder}/", shown="/events/", is_staged=True),
        ManifestSource(where=str(in_place), shown=str(in_place)),
    )
    job = replace(context.job, manifests=sources, staging_root=str(root))

    for _ in range(2):  # also where it was done before
        manifests.delete_staged(job)

    assert not (root / "manifests").exists()
    assert in_place.exists()
