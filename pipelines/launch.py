"""Checks what `callpress run` was asked for, runs it, and judges how it went."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)

from pipelines import press, report
from pipelines.cli import EXIT_FAILED
from pipelines.local_runner import LOCAL_RUNNERS, StoppedError, make_local_pipeline, stopping_cleanly
from pipelines.options import RunArguments, refuse_unknown_flags
from pipelines.settings import load_settings
from transforms import gcp, storage
from transforms.catalog_lock import CatalogLock
from transforms.media.decode import load_libopus
from transforms.media.errors import CallpressError, ConfigError
from transforms.media.model import Status
from transforms.run_context import RunContext, settings_fingerprint

logger = logging.getLogger(__name__)


class NothingToDoError(CallpressError):
    """No archive matches, or the output cannot be written."""


def run(arguments: RunArguments) -> int:
    """Runs the main job; returns its exit status.

    Raises:
      UsageError, ConfigError: found before any work.
      CallpressError: nothing matched, the output cannot be written, or another run holds the lock.
    """
    started_unix_ns = time.time_ns() // 1_000 * 1_000  # the tables hold microseconds
    started = datetime.fromtimestamp(started_unix_ns // 1_000_000_000, UTC)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    log_file = _set_up_logging(arguments, run_id)
    settings = load_settings(arguments.config)
    refuse_unknown_flags(arguments.beam_args, _beam_flags())
    options = PipelineOptions(list(arguments.beam_args))
    local = options.view_as(StandardOptions).runner in LOCAL_RUNNERS
    output = storage.absolute(arguments.output.rstrip("/"))
    catalog = storage.absolute((arguments.catalog or storage.join(output, "catalog")).rstrip("/"))
    staging_root = _staging_root(options.view_as(GoogleCloudOptions).temp_location, local, output, catalog)
    load_libopus()
    FileSystems.set_options(options)
    if any(uri.startswith("gs://") for uri in (*arguments.inputs, output, catalog, staging_root)):
        gcp.have_credentials()
    context = RunContext(
        run_id=run_id,
        started_unix_ns=started_unix_ns,
        output_uri=output,
        catalog_uri=catalog,
        staging_uri=storage.join(staging_root, run_id),
        settings=settings,
        settings_fingerprint=settings_fingerprint(settings),
        filters=arguments.filters,
        overwrite=arguments.overwrite,
        threads=len(os.sched_getaffinity(0)) if local else 1,
    )
    _check_writable(output, catalog, staging_root)
    _check_inputs(arguments.inputs)
    lock = CatalogLock(catalog, run_id)
    try:
        lock.acquire()
    except OSError as error:
        raise NothingToDoError(f"--catalog {catalog}: cannot be written: {error.strerror or error}") from None
    try:
        with stopping_cleanly():
            return _press(arguments, context, options, local, staging_root)
    except StoppedError as stop:
        lock.release()
        _say_how_to_go_on(context, staging_root)
        # Threads may still wait for storage; nothing of theirs is visible under a final name.
        os._exit(stop.exit_status)
    except CallpressError:
        raise
    except Exception as error:
        logger.exception("run %s failed", run_id)
        line = str(error).split("\n", 1)[0]
        print(f"callpress: run {run_id} failed: {type(error).__name__}: {line}", file=sys.stderr)
        print(f"callpress: this is a bug or a broken installation; the log is {log_file or 'above'}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        lock.release()


def _press(arguments: RunArguments, context: RunContext, options: PipelineOptions, local: bool, staging_root: str) -> int:
    clock = time.monotonic()
    with report.showing_progress():
        pipeline = make_local_pipeline(options) if local else beam.Pipeline(options=options)
        inputs = [storage.absolute(pattern) for pattern in arguments.inputs]
        press.build(pipeline, inputs, context)
        pipeline.run().wait_until_finish()
    result: dict[str, Any] = json.loads(storage.read_bytes(context.staged("result.json")))
    exit_status = EXIT_FAILED if result["status"] == Status.FAILED else 0
    summary = report.summarise(result, exit_status, time.process_time())
    if arguments.summary_json:
        storage.write_bytes(storage.absolute(arguments.summary_json), json.dumps(summary, indent=2).encode() + b"\n")
    # The lock is ours: whatever else lies here was left by runs that are no more.
    storage.delete_below(staging_root)
    report.print_summary(summary, time.monotonic() - clock, context.output_uri, context.catalog_uri)
    if exit_status:
        limit = context.settings.max_failed_ratio
        print(f"callpress: more than {limit:.0%} of the archives failed or are partial (max_failed_ratio)", file=sys.stderr)
    return exit_status


def _set_up_logging(arguments: RunArguments, run_id: str) -> str | None:
    """Sends the log to the terminal (-v) or a file, never both by itself; returns the file."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    if arguments.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        return None
    path = arguments.log_file or os.path.join(tempfile.gettempdir(), f"callpress-{run_id}.log")
    try:
        handler = logging.FileHandler(path, delay=True)
    except OSError as error:
        raise ConfigError(f"--log-file {path}: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO if arguments.log_file else logging.WARNING)
    logging.captureWarnings(True)
    return path


def _beam_flags() -> set[str]:
    """Returns every flag some runner of Beam knows."""
    import argparse

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for kind in PipelineOptions.__subclasses__():
        add = getattr(kind, "_add_argparse_args", None)
        if add is not None:
            add(parser)
    return {flag for action in parser._actions for flag in action.option_strings}


def _staging_root(temp_location: str | None, local: bool, output: str, catalog: str) -> str:
    """Returns the folder for all runs over one catalog; each run has its own inside.

    Raises:
      ConfigError: an engine with workers elsewhere was given no `--temp_location`.
    """
    name = "callpress-" + hashlib.sha256(catalog.encode()).hexdigest()[:12]
    if temp_location:
        return storage.join(storage.absolute(temp_location), name)
    if not local:
        raise ConfigError("--temp_location is needed with --runner: a place that all workers can read and write")
    if storage.is_local(output):
        return storage.join(output, ".staging")
    return os.path.join(tempfile.gettempdir(), name)


def _check_writable(*uris: str) -> None:
    for uri in uris:
        if not storage.is_local(uri):
            storage.check_bucket(uri)
            continue
        try:
            os.makedirs(uri, exist_ok=True)
            with tempfile.TemporaryFile(dir=uri):
                pass
        except OSError as error:
            raise NothingToDoError(f"{uri}: cannot be written: {error.strerror}") from None


def _check_inputs(patterns: Sequence[str]) -> None:
    reasons = [storage.why_nothing_matches(pattern) for pattern in patterns]
    if all(reasons):
        raise NothingToDoError(f"nothing to press: {'; '.join(reason for reason in reasons if reason)}")
    for reason in filter(None, reasons):
        print(f"callpress: warning: {reason}", file=sys.stderr)


def _say_how_to_go_on(context: RunContext, staging_root: str) -> None:
    storage.delete_below(staging_root)
    print(
        f"\ncallpress: run {context.run_id} stopped; the catalog is as it was. The same command again presses what is missing.",
        file=sys.stderr,
    )
