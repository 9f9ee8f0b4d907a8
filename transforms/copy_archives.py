"""CopyArchives: archives to press -> the same, each with a copy that is read in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.context import JobSettings
from transforms.elements import ArchiveRef, key_hash
from transforms.engine import begun
from transforms.engine.run_fn import ParallelRunFn, RunInput
from transforms.media.errors import RecordingError
from transforms.media.wall_time import utc_date
from transforms.sources import raw_copies
from transforms.storage import work_folders


class CopyArchives(beam.PTransform):
    """Input: `ArchiveRef`. Output: the same, with the copy's URI, or why there is none: then it is
    pressed from where it lies, and a failure tells.

    Writes copies under names that come from the archive's URI and fingerprint: what is there
    already is not copied again. Parallel over archives; holds a block of one, and all of it in a
    work folder.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, archives: beam.PCollection[ArchiveRef]) -> beam.PCollection[ArchiveRef]:
        return (
            archives
            | "SpreadArchives" >> beam.Reshuffle()
            | "Copy" >> beam.ParDo(_CopyFn(self._job), self._run)
        )


class _CopyFn(ParallelRunFn):
    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._copied = Metrics.counter(CopyArchives, "archives_copied")
        self._failures = Metrics.counter(CopyArchives, "failures")

    def count(self, ref: ArchiveRef) -> None:
        (self._failures if ref.not_copied else self._copied).inc()

    def size(self, ref: ArchiveRef) -> int:
        return ref.size_bytes

    def work(self, ref: ArchiveRef) -> Iterator[Any]:
        if self.job.bounds.is_over(self.run.started_unix_ns):
            yield ref  # which is left to the next run
            return
        if ref.copy_uri and raw_copies.is_gone(ref.copy_uri, ref.size_bytes):
            begun.say(f"{ref.uri}: its copy {ref.copy_uri} is gone or cut short, it is copied anew")
            ref = replace(ref, copy_uri="")
        if ref.copy_uri:
            yield ref
        elif not (ref.fingerprint and ref.size_bytes):
            why = f"{ref.uri} could not be copied: it could not be looked at"
            yield replace(ref, not_copied=why)
        elif ref.uri.endswith("/"):
            why = f"{ref.uri}: an unpacked folder is not copied, expected an archive (--copy-raw)"
            yield replace(ref, not_copied=why)
        elif ref.size_bytes > (most := self.job.settings.limits.max_archive_bytes):
            # Expanded it would be more. Who says so may never end, and fills the disk of others.
            why = (
                f"{ref.uri} could not be copied: {ref.size_bytes} bytes, expected at most {most} "
                "(limits.max_archive_bytes)"
            )
            yield replace(ref, not_copied=why)
        else:
            yield self._copy(ref)

    def _copy(self, ref: ArchiveRef) -> ArchiveRef:
        job = self.job
        copy_uri = raw_copies.name_copy(
            job.copy_raw_uri,
            ref.uri,
            utc_date(ref.modified_unix_ns),
            key_hash(ref.uri, ref.fingerprint),
        )
        try:
            with work_folders.work_folder(self.run.staging_uri) as folder:
                raw_copies.make_copy(
                    ref.source,
                    copy_uri,
                    ref.size_bytes,
                    folder,
                    job.settings.limits.max_archive_seconds,
                )
        except RecordingError as error:
            return replace(ref, not_copied=f"{ref.uri} could not be copied: {error.message}")
        return replace(ref, copy_uri=copy_uri)
