"""ListArchives: patterns -> archives, each once, with what tells whether it changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from tests.support.beam import (
    GroupOnce,
    count_of,
    expect,
    make_pipeline,
    nothing,
    stamp,
    write_rows,
)
from tests.support.job_run import JobRun
from transforms.elements import ArchiveRef, Failure, Stage
from transforms.engine import progress
from transforms.filters import Filters
from transforms.list_archives import ARCHIVES, FAILURES, LEFT_OUT, FoldersAboveFn, ListArchives


def _make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))
        os.utime(folder / name, (0, 1_767_607_200))


def _expect(context: JobRun, patterns: Sequence[str], uris: Sequence[str]) -> None:
    pipeline = make_pipeline()
    listed = pipeline | ListArchives(patterns, *context)
    found = listed[ARCHIVES] | beam.Map(lambda ref: ref.uri)
    expect(archives=(found, equal_to(uris)), failures=(listed[FAILURES], nothing))
    result = pipeline.run()
    result.wait_until_finish()
    assert count_of(result, "archives_listed") == len(uris)


def test_archive_has_uri_size_modification_and_fingerprint(context: JobRun, tmp_path: Path) -> None:
    _make(tmp_path, "raw/a.tar.gz")
    ref = ArchiveRef(
        uri=f"{tmp_path}/raw/a.tar.gz",
        size_bytes=len("raw/a.tar.gz"),
        modified_unix_ns=1_767_607_200_000_000_000,
        fingerprint=f"{len('raw/a.tar.gz')}-1767607200000000000",
    )

    with make_pipeline() as pipeline:
        listed = pipeline | ListArchives([f"{tmp_path}/raw/*.gz"], *context)
        assert_that(listed[ARCHIVES] | GroupOnce(), equal_to([ref]))


def test_patterns_that_overlap_give_each_archive_once(context: JobRun, tmp_path: Path) -> None:
    _make(tmp_path, "raw/a.tar.gz", "raw/b.tar.gz", "raw/call/p_timing_metadata.json")
    patterns = [
        f"{tmp_path}/none/*",
        f"{tmp_path}/raw/*.gz",
        f"{tmp_path}/raw/a.tar.gz",
        f"{tmp_path}/raw/*",
        f"{tmp_path}/raw/call/",
    ]

    _expect(
        context, patterns, [f"{tmp_path}/raw/{name}" for name in ("a.tar.gz", "b.tar.gz", "call/")]
    )


def test_only_archives_modified_after_since_are_listed(context: JobRun, tmp_path: Path) -> None:
    _make(tmp_path, "raw/before.zip", "raw/at.zip", "raw/after.zip")
    for name, second in (("before", 99), ("at", 100), ("after", 101)):
        os.utime(tmp_path / f"raw/{name}.zip", (0, second))
    filtered = context.changed(since_unix_ns=100 * 10**9)

    _expect(filtered, [f"{tmp_path}/raw/*.zip"], [f"{tmp_path}/raw/after.zip"])


def test_what_waits_is_listed_whatever_its_age(context: JobRun, tmp_path: Path) -> None:
    _make(tmp_path, "raw/waits.zip", "raw/done.zip", "raw/unknown.zip", "raw/new.zip")
    for name, second in (("waits", 97), ("done", 98), ("unknown", 99), ("new", 101)):
        os.utime(tmp_path / f"raw/{name}.zip", (0, second))
    rows = [
        stamp({"archive_uri": f"{tmp_path}/{name}.zip", "status": status})
        for name, status in (
            ("raw/waits", "waiting"), ("raw/done", "ok"), ("elsewhere/waits", "waiting"),
        )
    ]  # fmt: skip
    write_rows(context, "archives", rows)
    write_rows(
        context, "archives", [stamp({"archive_uri": "x", "status": "partial"})], "2026-01-06"
    )
    filtered = context.changed(
        since_unix_ns=100 * 10**9, filters=Filters(since="1970-01-01T00:01:40Z")
    )

    _expect(
        filtered, [f"{tmp_path}/raw/*.zip"], [f"{tmp_path}/raw/{n}.zip" for n in ("waits", "new")]
    )
    without = filtered.changed(
        filters=Filters(since="1970-01-01T00:01:40Z", excluded_calls=("default:standup",))
    )
    _expect(
        without, [f"{tmp_path}/raw/*.zip"], [f"{tmp_path}/raw/{n}.zip" for n in ("waits", "new")]
    )
    named = filtered.changed(
        filters=Filters(since="1970-01-01T00:01:40Z", calls=("default:standup",))
    )
    _expect(named, [f"{tmp_path}/raw/*.zip"], [f"{tmp_path}/raw/new.zip"])


def test_odd_names_are_listed_and_fingerprinted(context: JobRun, tmp_path: Path) -> None:
    names = ["take [1].zip", "what*.zip", "ünï ✓.zip", "{a}.zip"]
    _make(tmp_path, *(f"raw/{name}" for name in names))

    _expect(context, [f"{tmp_path}/raw/*.zip"], [f"{tmp_path}/raw/{name}" for name in names])


def test_archive_that_cannot_be_fingerprinted_is_a_failure(
    context: JobRun, store: ModuleType
) -> None:
    good = store.put("fake://bucket/raw/good.zip", b"x")
    bad = store.put("fake://bucket/raw/bad.zip", b"x")
    store.TROUBLE["checksum"].append(PermissionError(13, "Permission denied"))

    def check(failures: list[Failure]) -> None:
        (failure,) = failures  # which of the two is asked for first is the engine's choice
        assert failure.archive_uri in (good, bad)
        assert failure == Failure(
            stage=Stage.LIST_ARCHIVES,
            error_type="StorageError",
            message=f"{failure.archive_uri}: Permission denied",
            archive_uri=failure.archive_uri,
            archive_modified_unix_ns=1_767_607_200_000_000_000,
            retryable=True,
        )

    with make_pipeline() as pipeline:
        listed = pipeline | ListArchives(["fake://bucket/raw/*"], *context)
        both = (
            listed[ARCHIVES] | "UriOfArchive" >> beam.Map(lambda ref: ref.uri),
            listed[FAILURES] | "UriOfFailure" >> beam.Map(lambda failure: failure.archive_uri),
        ) | beam.Flatten()
        expect(each_once=(both, equal_to([good, bad])), failures=(listed[FAILURES], check))


def test_named_pipe_is_a_failure_and_not_waited_for(context: JobRun, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar.gz")

    def check(failures: list[Failure]) -> None:
        (failure,) = failures
        assert failure.error_type == "ArchiveError"
        assert failure.message.endswith("a.tar.gz: prw-r--r--, expected a regular file")

    listed = make_pipeline() | ListArchives([f"{tmp_path}/*"], *context)
    expect(archives=(listed[ARCHIVES], nothing), failures=(listed[FAILURES], check))
    listed[ARCHIVES].pipeline.run().wait_until_finish()


def test_pattern_that_cannot_be_listed_stops_the_run(context: JobRun, store: ModuleType) -> None:
    """Nothing says what it stands for: a run without it would look complete."""
    store.TROUBLE["match"].extend([PermissionError(13, "Permission denied")] * 10)

    with (
        pytest.raises(Exception, match=r"fake://bucket/raw/\*: Permission denied"),
        make_pipeline() as pipeline,
    ):
        pipeline | ListArchives(["fake://bucket/raw/*"], *context)


def test_what_stands_in_the_place_of_archives_is_a_failure_whenever_it_was_modified(
    context: JobRun, tmp_path: Path
) -> None:
    _make(tmp_path, "raw/a.zip")
    (tmp_path / "raw/b.zip").symlink_to("nowhere")
    filtered = context.changed(since_unix_ns=2**62)

    def check(failures: list[Failure]) -> None:
        (failure,) = failures
        assert failure.stage == Stage.LIST_ARCHIVES
        assert failure.archive_uri == f"{tmp_path}/raw/b.zip"
        assert failure.error_type == "StorageError"
        assert failure.retryable

    listed = make_pipeline() | ListArchives([f"{tmp_path}/raw/*"], *filtered)
    expect(archives=(listed[ARCHIVES], nothing), failures=(listed[FAILURES], check))
    listed[ARCHIVES].pipeline.run().wait_until_finish()


def test_pattern_and_archive_of_no_utf8_are_elements_like_others(
    context: JobRun, tmp_path: Path
) -> None:
    _make(tmp_path, "caf\udce9/a.zip")

    def check(failures: list[Failure]) -> None:
        assert [failure.archive_uri for failure in failures] == [f"{tmp_path}/caf\\xe9/a.zip"]

    listed = make_pipeline() | ListArchives([f"{tmp_path}/caf\udce9/*"], *context)
    expect(archives=(listed[ARCHIVES], nothing), failures=(listed[FAILURES], check))
    listed[ARCHIVES].pipeline.run().wait_until_finish()


def test_what_runs_made_is_counted_for_each_pattern(context: JobRun, tmp_path: Path) -> None:
    _make(tmp_path, "raw/a.zip", "raw/callpress.lock", "raw/end.json")
    context = context.changed(own_uris=(f"{tmp_path}/raw/end.json",))

    listed = make_pipeline() | ListArchives([f"{tmp_path}/raw/*", f"{tmp_path}/no/*"], *context)
    found = listed[ARCHIVES] | beam.Map(lambda ref: ref.uri)
    expect(
        archives=(found, equal_to([f"{tmp_path}/raw/a.zip"])),
        counts=(listed[LEFT_OUT], equal_to([2, 0])),
    )
    listed[ARCHIVES].pipeline.run().wait_until_finish()


def test_folders_above_archives_are_keys_each_once(tmp_path: Path) -> None:
    refs = [
        ArchiveRef(uri=uri, size_bytes=1, modified_unix_ns=0, fingerprint="x")
        for uri in ("/raw/a/x.zip", "/raw/b/call/", "/raw/a/y.zip")
    ]
    folders = FoldersAboveFn()
    folders.start_bundle()

    found = [key for ref in refs for key in folders.process(ref)]

    assert sorted(found) == [("/",), ("/raw/",), ("/raw/a/",), ("/raw/b/",)]


def test_archives_found_are_reported(context: JobRun, tmp_path: Path) -> None:
    _make(tmp_path, "raw/a.zip", "raw/b.zip")
    told: list[str] = []
    stop = progress.listen(lambda what, _: told.append(what))

    with make_pipeline() as pipeline:
        pipeline | ListArchives([f"{tmp_path}/raw/*"], *context)
    stop()

    assert told == ["archives_found", "archives_found"]


def test_archive_that_cannot_be_looked_at_counts_as_dealt_with(
    context: JobRun, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    os.mkfifo(tmp_path / "raw/a.zip")
    told: list[str] = []
    stop = progress.listen(lambda what, _: told.append(what))

    with make_pipeline() as pipeline:
        pipeline | ListArchives([f"{tmp_path}/raw/*"], *context)
    stop()

    assert told == ["archives_found", "archives", "failures"]


def test_nothing_is_listed_while_the_graph_is_built(context: JobRun, store: ModuleType) -> None:
    make_pipeline() | ListArchives(["fake://bucket/raw/*"], *context)

    assert store.CALLS["match"] == 0
