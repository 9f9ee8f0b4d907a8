"""What the tests of transforms share: short calls, their archives, staged parts, catalog rows."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import apache_beam as beam
import pyarrow.parquet as pq
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from tests.support.builders import (
    CALL_START_UNIX_MS,
    Participant,
    Segment,
    encode_opus,
    make_call_archive,
    tone,
)
from tests.support.job_run import JobRun
from transforms.catalog import merging
from transforms.catalog.bundles import (
    Bundle,
    WrittenBundle,
    owned,
    read_rows,
    removed,
    span_of,
)
from transforms.catalog.fragments import read_fragment
from transforms.catalog.rows.ids import call_ids
from transforms.catalog.schema import owner_key
from transforms.context import VERSION
from transforms.elements import (
    ArchiveRef,
    CallPlan,
    Failure,
    FragmentRef,
    ReplacedKey,
    Row,
    SectionRef,
    Stage,
    TrackPart,
    TrackSource,
    key_hash,
)
from transforms.media.archive.read_members import ArchiveInput
from transforms.media.job import JobHost
from transforms.media.rtp.streams import PacketCounts
from transforms.media.track.staged_packets import PartIndex, dump_index
from transforms.media.unpack_archive import unpack_archive
from transforms.media.values import CallKey, Codec, OutputType, TrackKey
from transforms.media.wall_time import to_time, utc_date
from transforms.sources import archive_files

CALL = CallKey(call_type="default", call_id="standup", call_session_id="session-1")
CALL_START_UNIX_NS = CALL_START_UNIX_MS * 1_000_000
CALL_DATE = "2026-01-05"
CALL_COLUMNS = ("call_type", "call_id", "call_session_id")


def make_pipeline() -> TestPipeline:
    """Returns a pipeline on the in-process engine."""
    return TestPipeline(runner=FnApiRunner())


Check = Callable[[list[Any]], None]
"""Looks at all elements of a collection; what `equal_to` gives is one."""


def anything(_elements: list[Any]) -> None:
    """Accepts all elements."""


def nothing(elements: list[Any]) -> None:
    """Accepts no element."""
    assert elements == []


def expect(**outputs: tuple[beam.PCollection, Check]) -> None:
    """Checks several collections of one pipeline after they went through one GroupByKey, and so
    through their coders.
    """
    checks = {name: check for name, (_, check) in outputs.items()}

    def check_all(groups: Iterable[tuple[str, Iterable[Any]]]) -> None:
        found = {name: list(elements) for name, elements in groups}
        for name, check in checks.items():
            check(found.get(name, []))

    tagged = [
        elements | f"Tag_{name}" >> beam.Map(lambda element, name: (name, element), name)
        for name, (elements, _) in outputs.items()
    ]
    assert_that(
        tagged | "AllOutputs" >> beam.Flatten() | "GroupOutputs" >> beam.GroupByKey(), check_all
    )


@beam.ptransform_fn
def GroupOnce(elements: beam.PCollection) -> beam.PCollection:  # noqa: N802
    """Sends elements through a GroupByKey, so that they are encoded and decoded."""
    return (
        elements
        | "KeyByNothing" >> beam.Map(lambda element: ("", element))
        | "Group" >> beam.GroupByKey()
        | "Ungroup" >> beam.FlatMap(lambda group: group[1])
    )


def count_of(pipeline_result: Any, name: str) -> int:
    """Returns the value of a counter."""
    found = pipeline_result.metrics().query(beam.metrics.MetricsFilter().with_name(name))[
        "counters"
    ]
    return sum(metric.committed for metric in found)


# --- calls and archives ---------------------------------------------------------------------------


@functools.cache
def speak(seconds: float = 1.0, frequency_hz: float = 440) -> tuple[bytes, ...]:
    """Returns the Opus packets of a tone."""
    return tuple(encode_opus(tone(frequency_hz, seconds)))


def make_participant(
    name: str, seconds: float = 1.0, start_ms: int = 0, **fields: Any
) -> Participant:
    """Returns a participant who sends one segment of audio."""
    return Participant(
        participant_id=name, segments=[Segment(packets=speak(seconds), start_ms=start_ms, **fields)]
    )


def write_call(path: Path, participants: Sequence[Participant], **fields: Any) -> ArchiveRef:
    """Writes a call's archive; returns the reference to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_call_archive(participants, **fields))
    return refer_to(str(path))


