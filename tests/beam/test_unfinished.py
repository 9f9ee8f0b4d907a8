"""Notes of calls being replaced: what a killed run leaves for the next one."""

from __future__ import annotations

import pytest

from tests.beam.support import CALL, list_files
from transforms.media.model import CallKey
from transforms.run_context import RunContext
from transforms.unfinished import archives_to_repeat, forget, note

OTHER = CallKey(call_type="default", call_id="stand/up", call_session_id="session 2")


@pytest.fixture(params=["disk", "object store"])
def catalog(request: pytest.FixtureRequest, context: RunContext, store: object) -> str:
    return context.catalog_uri if request.param == "disk" else "fake://bucket/catalog"


def test_noted_archives_are_repeated_until_their_call_is_forgotten(catalog: str) -> None:
    note(catalog, CALL, ["/raw/b", "/raw/a"])
    note(catalog, OTHER, ["/raw/c [1]", "/raw/a"])
    assert archives_to_repeat(catalog) == {"/raw/a", "/raw/b", "/raw/c [1]"}

    forget(catalog, CALL)

    assert archives_to_repeat(catalog) == {"/raw/a", "/raw/c [1]"}


def test_catalog_without_notes_repeats_nothing(catalog: str) -> None:
    assert archives_to_repeat(catalog) == frozenset()
    forget(catalog, CALL)


def test_noting_twice_makes_one_note_with_the_same_bytes(context: RunContext) -> None:
    note(context.catalog_uri, CALL, ["/raw/b", "/raw/a"])
    (name,) = list_files(context.catalog_uri)
    with open(f"{context.catalog_uri}/{name}", "rb") as file:
        first = file.read()

    note(context.catalog_uri, CALL, ["/raw/a", "/raw/b"])

    assert list_files(context.catalog_uri) == [name]
    with open(f"{context.catalog_uri}/{name}", "rb") as file:
        assert file.read() == first
