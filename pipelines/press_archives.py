"""`callpress extract-audio`, `mix-audio`, `process-all`: the media of a few archives by themselves.

The functions that a run's steps call, one after the other, with a temporary folder in the place of
staging: no Beam, no catalog, no lock. What is made lies flat in one folder, under the names that a
run gives it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pipelines import archive_inputs, telling
from pipelines.archive_commands import PressArguments, Wanted
from pipelines.archive_inputs import NamedArchive
from pipelines.press_progress import showing_progress_on_terminal
from pipelines.stopping import StoppedError, stopping_cleanly
from transforms.catalog.rows.dumps import missing_failures, settle_between_archives
from transforms.elements import (
    ArchiveRef,
    CallPlan,
    ExtractedTrack,
    Failure,
    FragmentRef,
    Stage,
    TrackPart,
    TrackSource,
    is_about_any,
    to_failure,
)
from transforms.engine import progress
from transforms.filters import Filters
from transforms.media.errors import (
    CallpressError,
    ConfigError,
    RecordingError,
    StorageError,
    exhausted_resource,
)
from transforms.media.settings import PressSettings
from transforms.media.text import printable, spelled_utf8, without_secrets
from transforms.media.units import SAMPLE_RATE_HZ
from transforms.media.values import CallKey
from transforms.pressing.extract import Extraction, Publish, extract, track_failure
from transforms.pressing.mix import complete, mix, silent_accounts, tracks_of
from transforms.pressing.plan_call import plan_call
from transforms.pressing.unpack import failures_of, failures_of_unusable, unpack
from transforms.storage import objects, uris

_NO_ROWS = FragmentRef(uri="", row_counts=())
_MOST_NAMED = 20
"""Of what there is, where what was asked for is not."""


def press_archives(arguments: PressArguments, settings: PressSettings) -> int:
    """Makes what was asked for, and tells each file on standard output and each thing that is wrong
    on standard error; returns the exit status, 1 when anything is wrong.

    Raises:
      ConfigError: a place cannot be reached as it is spelled.
    """
    work = _Work(arguments, settings)
    try:
        with (
            _temporary_folder() as staging,
            stopping_cleanly(work.farewell, ends_with_terminal=True) as stopper,
            showing_progress_on_terminal() as clear_line,
        ):
            work.do(str(staging), clear_line)
    except StoppedError:
        stopper.leave()
    except ConfigError:
        raise
    except CallpressError as error:
        work.tell("", str(error))
    except OSError as error:
        what = exhausted_resource(error)
        if what is None:
            raise
        work.tell("", what)
    return 1 if work.has_failed else 0


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Gives a folder for packets and files being made, gone when the block has ended."""
    try:
        folder = tempfile.mkdtemp(prefix="callpress-")
    except OSError as error:
        raise StorageError(
            f"no place for temporary files ({error.strerror}), expected one that can be written: "
            "TMPDIR names another"
        ) from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Call(NamedTuple):
    """What the archives have of a call session."""

    parts: list[TrackPart]
    failures: list[Failure]


class _PlannedCall(NamedTuple):
    """A call session before anything is made of it."""

    parts: list[TrackPart]
    plan: CallPlan
    failures: list[Failure]