def refer_to(uri: str, **fields: Any) -> ArchiveRef:
    """Returns the reference to an archive that is there."""
    listed = archive_files.stat_archive(uri)
    assert listed is not None
    return ArchiveRef(
        uri=uri,
        size_bytes=listed.size_bytes,
        modified_unix_ns=listed.modified_unix_ns,
        fingerprint=archive_files.fingerprint(uri),
        **fields,
    )


def make_track(
    participant_id: str = "alice",
    output_type: OutputType = OutputType.AUDIO_ONLY,
    call: CallKey = CALL,
) -> TrackKey:
    """Returns a track's key; the user session is `sess-` and the participant."""
    return TrackKey(
        call=call,
        participant_id=participant_id,
        user_session_id=f"sess-{participant_id}",
        output_type=output_type,
    )


def make_part(participant_id: str = "alice", **fields: Any) -> TrackPart:
    """Returns a part of a track with audio for a minute from the start of the call, nothing
    staged.
    """
    start = fields.pop("first_server_unix_ns", CALL_START_UNIX_NS)
    stem = f"/staged/{participant_id}"
    return TrackPart(
        **{
            "call": CALL,
            "participant_id": participant_id,
            "user_session_id": f"sess-{participant_id}",
            "output_type": OutputType.AUDIO_ONLY,
            "archive_uri": "/raw/a.tar.gz",
            "archive_modified_unix_ns": CALL_START_UNIX_NS,
            "archive_fingerprint": "1-1",
            "call_start_unix_ns": CALL_START_UNIX_NS,
            "has_packets": True,
            "index_uri": f"{stem}.json",
            "media_samples": 60 * 48_000,
            "first_server_unix_ns": start,
            "last_server_unix_ns": start + 60_000_000_000,
            "stop_server_unix_ns": fields.get("last_server_unix_ns", start + 60_000_000_000),
            "allowed_samples": 25 * 3_600 * 48_000,
            **fields,
        }
    )


def _open_local(name: str) -> BinaryIO:
    return Path(name).open("rb")


def stage_sources(context: JobRun, ref: ArchiveRef) -> list[TrackSource]:
    """Unpacks an archive into staging without Beam; returns a source per track, in order of the
    keys.
    """
    folder = Path(context.staging_uri) / "packets" / key_hash(ref.uri)
    folder.mkdir(parents=True)
    unpacked = unpack_archive(
        JobHost(open_input=_open_local),
        ArchiveInput(name=ref.uri, size_bytes=ref.size_bytes),
        folder,
        context.settings.limits,
    )
    sources = [
        TrackSource(
            track=part.track,
            parts=(
                TrackPart(
                    call=session.key.call,
                    participant_id=session.key.participant_id,
                    user_session_id=session.key.user_session_id,
                    output_type=part.track.output_type,
                    archive_uri=ref.uri,
                    archive_modified_unix_ns=ref.modified_unix_ns,
                    archive_fingerprint=ref.fingerprint,
                    call_start_unix_ns=session.call_start_unix_ns,
                    has_packets=True,
                    index_uri=str(folder / part.index_file),
                    media_samples=part.media_samples,
                    first_server_unix_ns=part.first_server_unix_ns,
                    last_server_unix_ns=part.last_server_unix_ns,
                    stop_server_unix_ns=part.stop_server_unix_ns,
                    watch=part.watch,
                ),
            ),
            timeline_start_unix_ns=session.call_start_unix_ns or part.first_server_unix_ns,
            begin_unix_ns=None,
        )
        for session in unpacked.sessions
        for part in session.parts
        if part.packets_file
    ]
    return sorted(sources, key=lambda source: source.track)


