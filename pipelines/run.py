"""Checks what `callpress run` was asked for, runs it, and judges how it went."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.runner import create_runner

from pipelines import press, run_summary
from pipelines.options import EXIT_FAILED, RunArguments, StrictParser, refuse_unknown
from pipelines.progress_display import showing_progress
from pipelines.runners.local import StoppedError, is_local, make_local_pipeline, stopping_cleanly
from transforms.catalog import pending_replacement
from transforms.catalog.lock import CatalogLock, LockLostError
from transforms.context import JobSettings, RunIdentity
from transforms.elements import Status
from transforms.media.errors import CallpressError, ConfigError, StorageError, StoreDownError
from transforms.media.opus.libopus import load_libopus
from transforms.media.settings import PressSettings
from transforms.recovery import take_up
from transforms.sources import archive_files
from transforms.storage import objects, uris
from transforms.storage.errors import describe_error

logger = logging.getLogger(__name__)

_STEP = re.compile(r" \[while running '[^']*'\]")
_TROUBLE = re.compile(
    r"\btransforms(?:\.\w+)+\.(?:StorageError|StoreDownError|LockLostError): (.*)"
)


class NothingToDoError(CallpressError):
    """No archive matches, or the output cannot be written."""


def run(arguments: RunArguments, settings: PressSettings) -> int:
    """Runs the main job; returns its exit status.

    Raises:
      UsageError, ConfigError: found before any work.
      CallpressError: nothing matched, the output cannot be written, or another run holds the lock.
    """
    started_unix_ns = time.time_ns() // 1_000 * 1_000  # the tables hold microseconds
    started = datetime.fromtimestamp(started_unix_ns // 1_000_000_000, UTC)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    log_file = set_up_logging(arguments, run_id)
    options = beam_options(arguments.beam_args)
    local = is_local(options.view_as(StandardOptions).runner)
    output = uris.absolute(arguments.output.rstrip("/"))
    catalog = uris.absolute((arguments.catalog or uris.join(output, "catalog")).rstrip("/"))
    staging_root = _staging_root(
        options.view_as(GoogleCloudOptions).temp_location, local, output, catalog
    )
    load_libopus()
    FileSystems.set_options(options)
    objects.find_credentials((*arguments.inputs, output, catalog, staging_root))
    check_inputs(arguments.inputs)
    _check_writable(output, catalog, staging_root, arguments.summary_json)
    job = JobSettings(
        output_uri=output,
        catalog_uri=catalog,
        settings=settings,
        filters=arguments.filters,
        overwrite=arguments.overwrite,
        threads=_codec_processes(arguments.beam_args, options) if local else 1,
        must_hold_lock=True,
    )
    identity = RunIdentity(
        run_id=run_id,
        started_unix_ns=started_unix_ns,
        staging_uri=uris.join(staging_root, run_id),
    )
    farewell = (
        f"callpress: run {run_id} stopped. The same command again takes up the calls that are "
        "finished and presses the others."
    )
    lock: CatalogLock | None = None
    try:
        with stopping_cleanly(farewell) as stopper:
            lock = CatalogLock(catalog, run_id, on_lost=stopper.stop)
            try:
                lock.acquire()
            except StorageError as error:
                raise _refusal(f"--catalog {catalog}", catalog, error) from None
            objects.delete_partials(catalog)
            if taken := take_up.take_up(staging_root, job, identity):
                print(
                    f"callpress: took up {taken} calls that an earlier run had finished before it "
                    "ended",
                    file=sys.stderr,
                )
            repeat = pending_replacement.archives_to_repeat(catalog)
            identity = replace(identity, repeat_archives=repeat)
            return _press(arguments, job, identity, options, local, staging_root)
    except StoppedError:
        with contextlib.suppress(CallpressError):
            take_up.keep_completed_work(identity)
            _remove_empty(staging_root)
        if lock is not None:
            lock.release()
        stopper.leave()
    except Exception as error:
        if (line := _trouble_of(error)) is not None:
            logger.warning("run %s failed: %s", run_id, line)
            print(f"callpress: run {run_id} failed: {line}", file=sys.stderr)
            print(
                "callpress: what is published stands; the same command again goes on from there",
                file=sys.stderr,
            )
            return EXIT_FAILED
        if isinstance(error, CallpressError):
            raise
        logger.exception("run %s failed", run_id)
        line = describe_error(error)
        print(f"callpress: run {run_id} failed: {type(error).__name__}: {line}", file=sys.stderr)
        print(
            f"callpress: this is a bug or a broken installation; the log is {log_file or 'above'}",
            file=sys.stderr,
        )
        return EXIT_FAILED
    finally:
        if lock is not None:
            lock.release()


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


def _press(
    arguments: RunArguments,
    job: JobSettings,
    identity: RunIdentity,
    options: PipelineOptions,
    local: bool,
    staging_root: str,
) -> int:
    clock = time.monotonic()
    # Other engines report no progress to this process; what they print of their own stays visible.
    with showing_progress(job.threads) if local else contextlib.nullcontext():
        pipeline = make_local_pipeline(options) if local else beam.Pipeline(options=options)
        inputs = [uris.absolute(pattern) for pattern in arguments.inputs]
        press.build(pipeline, inputs, job, identity)
        running = pipeline.run()
        try:
            running.wait_until_finish()
        except StoppedError:
            with contextlib.suppress(Exception):
                running.cancel()  # a job elsewhere would go on without the lock
            raise
    result: dict[str, Any] = json.loads(objects.read_bytes(identity.staged("result.json")))
    exit_status = EXIT_FAILED if result["status"] == Status.FAILED else 0
    summary = run_summary.summarise(result, exit_status, time.process_time())
    if arguments.summary_json:
        objects.write_bytes(
            uris.absolute(arguments.summary_json), json.dumps(summary, indent=2).encode() + b"\n"
        )
    objects.delete_below(identity.staging_uri)
    _remove_empty(staging_root)
    run_summary.print_summary(summary, time.monotonic() - clock, job.output_uri, job.catalog_uri)
    if exit_status:
        limit = job.settings.max_failed_ratio
        print(
            f"callpress: more than {limit:.0%} of the archives failed or are partial "
            "(max_failed_ratio)",
            file=sys.stderr,
        )
    return exit_status


def set_up_logging(arguments: RunArguments, run_id: str) -> str | None:
    """Sends the log to the terminal (-v) or a file, never both by itself; returns the file."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    logging.getLogger("apache_beam.typehints").setLevel(
        logging.WARNING
    )  # a line per annotation it leaves alone
    if arguments.verbose:
        terminal = logging.StreamHandler()
        terminal.setFormatter(run_summary.LogFormatter())
        root.addHandler(terminal)
        root.setLevel(logging.INFO)
        return None
    path = arguments.log_file or os.path.join(tempfile.gettempdir(), f"callpress-{run_id}.log")
    try:
        # Without being asked for, a log is only there when there is something to tell.
        handler = logging.FileHandler(path, delay=arguments.log_file is None)
    except OSError as error:
        raise ConfigError(f"--log-file {path}: {error.strerror}") from None
    handler.setFormatter(run_summary.LogFormatter())
    root.addHandler(handler)
    root.setLevel(logging.INFO if arguments.log_file else logging.WARNING)
    logging.captureWarnings(True)
    return path


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options.

    Raises:
      UsageError: a flag that no runner knows, a word that belongs to none, or a value that cannot
        be.
      ConfigError: no such runner.
    """
    parser = StrictParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for kind in PipelineOptions.__subclasses__():
        add = getattr(kind, "_add_argparse_args", None)
        if add is not None:
            add(parser)
    _, strays = parser.parse_known_args(list(arguments))
    refuse_unknown(strays, {flag for action in parser._actions for flag in action.option_strings})
    options = PipelineOptions(list(arguments))
    runner = options.view_as(StandardOptions).runner
    if not is_local(runner):
        try:
            create_runner(runner)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"--runner {runner}: {str(error).split(chr(10))[0]}") from None
    return options


def _codec_processes(beam_args: Sequence[str], options: PipelineOptions) -> int:
    """Returns how many codec processes a local run keeps busy: as many as there are cores, or as it
    was told.
    """
    told = any(argument.startswith("--direct_num_workers") for argument in beam_args)
    if told and (count := options.view_as(DirectOptions).direct_num_workers) > 0:
        return int(count)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _staging_root(temp_location: str | None, local: bool, output: str, catalog: str) -> str:
    """Returns the folder for all runs over one catalog; each run has its own inside.

    Raises:
      ConfigError: an engine with workers elsewhere was given no `--temp_location`.
    """
    name = "callpress-" + hashlib.sha256(catalog.encode()).hexdigest()[:12]
    if temp_location:
        return uris.join(uris.absolute(temp_location), name)
    if not local:
        raise ConfigError(
            "--temp_location is needed with --runner: a place that all workers can read and write"
        )
    return objects.default_staging(output, name)


def _check_writable(output: str, catalog: str, staging_root: str, summary_json: str | None) -> None:
    """Raises: NothingToDoError, StorageError: a place cannot be written."""
    for folder in (output, catalog, staging_root):
        _prepare_folder(folder)
        objects.check_reachable(folder)
    if summary_json:
        _prepare_folder(os.path.dirname(uris.absolute(summary_json)))


def _prepare_folder(folder: str) -> None:
    try:
        objects.prepare_folder(folder)
    except StorageError as error:
        raise _refusal(folder, folder, error) from None


def _refusal(what: str, uri: str, error: StorageError) -> CallpressError:
    """Returns the error to end with when a place cannot be written: a store that can be down speaks
    for itself, a disk is the operator's to mend.
    """
    if objects.can_be_down(uri):
        return error
    why = describe_error(error.__cause__ or error)
    return NothingToDoError(f"{what}: cannot be written: {why}")


def check_inputs(patterns: Sequence[str]) -> None:
    reasons = [archive_files.why_nothing_matches(pattern) for pattern in patterns]
    if all(reasons):
        raise NothingToDoError(
            f"nothing to press: {'; '.join(reason for reason in reasons if reason)}"
        )
    for reason in filter(None, reasons):
        print(f"callpress: warning: {reason}", file=sys.stderr)


def _remove_empty(staging_root: str) -> None:
    # Other runs, or those over another catalog, may be at work beside.
    if objects.delete_empty_folder(staging_root):
        objects.delete_empty_folder(os.path.dirname(staging_root))
