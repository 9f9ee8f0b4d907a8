"""`callpress run`: checks what was asked for, starts it, and tells how it went. The run itself is
the job's: its first step takes the catalog's lock, its last one leaves the result.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import secrets
import sys
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import NoReturn, Self

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions

from pipelines import manifests, places, press, run_summary, targets
from pipelines.accounts import accounts_of, check_secrets_reach_workers
from pipelines.beam_options import beam_options, engine_of
from pipelines.check_targets import check_targets, prepare_folders
from pipelines.ending import Ending, check_summary_json, reason_of
from pipelines.job_profile import JobProfile
from pipelines.logs import set_up_logging
from pipelines.options import EXIT_FAILED, RunArguments
from pipelines.runners.engine import Engine, EngineDownError
from pipelines.runners.job_errors import StepFailedError
from pipelines.stopping import StoppedError, Stopper, stopping_cleanly
from pipelines.telling import tell
from pipelines.template import Template, template_of
from transforms.bounds import PortionSize
from transforms.catalog import results
from transforms.context import JobSettings, RunIdentity
from transforms.engine import begun
from transforms.locking import lock
from transforms.locking.lease import lease_of
from transforms.locking.lock import LockHeldError
from transforms.media.errors import CallpressError, ConfigError, StorageError, exhausted_resource
from transforms.media.opus.libopus import load_libopus
from transforms.media.settings import PressSettings
from transforms.media.text import printable
from transforms.reason import Reason
from transforms.recovery import manifests as staged_manifests
from transforms.recovery import portions, take_up
from transforms.storage import objects, storage_options
from transforms.storage.errors import describe_error
from transforms.targets import Notify

logger = logging.getLogger(__name__)

_PORTION_ARCHIVES = 1_000
_PORTION_BYTES = 20 * 10**9
_MOST_PORTIONS = 20
"""Each writes the tables of its dates anew: 300,000 rows of tracks take 3 CPU seconds whatever
comes to them, so that of a night of 100,000 calls portions of 1,000 would cost hours.
"""
_STEP = re.compile(r" \[while running '[^']*'\]")
_TOLD_AS_FAILED = (Reason.STORAGE_DOWN, Reason.LOCK_LOST, Reason.ENGINE_DOWN)
"""What ends a run amid its work: no fault of what was asked for, nor of the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A run that may begin."""

    inputs: tuple[str, ...]
    job: JobSettings
    engine: Engine
    template: Template | None
    """What is asked for instead of a run."""


class _Watched:
    """What this process knows of the run that it started."""

    def __init__(self, prepared: _Prepared, ending: Ending) -> None:
        self._job = prepared.job
        self._engine = prepared.engine
        self._ending = ending
        self._held = contextlib.ExitStack()
        self.stopper: Stopper | None = None
        self.run: RunIdentity | None = None
        """Known once its first step was done in this process."""
        self.portions = 1
        """In which it is pressed; more than one only in this process."""

    @property
    def run_id(self) -> str | None:
        """The run's name; None for one that has not begun, as far as is known."""
        return self.run.run_id if self.run else self._engine.run_id

    @property
    def name(self) -> str:
        """How the run is told."""
        return f"run {self.run_id}" if self.run_id else "the run"

    def begin(self, run: RunIdentity) -> None:
        """Takes the run, and holds the catalog for it where all of it lives in this process."""
        self.run = run
        self._ending.began(run.run_id, run.started_unix_ns)
        if self._job.is_one_process:
            lease = lease_of(self._job, run)
            self._held.enter_context(lease.at_work())
            if self.stopper is not None:
                self._held.enter_context(lease.telling(self.stopper.stop))

    def divide(self, run: RunIdentity, portions: int) -> None:
        """Takes the run as it is after its first steps, and how many portions it has."""
        self.run, self.portions = run, portions

    def hear(self, line: str) -> None:
        """Tells a line of what the run begins with."""
        print(f"callpress: {printable(line)}", file=sys.stderr)

    def farewell(self) -> str:
        """Returns what to say when the run was stopped."""
        line = (
            f"callpress: {self.name} stopped. The same command again takes up the calls that are "
            "finished and presses the others."
        )
        return line if self._engine.has_ended else f"{line} {self._engine.what_is_unknown}"

    def give_back(self) -> None:
        """Gives the lock back of a run that is not at work any more; it ends with its lease where
        that cannot be known.
        """
        job = self._job
        if not self._engine.has_ended:
            return
        if self.run is not None and job.is_one_process:
            lease_of(job, self.run).give_back()
        elif self.run_id is not None:
            # A worker that was ended may still be finishing what it had looked at the lock for.
            after_seconds = job.settings.limits.lock_seconds / 15
            with contextlib.suppress(StorageError):  # then it ends with its lease
                held = lock.look(job.catalog_uri)
                if held is not None and held.state and held.state.run_id == self.run_id:
                    lock.give_back(job.catalog_uri, held.state.token, after_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()


def run(arguments: RunArguments, profile: JobProfile, ending: Ending) -> int:
    """Runs the main job; returns its exit status.

    Args:
      arguments, profile: what was asked for.
      ending: what programs are told at the end.

    Raises:
      UsageError, ConfigError: found before any work.
      CallpressError: nothing matched, the output cannot be written, or another run holds the lock.
    """
    log_file = set_up_logging(
        arguments, f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"
    )
    prepared = _prepare(arguments, profile)
    if arguments.detach:
        try:
            return _start(prepared)
        except BaseException:
            _delete_manifests(prepared)
            raise
    watched = _Watched(prepared, ending)
    try:
        with (
            stopping_cleanly(
                watched.farewell,
                lambda status: _close(ending, stopper, status),
                prepared.engine.stop_seconds,
            ) as stopper,
            watched,
            begun.listening(watched),
        ):
            watched.stopper = stopper
            return _press(prepared, watched, ending)
    except StoppedError:
        _leave(prepared, watched, stopper)
    except Exception as error:
        ending.reason, line = _cause_of(error)
        if not _tell(watched.name, error, ending.reason, line, log_file):
            raise
        return EXIT_FAILED
    finally:
        watched.give_back()
        _delete_manifests(prepared)


def _delete_manifests(prepared: _Prepared) -> None:
    """Deletes what was staged for a job that is not at work, nor will be: its last step does, if it
    comes to that.
    """
    if prepared.engine.has_ended and prepared.template is None:
        with contextlib.suppress(CallpressError):  # then another run does
            staged_manifests.delete_staged(prepared.job)
            take_up.leave_no_folders(prepared.job)


def _close(ending: Ending, stopper: Stopper, status: int) -> None:
    ending.close(status, Reason.CANCELLED if stopper.is_interrupted else Reason.LOCK_LOST)


def _prepare(arguments: RunArguments, profile: JobProfile) -> _Prepared:
    """Finds out all that can be wrong before any work. Raises: as `run`."""
    check_summary_json(arguments.summary_json)
    options = beam_options(arguments.beam_args, arguments.beam_lines)
    engine = engine_of(options, arguments)
    notify = notify_of(arguments, profile, engine)
    check_secrets_reach_workers(
        (*accounts_of(arguments.manifests), *notify.targets),
        has_workers_here=engine.has_workers_here,
        secrets_in_image=arguments.secrets_in_image,
    )
    template = template_of(options)
    if template is not None and arguments.summary_json:
        raise ConfigError(
            "--summary-json is for a command that waits, expected none beside --template_location: "
            "what comes of each run will lie in <catalog>/results"
        )
    where = places.places_of(arguments)
    is_for_later = template is not None and not template.is_started_at_once
    use_options(arguments, where)
    root = places.staging_root(
        where,
        options.view_as(GoogleCloudOptions).temp_location,
        shares_this_machine=engine.shares_this_machine,
    )
    load_libopus()
    FileSystems.set_options(options)
    objects.find_credentials(
        (
            *where.inputs,
            *manifests.stores_of(where),
            where.output_uri,
            where.catalog_uri,
            root,
            *filter(None, (where.copy_raw_uri,)),
            *where.own_uris,
        )
    )
    places.check_apart(where)
    places.check_copies_apart(where)
    check_targets(
        notify,
        where.catalog_uri,
        where.output_uri,
        shares_this_machine=engine.shares_this_machine,
        reads_secrets=engine.has_workers_here,
    )
    manifests.check(where, is_for_later=is_for_later)
    places.check_inputs(
        where.inputs, may_come_later=is_for_later or bool(where.links or where.manifests)
    )
    places.check_writable(where, root, arguments.summary_json)
    prepare_folders(notify)
    if template is not None:
        objects.check_reachable(template.folder)
    # The job asks again: this is sooner, and costs no start.
    held = None if is_for_later else lock.look(where.catalog_uri)
    if held is not None and not held.is_dead():
        raise LockHeldError(lock.why_held(where.catalog_uri, held))
    job = replace(
        job_settings(arguments, profile.settings, where, engine, root),
        notify=notify,
        takes_up=not engine.is_one_process or take_up.may_find(root),
        fails_unattended=arguments.detach or template is not None,
    )
    staged = manifests.stage(where, root, reads_files=engine.is_one_process)
    return _Prepared(
        inputs=where.inputs,
        job=replace(job, manifests=staged),
        engine=engine,
        template=template,
    )


def use_options(arguments: RunArguments, where: places.Places) -> None:
    """Has this process, and with the job all others, reach what the command line allows."""
    storage_options.use(
        replace(
            storage_options.current(),
            allow_private_addresses=arguments.allow_private_addresses,
            named_hosts=manifests.hosts_of(where) | targets.hosts_of(arguments.notify),
        )
    )


def notify_of(arguments: RunArguments, profile: JobProfile, engine: Engine) -> Notify:
    """Returns who is told of what a run makes. Raises: ConfigError: as `targets.notify_of`."""
    return targets.notify_of(
        profile.notify,
        arguments.notify,
        arguments.url_base,
        keeps_secrets=engine.is_one_process,
    )


def job_settings(
    arguments: RunArguments,
    settings: PressSettings,
    where: places.Places,
    engine: Engine,
    staging_root: str,
) -> JobSettings:
    """Returns what a command line asks for, as the steps know it."""
    return JobSettings(
        output_uri=where.output_uri,
        catalog_uri=where.catalog_uri,
        settings=settings,
        filters=arguments.filters,
        bounds=arguments.bounds,
        portion=_portion(arguments) if engine.is_one_process else None,
        overwrite=arguments.overwrite,
        repress=arguments.repress,
        codec_processes=arguments.codec_processes,
        worker_memory_bytes=arguments.worker_memory_bytes,
        own_uris=where.own_uris,
        copy_raw_uri=where.copy_raw_uri,
        staging_root=staging_root,
        is_one_process=engine.is_one_process,
    )


def _portion(arguments: RunArguments) -> PortionSize:
    """Returns how much is pressed and published at a time on the local engine; a tenth of it where
    a run stops at a time: of the one that is at work then, what is not done is left.
    """
    if arguments.portion_archives is not None:
        return PortionSize(archives=arguments.portion_archives)
    if arguments.bounds.stop_after_seconds is not None:
        return PortionSize(archives=_PORTION_ARCHIVES // 10, size_bytes=_PORTION_BYTES // 10)
    return PortionSize(
        archives=_PORTION_ARCHIVES, size_bytes=_PORTION_BYTES, most_portions=_MOST_PORTIONS
    )


def _start(prepared: _Prepared) -> int:
    """Starts the job and leaves it to itself; returns the exit status."""
    job_id = prepared.engine.start(
        lambda pipeline: press.build(pipeline, prepared.inputs, prepared.job)
    )
    if prepared.template is not None:
        return _tell_template(prepared.template)
    print(
        f"callpress: started job {job_id}; callpress runs --catalog {prepared.job.catalog_uri} "
        "tells how it goes",
        file=sys.stderr,
    )
    return 0


def _press(prepared: _Prepared, watched: _Watched, ending: Ending) -> int:
    """Runs the job and tells how it went; returns the exit status."""
    job = prepared.job
    clock = time.monotonic()
    prepared.engine.run(lambda pipeline: press.build(pipeline, prepared.inputs, job))
    if prepared.template is not None:
        return _tell_template(prepared.template)
    if watched.run is not None and watched.portions > 1:
        _press_later_portions(prepared, watched.run, watched.portions)
    result = _result(job, watched)
    ending.write(result)
    seconds = time.monotonic() - clock
    if not run_summary.tell_summary(result):
        run_summary.print_summary(result, seconds, job.output_uri, job.catalog_uri)
    places.tell_left_out(result["counts"]["left_out"])
    manifests.tell_passed_over(result["counts"]["passed_over"])
    for line in result["told"]:
        tell(line, "ERROR" if result["exit_status"] else "WARNING")
    is_missing = bool(result["reconcile"] and result["reconcile"]["counts"]["missing"])
    for line in run_summary.lines_of_listing(result, job.catalog_uri):
        tell(printable(line), "WARNING" if is_missing else "INFO")
    return int(result["exit_status"])


def _tell_template(template: Template) -> int:
    """Says what was written, and how it is started; returns the exit status."""
    for line in template.how_to_start():
        tell(line)
    return 0


def _press_later_portions(prepared: _Prepared, run: RunIdentity, count: int) -> None:
    """Presses the portions of a run behind the first one, each by a job of its own; once the run is
    to start no more, all that are left by one, which lets their archives wait.
    """
    job, number = prepared.job, 1
    while number < count:
        portions.sweep(run)
        print(f"callpress: portion {number} of {count} is published", file=sys.stderr)
        last = count if job.bounds.is_over(run.started_unix_ns) else number + 1
        numbers = range(number + 1, last + 1)
        prepared.engine.run(
            functools.partial(press.build_portions, job=job, run=run, numbers=numbers)
        )
        number = last


def _result(job: JobSettings, watched: _Watched) -> results.Result:
    """Returns what the run left. Raises: EngineDownError: nothing, though the job is at its end, or
    the engine does not tell which run it was.
    """
    if watched.run_id is None:
        raise EngineDownError(
            "the job came to its end, but its engine has no counters that tell which run it was; "
            f"callpress runs --catalog {job.catalog_uri} tells how it went"
        )
    result = results.read(job.catalog_uri, watched.run_id)
    if result is None:
        raise EngineDownError(
            f"the job came to its end, but left no result in {job.catalog_uri}/{results.FOLDER}"
        )
    return result


def _leave(prepared: _Prepared, watched: _Watched, stopper: Stopper) -> NoReturn:
    """Ends the process of a run that was stopped, and keeps what the next one can take up."""
    if prepared.job.is_one_process and watched.run is not None:
        with contextlib.suppress(CallpressError):
            take_up.keep_completed_work(prepared.job, watched.run)
    watched.give_back()
    _delete_manifests(prepared)
    stopper.leave()


def _tell(name: str, error: Exception, reason: Reason, line: str, log_file: str | None) -> bool:
    """Tells the operator what ended a run; returns False for what the command tells by itself.

    Args:
      name: of the run.
      error: what ended it.
      reason, line: what `_cause_of` makes of that.
      log_file: where the log is.
    """
    if reason in _TOLD_AS_FAILED and not isinstance(error, places.UnwritableError):
        logger.warning("%s failed: %s", name, line)
        tell(f"{name} failed: {line}", "ERROR")
        tell("what is published stands; the same command again goes on from there")
        return True
    if isinstance(error, CallpressError):
        if line == str(error):
            return False
        raise type(error)(line) from None  # what a step raised, without the engine's words
    logger.exception("%s failed", name)
    if reason is Reason.EXHAUSTED:
        tell(
            f"{name} failed: {line}; give it more, or start fewer codec processes "
            "(--codec-processes)",
            "ERROR",
        )
        return True
    tell(f"{name} failed: {line}", "ERROR")
    tell(f"this is a bug or a broken installation; the log is {log_file or 'above'}", "ERROR")
    return True


def _cause_of(error: Exception) -> tuple[Reason, str]:
    """Returns why a run ended, and the line for it."""
    if isinstance(error, CallpressError):
        return reason_of(error), _STEP.sub("", str(error)).split("\n", 1)[0]
    if (what := exhausted_resource(error)) is not None:
        return Reason.EXHAUSTED, what
    if isinstance(error, StepFailedError):
        return Reason.BUG, str(error)
    return Reason.BUG, f"{type(error).__name__}: {_STEP.sub('', describe_error(error))}"