def silent_part(context: JobRun, track: TrackKey, archive_uri: str = "/raw/a") -> TrackPart:
    """Returns the part of a track in which nothing was sent, its index staged."""
    index = Path(context.staging_uri) / "packets" / f"{key_hash(archive_uri, str(track))}.json"
    index.parent.mkdir(parents=True, exist_ok=True)
    index.write_bytes(
        dump_index(
            PartIndex(
                channels=0,
                codec=Codec.OPUS,
                segment_count=0,
                counts=PacketCounts(),
                jitter_ms=None,
                packet_runs=(),
            )
        )
    )
    return TrackPart(
        call=track.call,
        participant_id=track.participant_id,
        user_session_id=track.user_session_id,
        output_type=track.output_type,
        archive_uri=archive_uri,
        archive_modified_unix_ns=CALL_START_UNIX_NS,
        archive_fingerprint="1",
        call_start_unix_ns=CALL_START_UNIX_NS,
        index_uri=str(index),
    )


def make_plan(sources: Sequence[TrackSource], **fields: Any) -> CallPlan:
    """Returns the plan of a call new to the catalog that is pressed from these tracks."""
    parts = [part for source in sources for part in source.parts]
    return CallPlan(
        **{
            "call": CALL,
            "timeline_start_unix_ns": CALL_START_UNIX_NS,
            "sources": tuple(sources),
            "silent_parts": (),
            "sessions": tuple(
                sorted({(part.participant_id, part.user_session_id) for part in parts})
            ),
            "archive_uris": tuple(sorted({part.archive_uri for part in parts})),
            "archive_fingerprints": tuple(
                sorted({(part.archive_uri, part.archive_fingerprint) for part in parts})
            ),
            "is_narrowed": False,
            "is_whole": True,
            "has_prior": False,
            "prior_tracks": (),
            "prior_files": (),
            "has_prior_mix": False,
            **fields,
        }
    )


def make_failure(**fields: Any) -> Failure:
    """Returns a failure of an archive."""
    return Failure(
        **{
            "stage": Stage.UNPACK_ARCHIVES,
            "error_type": "ArchiveError",
            "message": "begins with b'no'",
            **fields,
        }
    )


# --- the catalog ----------------------------------------------------------------------------------


def stamp(row: Row, made_unix_ns: int = CALL_START_UNIX_NS, run_id: str = "earlier") -> Row:
    """Returns a row with the columns every row has."""
    return {
        **row,
        "run_id": run_id,
        "created_at": to_time(made_unix_ns),
        "settings_fingerprint": "settings-1",
    }


def call_row(call: CallKey = CALL, **fields: Any) -> Row:
    """Returns a row of `calls`."""
    ids = call_ids(call)
    return stamp(
        {
            **ids,
            "timeline_start_time": to_time(CALL_START_UNIX_NS),
            "status": "ok",
            "archive_uris": [],
            **fields,
        }
    )


def recording_row(participant_id: str | None, uri: str, call: CallKey = CALL, **fields: Any) -> Row:
    """Returns a row of `recordings`: of a participant's file, of the mix for None."""
    ids = call_ids(call)
    if participant_id is not None:
        ids |= {
            "participant_id": participant_id,
            "user_session_id": f"sess-{participant_id}",
            "output_type": "audio_only",
        }
    kind = "composite" if participant_id is None else "individual"
    times = {
        "start_time": to_time(CALL_START_UNIX_NS),
        "end_time": to_time(CALL_START_UNIX_NS + 1_000_000_000),
    }
    return stamp(
        {
            **ids,
            "recording_type": kind,
            "uri": uri,
            "archive_uris": ["/raw/a.tar.gz"],
            **times,
            **fields,
        }
    )


