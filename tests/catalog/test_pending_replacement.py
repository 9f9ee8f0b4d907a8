"""Notes of calls being replaced: what a killed run leaves for the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.beam import CALL, CALL_DATE, list_files, recording_row, write_rows
from tests.support.job_run import JobRun
from transforms.catalog.pending_replacement import announce, archives_to_repeat, settle
from transforms.media.values import CallKey

OTHER = CallKey(call_type="default", call_id="stand/up", call_session_id="session 2")


@pytest.fixture(params=["disk", "object store"])
def catalog(request: pytest.FixtureRequest, context: JobRun, store: object) -> str:
    return context.catalog_uri if request.param == "disk" else "fake://bucket/catalog"


def test_noted_archives_are_repeated_until_their_call_is_forgotten(catalog: str) -> None:
    announce(catalog, CALL, ["/raw/b", "/raw/a"], [])
    announce(catalog, OTHER, ["/raw/c [1]", "/raw/a"], [])
    assert archives_to_repeat(catalog) == {"/raw/a", "/raw/b", "/raw/c [1]"}

    settle(catalog, "/out", CALL, CALL_DATE)

    assert archives_to_repeat(catalog) == {"/raw/a", "/raw/c [1]"}


def test_catalog_without_notes_repeats_nothing(catalog: str) -> None:
    assert archives_to_repeat(catalog) == frozenset()
    settle(catalog, "/out", CALL, CALL_DATE)


def test_noting_twice_makes_one_note_with_the_same_bytes(context: JobRun) -> None:
    announce(context.catalog_uri, CALL, ["/raw/b", "/raw/a"], ["/out/2", "/out/1"])
    (name,) = list_files(context.catalog_uri)
    with open(f"{context.catalog_uri}/{name}", "rb") as file:
        first = file.read()

    announce(context.catalog_uri, CALL, ["/raw/a", "/raw/b"], ["/out/1"])

    assert list_files(context.catalog_uri) == [name]
    with open(f"{context.catalog_uri}/{name}", "rb") as file:
        assert file.read() == first


def test_files_that_no_row_names_any_more_go_with_the_note(context: JobRun) -> None:
    """A run was killed between the new rows and the removal of the old files."""
    folder = Path(context.output_uri, "recordings")
    folder.mkdir(parents=True)
    old, new, foreign = (
        folder / "alice.mkv",
        folder / "alice.webm",
        Path(context.output_uri, "foreign.mkv"),
    )
    for path in (old, new, foreign):
        path.write_bytes(b"media")
    announce(context.catalog_uri, CALL, ["/raw/a"], [str(old), str(foreign)])
    write_rows(context, "recordings", [recording_row("alice", str(new))])
    announce(
        context.catalog_uri, CALL, ["/raw/a"], [str(new)]
    )  # the next run knows of the new one only

    settle(context.catalog_uri, context.output_uri, CALL, CALL_DATE)

    assert [path.exists() for path in (old, new, foreign)] == [False, True, True]
    assert archives_to_repeat(context.catalog_uri) == frozenset()