class _Work:
    """What a command has to do, and what came of it."""

    def __init__(self, arguments: PressArguments, settings: PressSettings) -> None:
        wanted = arguments.wanted
        self._patterns = arguments.archives
        self._output = uris.folder(arguments.output)
        self._makes_files = wanted is not Wanted.MIX
        self._makes_mix = wanted is not Wanted.AUDIO
        self._has_profile = arguments.config is not None
        self._filters = arguments.filters
        # A mix has everybody, so all tracks are looked into for one.
        self._plan_filters = Filters() if self._makes_mix else arguments.filters
        # What the command is asked for it makes. What else a profile has is counted still: all
        # files of a call share what its archives allow.
        individual, composite = settings.individual, settings.composite
        if self._makes_files:
            individual = replace(individual, enabled=True)
        if self._makes_mix:
            composite = replace(composite, enabled=True)
        self._settings = replace(settings, individual=individual, composite=composite)
        self._made: dict[str, CallKey] = {}
        self._has_files = False
        self._clear_line: Callable[[], None] = lambda: None
        self.has_failed = False

    def farewell(self) -> str:
        """Returns what to say when it was stopped."""
        made = len(self._made)
        whole = "no file" if not made else "1 whole file" if made == 1 else f"{made} whole files"
        return f"callpress: stopped; {whole} made"

    def do(self, staging_uri: str, clear_line: Callable[[], None]) -> None:
        """Makes all of it.

        Args:
          staging_uri: the folder for packets and files being made.
          clear_line: takes away what else stands on the line, before one is printed.

        Raises:
          CallpressError: nothing more can be made.
        """
        self._clear_line = clear_line
        archive_inputs.reach(self._patterns, self._output)
        refs = list(self._refer())
        if not refs:
            return
        self._prepare_output()
        progress.add("archives_found", len(refs))
        progress.add("bytes_found", sum(ref.size_bytes for ref in refs))
        calls: dict[CallKey, _Call] = {}
        for ref in refs:
            self._unpack(ref, staging_uri, calls)
            progress.add("archives")
        self._refuse_nameless(part for call in calls.values() for part in call.parts)
        planned = [self._plan(calls[key]) for key in sorted(calls)]
        progress.add("calls_found", len(planned))
        sources = [source for call in planned for source in call.plan.sources]
        progress.add("samples_found", sum(source.media_samples for source in sources))
        for each in planned:
            self._press(each, staging_uri)
            progress.add("calls")
        if not (self._has_files if self._makes_files else self._made) and not self.has_failed:
            what = "no individual file" if self._made else "nothing"
            left_out = ", or all of it is left out by --config" if self._has_profile else ""
            self.tell("", f"{what} was made: nothing of what was asked for was sent{left_out}")

    def _prepare_output(self) -> None:
        """Makes the folder, where its store has folders. Raises: StorageError."""
        try:
            objects.prepare_folder(self._output)
            objects.check_reachable(self._output)
        except StorageError as error:
            if objects.can_be_down(self._output):
                raise
            why = error.message.removeprefix(f"{self._output}: ")
            raise StorageError(f"{self._output}: cannot be written: {why}") from None

    def _refer(self) -> Iterator[ArchiveRef]:
        """Yields the archives that were named, each once; tells of what is none."""
        named: dict[str, NamedArchive] = {}
        for pattern in self._patterns:
            try:
                for each in archive_inputs.find(pattern):
                    named.setdefault(each.listed.uri, each)
            except RecordingError as error:
                self.tell("", error.message)
        for uri, each in named.items():
            if each.listed.error is not None:
                self.tell(uri, each.listed.error.message)
                continue
            yield ArchiveRef(
                uri=uri,
                size_bytes=each.listed.size_bytes,
                modified_unix_ns=each.listed.modified_unix_ns,
                fingerprint=each.listed.fingerprint,
                link=each.link,
            )

    def _unpack(self, ref: ArchiveRef, staging_uri: str, calls: dict[CallKey, _Call]) -> None:
        """Adds what an archive has to its calls."""
        try:
            unpacked, parts, _ = unpack(ref, self._settings.limits, self._filters, staging_uri)
        except RecordingError as error:
            self._tell_all(failures_of_unusable(ref, error))
            return
        for part in parts:
            calls.setdefault(part.call, _Call([], [])).parts.append(part)
        failures = failures_of(ref, unpacked, self._plan_filters)
        if not failures and not any(part.packets_uri for part in parts):
            self.tell(ref.uri, "nothing was sent in it")
        for failure in failures:
            if failure.call in calls:
                calls[failure.call].failures.append(failure)
            else:
                self._tell_all([failure])

    def _refuse_nameless(self, parts: Iterable[TrackPart]) -> None:
        """Tells what was asked for and is in no archive, and what there is in its place."""
        if not self._filters.narrows_tracks:
            return
        parts = list(parts)
        matched = {name for part in parts for name in self._filters.matched_by(part.names)}
        there = {
            "--participant": ("--user-id", {part.participant_id for part in parts}),
            "--user-session": ("--session-id", {part.user_session_id for part in parts}),
            "--track-id": ("--track-id", {each for part in parts for each in part.track_ids}),
        }
        for flag, value in sorted(self._filters.all_named - matched):
            ours, known = there[flag]
            if value in known:
                others = (
                    f"{there[other][0]} {' or '.join(values)}"
                    for other, values in self._filters.named.items()
                    if other != flag
                )
                message = f"there, but no file of it is also of {' and '.join(others)}"
            else:
                names = sorted(known)
                more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
                listed = ", ".join(names[:_MOST_NAMED]) + more or "none"
                message = f"not in these archives; there are: {listed}"
            self.tell("", f"{ours} {value}: {message}")

    def _plan(self, call: _Call) -> _PlannedCall:
        """Returns what is to be made of a call session."""
        parts = sorted(call.parts, key=lambda part: (part.first_server_unix_ns, part.archive_uri))
        plan, failures = plan_call(parts, None, (), self._settings, self._plan_filters)
        return _PlannedCall(parts, plan, [*call.failures, *failures])

    def _press(self, call: _PlannedCall, staging_uri: str) -> None:
        """Makes the files of a call session, and tells what is wrong with it."""
        parts, plan, failures = call
        tracks: list[ExtractedTrack] = []
        for source in plan.sources:
            try:
                extraction = extract(
                    source, self._settings, staging_uri, self._publish_of(source, parts)
                )
            except RecordingError as error:
                failures.append(track_failure(source, error))
                continue
            finally:
                progress.add("samples_extracted", source.media_samples)
            tracks.append(extraction.track(_NO_ROWS))
            failures += extraction.failures
            self._tell_files(extraction)
        if plan.is_narrowed:
            wanted = tracks_of(plan)
            failures = [failure for failure in failures if is_about_any(failure, wanted)]
        failures, _ = complete(plan, failures)
        if self._makes_mix:
            failures += self._mix(plan, tracks, staging_uri)
        silent = settle_between_archives(silent_accounts(plan, tracks))
        failures += missing_failures(Stage.MIX_CALLS, silent, self._settings)
        self._tell_all(failures)

    def _publish_of(self, source: TrackSource, parts: Sequence[TrackPart]) -> Publish | None:
        """Returns what takes the files of a track; None where none is wanted."""
        track_ids = {
            each for part in parts if part.track == source.track for each in part.track_ids
        }
        if self._makes_files and self._filters.wants_track(source.track, track_ids):
            return self._publish_for(source.track.call)
        return None

    def _publish_for(self, call: CallKey) -> Publish:
        """Returns what moves the files of a call session to the output."""

        def publish(name: str, made: Path) -> str:
            other = self._made.setdefault(name, call)
            if other != call:
                raise StorageError(
                    f"{name}: would replace the file of the same name of session "
                    f"{other.call_session_id}, made a moment ago; press the archives of session "
                    f"{call.call_session_id} into another folder"
                )
            uri = uris.join(self._output, name)
            try:
                objects.move(uri, made)
            except StorageError:
                del self._made[name]
                raise
            return uri

        return publish

    def _mix(
        self, plan: CallPlan, tracks: Sequence[ExtractedTrack], staging_uri: str
    ) -> Iterable[Failure]:
        """Makes the mix of a call; yields why there is none."""
        if not tracks:
            return
        done = mix(
            plan,
            tracks,
            1,  # on a desk nobody waits for the other cores, and somebody for the mix
            self._settings,
            staging_uri,
            self._publish_for(plan.call),
            measures=False,
        )
        if done.lost is not None:
            yield to_failure(Stage.MIX_CALLS, done.lost, call=plan.call)
        elif done.mixed is not None and done.mixed.mix is not None:
            file = done.mixed.mix.file
            self._tell_file(done.uri, file.duration_samples, file.size_bytes)
        else:
            yield to_failure(
                Stage.MIX_CALLS,
                RecordingError("no mix is made: nothing of the call can be heard in one"),
                call=plan.call,
            )

    # --- telling ----------------------------------------------------------------------------------

    def _tell_files(self, extraction: Extraction) -> None:
        for lane in extraction.lanes:
            if lane.file is not None:
                self._has_files = True
                uri = extraction.places[lane.lane]
                self._tell_file(uri, lane.file.duration_samples, lane.file.size_bytes)

    def _tell_file(self, uri: str, samples: int, size_bytes: int) -> None:
        name = uri.rsplit("/", 1)[-1]
        self._clear_line()
        print(
            f"{printable(name)}  {samples / SAMPLE_RATE_HZ:.3f} s  {size_bytes} bytes", flush=True
        )

    def _tell_all(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            whose = failure.call.cid if failure.call else ""
            self.tell(failure.archive_uri or whose, failure.message)

    def tell(self, where: str, message: str) -> None:
        """Tells one thing that is wrong. Args: where: an archive or a call; empty for neither."""
        self.has_failed = True
        where = spelled_utf8(where)
        line = message if not where or message.startswith(f"{where}: ") else f"{where}: {message}"
        self._clear_line()
        telling.tell(printable(without_secrets(line)), "ERROR")