def track_row(participant_id: str, call: CallKey = CALL, **fields: Any) -> Row:
    """Returns a row of `tracks`."""
    ids = call_ids(call)
    ids |= {
        "participant_id": participant_id,
        "user_session_id": f"sess-{participant_id}",
        "output_type": "audio_only",
    }
    numbers = {"offset_ms": 0, "duration_ms": 1_000}
    return stamp({**ids, "status": "ok", "archive_uris": ["/raw/a.tar.gz"], **numbers, **fields})


def archive_row_of(ref: ArchiveRef, context: JobRun, **fields: Any) -> Row:
    """Returns the row of `archives` of an archive that went well with the settings of `context`."""
    row = {
        "archive_uri": ref.uri,
        "fingerprint": ref.fingerprint,
        "size_bytes": ref.size_bytes,
        "status": "ok",
        "attempts": 1,
        "callpress_version": VERSION,
    }
    return {**stamp(row), "settings_fingerprint": context.settings_fingerprint, **fields}


def staged_rows(uri: str, table: str) -> list[Row]:
    """Reads a fragment of which the reference is not at hand."""
    lines = [json.loads(line) for line in Path(uri).read_text().split("\n") if line]
    counts = tuple((name, len(rows)) for name, rows in lines)
    return read_fragment(FragmentRef(uri=uri, row_counts=counts), table)


def bundled_rows(context: JobRun, table: str, key: ReplacedKey | None = None) -> list[Row]:
    """Reads a table's rows in all bundles of a run, of all owners or of one."""
    found = []
    for path in sorted(Path(context.staged("bundles")).iterdir()):
        for owner, rows in WrittenBundle(str(path)).rows(table).items():
            found += rows if key in (None, owner) else []
    return found


def section_rows(section: SectionRef) -> dict[ReplacedKey, list[Row]]:
    """Reads a section: by owner, its rows."""
    return dict(read_rows(span_of(section), section.table))


def write_rows(
    context: JobRun, table: str, rows: Sequence[Row], call_date: str = CALL_DATE
) -> None:
    """Adds rows to a partition of the catalog."""
    sections = write_new(context, table, rows, call_date)
    merging.merge_partition(context.catalog_uri, table, call_date, sections)


def write_archive_row(context: JobRun, ref: ArchiveRef, **fields: Any) -> None:
    """Adds an archive's row where the catalog keeps it."""
    write_rows(
        context,
        "archives",
        [archive_row_of(ref, context, **fields)],
        utc_date(ref.modified_unix_ns),
    )


def write_new(
    context: JobRun, table: str, rows: Sequence[Row], call_date: str = CALL_DATE
) -> list[SectionRef]:
    """Writes a bundle of rows that replace those of the same owners."""
    bundle = Bundle()
    for key in sorted({owner_key(table, row) for row in rows}):
        own = [row for row in rows if owner_key(table, row) == key]
        bundle.add(owned(call_date, {table: own}, key))
    return bundle.write(context.staged("made"))


def write_removal(
    context: JobRun, keys: Iterable[ReplacedKey], *tables: str, call_date: str = CALL_DATE
) -> list[SectionRef]:
    """Writes a bundle that takes all rows of some owners away."""
    bundle = Bundle()
    for key in keys:
        bundle.add(removed(call_date, tables, key))
    return bundle.write(context.staged("made"))


def read_catalog(context: JobRun, table: str) -> list[Row]:
    """Returns all rows of a table as they lie there, with `call_date`, in order of files and
    rows.
    """
    rows = []
    for path in list_parquet(context, table):
        date = path.parent.name.removeprefix("call_date=")
        rows += [{**row, "call_date": date} for row in pq.ParquetFile(path).read().to_pylist()]
    return rows


def list_parquet(context: JobRun, table: str) -> list[Path]:
    """Returns a table's files, sorted."""
    return sorted(Path(context.catalog_uri, table).glob("*/*.parquet"))


def list_files(folder: str | Path) -> list[str]:
    """Returns the relative paths of all files below a folder, hidden ones included."""
    return sorted(
        os.path.relpath(os.path.join(path, name), folder)
        for path, _, names in os.walk(folder)
        for name in names
    )
