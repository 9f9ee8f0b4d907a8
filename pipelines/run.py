"""`callpress run`: checks what was asked for, runs it, and judges how it went."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NoReturn

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions

from pipelines import places, press, run_summary
from pipelines.beam_options import beam_options, engine_of
from pipelines.logs import set_up_logging
from pipelines.options import EXIT_FAILED, RunArguments
from pipelines.runners.engine import Engine
from pipelines.stopping import StoppedError, Stopper, stopping_cleanly
from transforms.catalog import pending_replacement
from transforms.catalog.lock import CatalogLock, LockLostError
from transforms.context import JobSettings, RunIdentity
from transforms.elements import Status
from transforms.media.errors import CallpressError, StorageError, StoreDownError, exhausted_resource
from transforms.media.opus.libopus import load_libopus
from transforms.media.settings import PressSettings
from transforms.media.text import printable
from transforms.recovery import repair, take_up
from transforms.storage import objects, uris
from transforms.storage.errors import describe_error
from transforms.write_catalog import too_many_failed

logger = logging.getLogger(__name__)

_STEP = re.compile(r" \[while running '[^']*'\]")
_TROUBLE = re.compile(
    r"\btransforms(?:\.\w+)+\.(?:StorageError|StoreDownError|LockLostError): (.*)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A run that may begin."""

    arguments: RunArguments
    inputs: tuple[str, ...]
    job: JobSettings
    identity: RunIdentity
    engine: Engine
    staging_root: str


def run(arguments: RunArguments, settings: PressSettings) -> int:
    """Runs the main job; returns its exit status.

    Raises:
      UsageError, ConfigError: found before any work.
      CallpressError: nothing matched, the output cannot be written, or another run holds the lock.
    """
    started_unix_ns = time.time_ns() // 1_000 * 1_000  # the tables hold microseconds
    run_id = _new_run_id(started_unix_ns)
    log_file = set_up_logging(arguments, run_id)
    prepared = _prepare(arguments, settings, run_id, started_unix_ns)
    farewell = (
        f"callpress: run {run_id} stopped. The same command again takes up the calls that are "
        "finished and presses the others."
    )
    lock: CatalogLock | None = None
    try:
        with stopping_cleanly(farewell) as stopper:
            lock = CatalogLock(prepared.job.catalog_uri, run_id, on_lost=stopper.stop)
            _acquire(lock, prepared.job.catalog_uri)
            return _press(_after_dead_runs(prepared))
    except StoppedError:
        _leave(prepared, lock, stopper)
    except Exception as error:
        if not _tell(run_id, error, log_file):
            raise
        return EXIT_FAILED
    finally:
        if lock is not None:
            lock.release()


def _new_run_id(started_unix_ns: int) -> str:
    started = datetime.fromtimestamp(started_unix_ns // 1_000_000_000, UTC)
    return f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _prepare(
    arguments: RunArguments, settings: PressSettings, run_id: str, started_unix_ns: int
) -> _Prepared:
    """Finds out all that can be wrong before any work. Raises: as `run`."""
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
        threads=engine.codec_processes,
        own_uris=where.own_uris,
        must_hold_lock=True,
    )


def _acquire(lock: CatalogLock, catalog_uri: str) -> None:
    """Takes the lock. Raises: LockHeldError, and NothingToDoError or StorageError: cannot write."""
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


def _press(prepared: _Prepared) -> int:
    """Runs the job and tells how it went; returns the exit status."""
    job, identity = prepared.job, prepared.identity
    clock = time.monotonic()
    prepared.engine.run(lambda pipeline: press.build(pipeline, prepared.inputs, job, identity))
    result: dict[str, Any] = json.loads(objects.read_bytes(identity.staged("result.json")))
    exit_status = EXIT_FAILED if result["status"] == Status.FAILED else 0
    summary = run_summary.summarise(result, exit_status, time.process_time())
    if prepared.arguments.summary_json:
        objects.write_bytes(
            uris.absolute(prepared.arguments.summary_json),
            json.dumps(summary, indent=2).encode() + b"\n",
        )
    objects.delete_below(identity.staging_uri)
    places.delete_staging_root_if_empty(prepared.staging_root)
    run_summary.print_summary(summary, time.monotonic() - clock, job.output_uri, job.catalog_uri)
    places.tell_left_out(result["counts"].get("left_out", 0))
    if why := too_many_failed(result["counts"], job.settings):
        print(f"callpress: {why}", file=sys.stderr)
    return exit_status


def _leave(prepared: _Prepared, lock: CatalogLock | None, stopper: Stopper) -> NoReturn:
    """Ends the process of a run that was stopped, and keeps what the next one can take up."""
    with contextlib.suppress(CallpressError):
        take_up.keep_completed_work(prepared.identity)
        places.delete_staging_root_if_empty(prepared.staging_root)
    if lock is not None:
        lock.release()
    stopper.leave()


def _tell(run_id: str, error: Exception, log_file: str | None) -> bool:
    """Tells the operator what ended a run; returns False for what the command tells by itself."""
    if (line := _trouble_of(error)) is not None:
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
    if (what := exhausted_resource(error)) is not None:
        print(
            f"callpress: run {run_id} failed: {what}; give it more, or start fewer codec processes "
            "(--direct_num_workers)",
            file=sys.stderr,
        )
        return True
    line = describe_error(error)
    print(f"callpress: run {run_id} failed: {type(error).__name__}: {line}", file=sys.stderr)
    print(
        f"callpress: this is a bug or a broken installation; the log is {log_file or 'above'}",
        file=sys.stderr,
    )
    return True


def _trouble_of(error: Exception) -> str | None:
    """Returns what an operator is to know of a run that storage or another run ended; None when
    that is not what ended it.

    Other engines than the local one hand on no exceptions, but their text.
    """
    if isinstance(error, StorageError | StoreDownError | LockLostError):
        return _STEP.sub("", str(error)).split("\n", 1)[0]
    if isinstance(error, CallpressError):
        return None
    found = _TROUBLE.findall(str(error))
    return _STEP.sub("", found[-1]) if found else None
