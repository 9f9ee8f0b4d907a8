"""LookAtArchives: archives that manifests name, with what their stores say of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import equal_to

from tests.support.beam import Check, expect, make_pipeline, nothing
from tests.support.job_run import JobRun
from tests.support.tls_site import MODIFIED_UNIX_S, Exchange, Page, Site, running_site
from transforms import look_at_archives
from transforms.elements import ArchiveRef
from transforms.look_at_archives import LookAtArchives
from transforms.storage.storage_options import StorageOptions

MODIFIED_NS = MODIFIED_UNIX_S * 10**9
SECRET = "sig=PLANTEDSIGNATURE"


@pytest.fixture
def sites() -> Iterator[list[Site]]:
    with running_site(None) as one, running_site(None) as other:
        yield [one, other]


def _ref(link: str, **fields: Any) -> ArchiveRef:
    return ArchiveRef(
        **{
            "uri": link, "size_bytes": 0, "modified_unix_ns": 7, "fingerprint": "",
            "link": f"{link}?{SECRET}", "is_unseen": True, **fields,
        }
    )  # fmt: skip


def _look(
    context: JobRun, refs: Sequence[ArchiveRef], archives: Check, too_old: Check = nothing
) -> None:
    context = context.changed(storage_options=StorageOptions(allow_private_addresses=True))
    with make_pipeline() as pipeline:
        found, old = pipeline | beam.Create(refs) | LookAtArchives(*context)
        expect(archives=(found, archives), too_old=(old, too_old))


def test_one_request_tells_size_date_and_fingerprint(context: JobRun, sites: list[Site]) -> None:
    link = sites[0].put("/a", b"four")
    refs = [_ref(link, fingerprint="old", attempt=3, is_known_failure=True, copy_uri="/gone")]

    def check(found: list[ArchiveRef]) -> None:
        (ref,) = found
        assert (ref.size_bytes, ref.modified_unix_ns) == (4, MODIFIED_NS)
        assert ref.fingerprint.startswith("4-")
        # It is another than the catalog knows, and so its first try.
        assert (ref.attempt, ref.is_known_failure, ref.copy_uri) == (1, False, "")
        assert not ref.is_unseen
        assert "PLANTED" not in repr(ref)

    _look(context, refs, check)

    assert sites[0].ranges() == ["bytes=0-0"]


def test_what_the_manifest_says_of_its_end_counts(context: JobRun, sites: list[Site]) -> None:
    refs = [_ref(sites[0].put("/a", b"four"), is_dated=True)]

    _look(context, refs, lambda found: equal_to([7])([ref.modified_unix_ns for ref in found]))


def test_what_was_listed_passes_and_what_cannot_be_looked_at_goes_on_without_a_size(
    context: JobRun, sites: list[Site]
) -> None:
    gone = _ref(sites[0].link("/gone"), fingerprint="4-1", size_bytes=4, attempt=2)
    listed = replace(gone, uri="/raw/a", is_unseen=False)

    _look(
        context,
        [gone, listed],
        equal_to([replace(gone, size_bytes=0, is_unseen=False), listed]),
    )


def test_copy_that_is_there_is_enough(context: JobRun, sites: list[Site], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(b"four")
    link = sites[0].put("/a", b"five.")
    ref = _ref(link, size_bytes=4, fingerprint="4-1", copy_uri=str(copy))

    _look(context, [ref], equal_to([replace(ref, is_unseen=False)]))
    assert not sites[0].requests

    copy.write_bytes(b"fo")  # cut short: it is asked for
    _look(context, [ref], lambda found: equal_to([5])([ref.size_bytes for ref in found]))
    assert len(sites[0].requests) == 1


def test_older_than_the_run_is_about(context: JobRun, sites: list[Site]) -> None:
    link = sites[0].put("/a", b"four")
    context = context.changed(since_unix_ns=MODIFIED_NS)
    refs = [_ref(link), _ref(link, is_waiting=True), _ref(link, is_dated=True)]

    _look(
        context,
        refs,
        lambda found: equal_to([True])([ref.is_waiting for ref in found]),
        equal_to([1, 1]),
    )


def test_host_that_does_not_answer_holds_up_no_other(
    context: JobRun, sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads that a slow host may have wait for it until the other has told of all of its."""
    monkeypatch.setattr(look_at_archives, "_OF_A_PLACE", 2)
    monkeypatch.setattr(look_at_archives, "_AT_A_TIME", 3)
    slow, quick = sites
    count, all_told = 6, threading.Event()

    def wait(exchange: Exchange) -> None:
        assert all_told.wait(20)
        exchange.give_page()

    def tell(exchange: Exchange) -> None:
        exchange.give_page()
        if len(quick.requests) == count:
            all_told.set()

    refs = [
        *(_ref(slow.put(f"/{n}", Page(data=b"four", answers=[wait]))) for n in range(count)),
        *(_ref(quick.put(f"/{n}", Page(data=b"four", answers=[tell]))) for n in range(count)),
    ]

    _look(context, refs, lambda found: equal_to([4] * 2 * count)([r.size_bytes for r in found]))

    assert all_told.is_set()
