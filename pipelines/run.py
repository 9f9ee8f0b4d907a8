"""`callpress run`: checks what was asked for, runs it, and judges how it went."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NoReturn

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions

from pipelines import places, press, run_summary
from pipelines.beam_options import beam_options, engine_of
from pipelines.ending import Ending, Reason, check_summary_json, reason_of
from pipelines.logs import set_up_logging
from pipelines.options import EXIT_FAILED, RunArguments
from pipelines.runners.engine import Engine
from pipelines.stopping import StoppedError, Stopper, stopping_cleanly
from transforms.catalog import pending_replacement
from transforms.catalog.lock import CatalogLock
from transforms.catalog.repressing import Repressing, tell
from transforms.context import JobSettings, RunIdentity
from transforms.elements import Status
from transforms.media.errors import CallpressError, StorageError, exhausted_resource
from transforms.media.opus.libopus import load_libopus
from transforms.media.settings import PressSettings
from transforms.media.text import printable
from transforms.media.wall_time import to_time
from transforms.recovery import repair, take_up
from transforms.storage import objects, uris
from transforms.storage.errors import describe_error
from transforms.write_catalog import too_many_failed

logger = logging.getLogger(__name__)

_STEP = re.compile(r" \[while running '[^']*'\]")
_TROUBLE_REASONS = {
    "StorageError": Reason.STORAGE_DOWN,
    "StoreDownError": Reason.STORAGE_DOWN,
    "LockLostError": Reason.LOCK_LOST,
}
_TROUBLE = re.compile(rf"\btransforms(?:\.\w+)+\.({'|'.join(_TROUBLE_REASONS)}): (.*)")
_TOLD_AS_FAILED = (Reason.STORAGE_DOWN, Reason.LOCK_LOST, Reason.ENGINE_DOWN)
"""What ends a run amid its work: no fault of what was asked for, nor of the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A run that may begin."""

    arguments: RunArguments
    inputs: tuple[str, ...]
    job: JobSettings
    identity: RunIdentity
    engine: Engine
    staging_root: str


def run(arguments: RunArguments, settings: PressSettings, ending: Ending) -> int:
    """Runs the main job; returns its exit status.

    Args:
      arguments, settings: what was asked for.
      ending: what programs are told at the end.

    Raises:
      UsageError, ConfigError: found before any work.
      CallpressError: nothing matched, the output cannot be written, or another run holds the lock.
    """
    started_unix_ns = time.time_ns() // 1_000 * 1_000  # the tables hold microseconds
    run_id = _new_run_id(started_unix_ns)
    ending.began(run_id, started_unix_ns)
    log_file = set_up_logging(arguments, run_id)
    prepared = _prepare(arguments, settings, run_id, started_unix_ns)
    farewell = (
        f"callpress: run {run_id} stopped. The same command again takes up the calls that are "
        "finished and presses the others."
    )
    lock: CatalogLock | None = None
    try:
        with stopping_cleanly(farewell, lambda status: _close(ending, stopper, status)) as stopper:
            lock = CatalogLock(prepared.job.catalog_uri, run_id, on_lost=stopper.stop)
            _acquire(lock, prepared.job.catalog_uri)
            return _press(_after_dead_runs(prepared), ending)
    except StoppedError:
        _leave(prepared, lock, stopper)
    except Exception as error:
        ending.reason, line = _cause_of(error)
        if not _tell(run_id, error, ending.reason, line, log_file):
            raise
        return EXIT_FAILED
    finally:
        if lock is not None:
            lock.release()


def _close(ending: Ending, stopper: Stopper, status: int) -> None:
    ending.close(status, Reason.CANCELLED if stopper.is_interrupted else Reason.LOCK_LOST)


def _new_run_id(started_unix_ns: int) -> str:
    started = datetime.fromtimestamp(started_unix_ns // 1_000_000_000, UTC)
    return f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _prepare(
    arguments: RunArguments, settings: PressSettings, run_id: str, started_unix_ns: int
) -> _Prepared:
    """Finds out all that can be wrong before any work. Raises: as `run`."""
    check_summary_json(arguments.summary_json)
    options = beam_options(arguments.beam_args)
    engine = engine_of(options, arguments.beam_args)
    where = places.places_of(arguments)
    root = places.staging_root(
        where,
        options.view_as(GoogleCloudOptions).temp_location,
        shares_this_machine=engine.shares_this_machine,
    )
    load_libopus()
    FileSystems.set_options(options)
    objects.find_credentials(
        (*where.inputs, where.output_uri, where.catalog_uri, root, *where.own_uris)
    )
    places.check_apart(where)
    places.check_inputs(arguments.inputs)
    places.check_writable(where, root, arguments.summary_json)
    return _Prepared(
        arguments=arguments,
        inputs=where.inputs,
        job=job_settings(arguments, settings, where, engine),
        identity=RunIdentity(
            run_id=run_id,
            started_unix_ns=started_unix_ns,
            staging_uri=uris.join(root, run_id),
        ),
        engine=engine,
        staging_root=root,
    )


def job_settings(
    arguments: RunArguments, settings: PressSettings, where: places.Places, engine: Engine
) -> JobSettings:
    """Returns what a command line asks for, as the steps know it."""
    return JobSettings(
        output_uri=where.output_uri,
        catalog_uri=where.catalog_uri,
        settings=settings,
        filters=arguments.filters,
        overwrite=arguments.overwrite,
        repress=arguments.repress,
        threads=engine.codec_processes,
        own_uris=where.own_uris,
        must_hold_lock=True,
    )


def _acquire(lock: CatalogLock, catalog_uri: str) -> None:
    """Takes the lock. Raises: LockHeldError, and UnwritableError or StorageError: cannot write."""
    try:
        lock.acquire()
    except StorageError as error:
        raise places.refusal(f"--catalog {catalog_uri}", catalog_uri, error) from None


def _after_dead_runs(prepared: _Prepared) -> _Prepared:
    """Puts to rights what runs before this one left, and returns it knowing what to repeat."""
    catalog_uri = prepared.job.catalog_uri
    objects.delete_partials(catalog_uri)
    taken = take_up.take_up(prepared.staging_root, prepared.job, prepared.identity)
    if taken.calls:
        print(
            f"callpress: took up {taken.calls} calls that an earlier run had finished before it "
            "ended",
            file=sys.stderr,
        )
    for line in repair.what_is_repeated(catalog_uri):
        print(f"callpress: {printable(line)}", file=sys.stderr)
    repeat = pending_replacement.archives_to_repeat(catalog_uri)
    identity = replace(prepared.identity, repeat_archives=repeat, taken_up=taken.archives)
    return replace(prepared, identity=identity)


def _press(prepared: _Prepared, ending: Ending) -> int:
    """Runs the job and tells how it went; returns the exit status."""
    job, identity = prepared.job, prepared.identity
    clock = time.monotonic()
    prepared.engine.run(lambda pipeline: press.build(pipeline, prepared.inputs, job, identity))
    result: dict[str, Any] = json.loads(objects.read_bytes(identity.staged("result.json")))
    reason, lines = _judge(result, job)
    exit_status = 0 if reason is Reason.OK else EXIT_FAILED
    summary = run_summary.summarise(result, exit_status, reason, time.process_time())
    ending.write(summary)
    objects.delete_below(identity.staging_uri)
    places.delete_staging_root_if_empty(prepared.staging_root)
    run_summary.print_summary(summary, time.monotonic() - clock, job.output_uri, job.catalog_uri)
    places.tell_left_out(result["counts"].get("left_out", 0))
    for line in lines:
        print(f"callpress: {line}", file=sys.stderr)
    return exit_status


def _judge(result: Mapping[str, Any], job: JobSettings) -> tuple[Reason, list[str]]:
    """Returns why a run that came to its end has its exit status, and what to tell of it."""
    found: list[tuple[Reason, str]] = []
    if why := too_many_failed(result["counts"], job.settings):
        found.append((Reason.TOO_MANY_FAILED, why))
    for name in result["unmatched"]:
        near = f"; there are {', '.join(name['nearest'])}" if name["nearest"] else ""
        line = f"{name['flag']} {name['value']} matches nothing{near}"
        found.append((Reason.NOTHING_MATCHED, printable(line)))
    lines = [line for _, line in found]
    if result["repress"]:
        repressing = Repressing(**result["repress"])
        lines.append(tell(repressing))
        if repressing.is_refused:
            found.append((Reason.REPRESS_NEEDED, lines[-1]))
    if not lines and (quiet := _quiet_night(result["counts"], job)):
        lines.append(quiet)
    return found[0][0] if found else Reason.OK, lines


def _quiet_night(counts: Mapping[str, int], job: JobSettings) -> str:
    """Returns what to tell of a run that found nothing to do, empty for any other."""
    if any(counts.get(f"archives_{status}") for status in Status):
        return ""
    if listed := counts.get("archives_listed", 0):
        return f"nothing new: the catalog has all of the {listed} archives"
    since = job.filters.since_unix_ns
    return (
        "" if since is None else f"nothing new: no archive is newer than {to_time(since)} (--since)"
    )


def _leave(prepared: _Prepared, lock: CatalogLock | None, stopper: Stopper) -> NoReturn:
    """Ends the process of a run that was stopped, and keeps what the next one can take up."""
    with contextlib.suppress(CallpressError):
        take_up.keep_completed_work(prepared.identity)
        places.delete_staging_root_if_empty(prepared.staging_root)
    if lock is not None:
        lock.release()
    stopper.leave()


def _tell(run_id: str, error: Exception, reason: Reason, line: str, log_file: str | None) -> bool:
    """Tells the operator what ended a run; returns False for what the command tells by itself.

    Args:
      run_id: of the run.
      error: what ended it.
      reason, line: what `_cause_of` makes of that.
      log_file: where the log is.
    """
    if reason in _TOLD_AS_FAILED and not isinstance(error, places.UnwritableError):
        logger.warning("run %s failed: %s", run_id, line)
        print(f"callpress: run {run_id} failed: {line}", file=sys.stderr)
        print(
            "callpress: what is published stands; the same command again goes on from there",
            file=sys.stderr,
        )
        return True
    if isinstance(error, CallpressError):
        return False
    logger.exception("run %s failed", run_id)
    if reason is Reason.EXHAUSTED:
        print(
            f"callpress: run {run_id} failed: {line}; give it more, or start fewer codec processes "
            "(--direct_num_workers)",
            file=sys.stderr,
        )
        return True
    print(f"callpress: run {run_id} failed: {type(error).__name__}: {line}", file=sys.stderr)
    print(
        f"callpress: this is a bug or a broken installation; the log is {log_file or 'above'}",
        file=sys.stderr,
    )
    return True


def _cause_of(error: Exception) -> tuple[Reason, str]:
    """Returns why a run ended, and the line for it.

    Other engines than the local one hand on no exceptions, but their text.
    """
    if isinstance(error, CallpressError):
        return reason_of(error), _STEP.sub("", str(error)).split("\n", 1)[0]
    if found := _TROUBLE.findall(str(error)):
        name, line = found[-1]
        return _TROUBLE_REASONS[name], _STEP.sub("", line)
    if (what := exhausted_resource(error)) is not None:
        return Reason.EXHAUSTED, what
    return Reason.BUG, describe_error(error)
