"""CopyArchives: a copy of each archive, made once, byte for byte."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import apache_beam as beam
import pytest

from tests.support.beam import expect, make_pipeline, refer_to
from tests.support.job_run import JobRun
from transforms.copy_archives import CopyArchives
from transforms.elements import ArchiveRef
from transforms.media.errors import StorageError
from transforms.sources import raw_copies
from transforms.storage import objects

_found: list[ArchiveRef] = []


def _keep(archives: list[ArchiveRef]) -> None:
    _found[:] = archives  # a function of a module is not copied into the pipeline


def _copy(context: JobRun, copies: Path, refs: Sequence[ArchiveRef]) -> list[ArchiveRef]:
    context = context.changed(copy_raw_uri=str(copies))
    with make_pipeline() as pipeline:
        expect(found=(pipeline | beam.Create(refs) | CopyArchives(*context), _keep))
    return sorted(_found, key=lambda ref: ref.uri)


def _write(path: Path, data: bytes = b"recording") -> ArchiveRef:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return replace(refer_to(str(path)), modified_unix_ns=1_767_607_200 * 10**9)


def test_copy_is_the_archive_and_is_named_by_it(context: JobRun, tmp_path: Path) -> None:
    ref = _write(tmp_path / "raw" / "Straße 1.tar.gz", bytes(3 << 20) + b"end")

    (copied,) = _copy(context, tmp_path / "copies", [ref])

    place = Path(copied.copy_uri)
    assert place.read_bytes() == Path(ref.uri).read_bytes()
    assert place.parent == tmp_path / "copies" / "2026-01-05"
    assert place.name[12:] == "-Stra_e_1.tar.gz"
    assert copied == replace(ref, copy_uri=str(place))


def test_what_is_there_is_not_copied_again(context: JobRun, tmp_path: Path) -> None:
    ref = _write(tmp_path / "raw" / "a.tar.gz")
    (first,) = _copy(context, tmp_path / "copies", [ref])
    Path(ref.uri).unlink()

    # A bundle done again, and a run that knows the copy from the catalog.
    assert _copy(context, tmp_path / "copies", [ref]) == [first]
    assert _copy(context, tmp_path / "elsewhere", [first]) == [first]


@pytest.mark.parametrize("left", [None, b"reco"])
def test_copy_that_is_gone_or_cut_is_made_anew(
    left: bytes | None, context: JobRun, tmp_path: Path
) -> None:
    ref = _write(tmp_path / "raw" / "a.tar.gz")
    (first,) = _copy(context, tmp_path / "copies", [ref])
    Path(first.copy_uri).unlink()
    if left is not None:
        Path(first.copy_uri).write_bytes(left)

    assert _copy(context, tmp_path / "copies", [first]) == [first]
    assert Path(first.copy_uri).read_bytes() == b"recording"


def test_changed_archive_is_another_copy(context: JobRun, tmp_path: Path) -> None:
    ref = _write(tmp_path / "raw" / "a.tar.gz")
    (first,) = _copy(context, tmp_path / "copies", [ref])
    (second,) = _copy(context, tmp_path / "copies", [_write(Path(ref.uri), b"another")])

    assert Path(first.copy_uri).read_bytes() == b"recording"
    assert Path(second.copy_uri).read_bytes() == b"another"


def test_what_cannot_be_copied_goes_on_and_says_why(
    context: JobRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, gone, longer, folder, unseen = (
        _write(tmp_path / "raw" / name) for name in ("1", "2", "3", "4", "5")
    )
    Path(gone.uri).unlink()
    longer = replace(longer, size_bytes=4)
    folder = replace(folder, uri=f"{folder.uri}/")
    unseen = replace(unseen, size_bytes=0)
    publish = objects.publish

    def refuse(uri: str, source: Path) -> None:
        if uri.endswith("-1"):
            raise StorageError(f"{uri}: no permission")
        publish(uri, source)

    monkeypatch.setattr(objects, "publish", refuse)

    found = _copy(context, tmp_path / "copies", [refused, gone, longer, folder, unseen])

    assert [ref.copy_uri for ref in found] == [""] * 5
    for ref, why in zip(
        found,
        (
            "no permission",
            "No such file or directory",
            "9 bytes were read, expected 4 as listed",
            "an unpacked folder is not copied",
            "it could not be looked at",
        ),
        strict=True,
    ):
        assert why in ref.not_copied
        assert ref.uri in ref.not_copied


def test_copy_that_is_not_what_was_written_is_not_kept(
    context: JobRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = _write(tmp_path / "raw" / "a.tar.gz")
    publish = objects.publish

    def damage(uri: str, source: Path) -> None:
        source.write_bytes(b"RECORDING")
        publish(uri, source)

    monkeypatch.setattr(objects, "publish", damage)

    (found,) = _copy(context, tmp_path / "copies", [ref])

    assert "is not what was written" in found.not_copied
    assert not [path for path in (tmp_path / "copies").rglob("*") if path.is_file()]


def test_source_without_end_is_given_up(
    context: JobRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may say any size, and send for ever: what is read is bounded, and so is the time."""
    huge, slow = (_write(tmp_path / "raw" / name) for name in ("huge", "slow"))
    limits = replace(
        context.job.settings.limits, max_archive_bytes=huge.size_bytes, max_archive_seconds=600
    )
    context = context.changed(settings=replace(context.job.settings, limits=limits))
    huge = replace(huge, size_bytes=huge.size_bytes + 1)
    clock = itertools.count(step=400)
    monkeypatch.setattr(raw_copies, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(raw_copies, "_BLOCK_BYTES", 4)

    found = _copy(context, tmp_path / "copies", [huge, slow])

    assert [ref.not_copied for ref in found] == [
        f"{huge.uri} could not be copied: 10 bytes, expected at most 9 (limits.max_archive_bytes)",
        f"{slow.uri} could not be copied: {slow.uri}: reading it took more than 600 s "
        "(limits.max_archive_seconds)",
    ]
    assert not any(path.is_file() for path in (tmp_path / "copies").rglob("*"))
