"""Does what a command line asks for. Imports what each command needs once its flags are known to be
right.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from pipelines import telling
from pipelines.archive_commands import InspectArguments, PressArguments, TracksArguments
from pipelines.catalog_commands import (
    CheckArguments,
    ProveArguments,
    ReconcileArguments,
    RunsArguments,
    VerifyArguments,
)
from pipelines.ending import Ending, reason_of
from pipelines.job_profile import JobProfile, load_profile
from pipelines.options import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_USAGE,
    RunArguments,
    parse_arguments,
    value_in,
)
from pipelines.parsers import CompletionArguments
from pipelines.parsing import UsageError
from pipelines.recording_commands import GetArguments, RecordingsArguments
from pipelines.streams import forgiving_streams
from pipelines.tell_command import TellArguments
from transforms.media.errors import CallpressError, ConfigError, exhausted_resource
from transforms.media.settings import PressSettings
from transforms.media.text import printable, without_secrets
from transforms.reason import Reason
from transforms.storage import storage_options
from transforms.storage.storage_options import StorageOptions


class _TerminatedError(BaseException):
    """SIGTERM came before the run had begun, or after its end."""


def obey(argv: Sequence[str]) -> int:
    """Runs a command line; returns its exit status, whatever becomes of what it prints. Errors are
    one line on standard error.
    """
    with forgiving_streams(), telling.telling_in(value_in(argv, "--log-format")):
        return _main(argv)


def _main(argv: Sequence[str]) -> int:
    ending = Ending(argv)
    try:
        with _terminable():
            return _obey(argv, ending)
    except UsageError as error:
        _tell(f"{error}; see callpress --help")
        return _closed(ending, EXIT_USAGE, Reason.USAGE)
    except ConfigError as error:
        _tell(str(error))
        return _closed(ending, EXIT_USAGE, Reason.USAGE)
    except CallpressError as error:
        _tell(str(error))
        return _closed(ending, EXIT_FAILED, reason_of(error))
    except KeyboardInterrupt:
        return _closed(ending, EXIT_INTERRUPTED, Reason.CANCELLED)
    except _TerminatedError:
        return _closed(ending, EXIT_TERMINATED, Reason.CANCELLED)
    except Exception as error:
        if (what := exhausted_resource(error)) is None:
            ending.close(EXIT_FAILED, Reason.BUG)
            if telling.tell_bug(error):
                return EXIT_FAILED
            raise
        _tell(what)
        return _closed(ending, EXIT_FAILED, Reason.EXHAUSTED)


def _obey(argv: Sequence[str], ending: Ending) -> int:
    arguments = parse_arguments(argv)
    if isinstance(arguments, CompletionArguments):
        with _importing_much():
            from pipelines.completion import print_completion

        return print_completion(arguments)
    profile = load_profile(arguments.config)
    settings = profile.settings
    storage_options.use(StorageOptions(accounts=profile.accounts, stream=profile.stream))
    if isinstance(arguments, VerifyArguments):
        from pipelines.verify import verify

        return verify(arguments)
    if isinstance(arguments, ProveArguments):
        from pipelines.prove import prove

        return prove(arguments, settings)
    if isinstance(arguments, CheckArguments):
        from pipelines.check_receipt import check_receipt

        return check_receipt(arguments)
    if isinstance(arguments, RunsArguments):
        from pipelines.list_runs import list_runs

        return list_runs(arguments)
    if isinstance(arguments, ReconcileArguments):
        from pipelines.reconcile import reconcile

        return reconcile(arguments, settings)
    if isinstance(arguments, RecordingsArguments):
        from pipelines.list_recordings import list_recordings

        return list_recordings(arguments)
    if isinstance(arguments, GetArguments):
        from pipelines.get_recordings import get_recordings

        return get_recordings(arguments)
    if isinstance(arguments, TellArguments):
        from pipelines.tell_targets import tell

        return tell(arguments, profile)
    if isinstance(arguments, InspectArguments):
        from pipelines.inspect_archives import inspect

        return inspect(arguments, settings)
    if isinstance(arguments, TracksArguments):
        from pipelines.list_tracks import list_tracks

        return list_tracks(arguments, settings.limits)
    if isinstance(arguments, PressArguments):
        return _press(arguments, settings)
    arguments = _preflight(arguments)
    if arguments.dry_run:
        with _importing_much():
            from pipelines.dry_run import dry_run

        return dry_run(arguments, profile, ending)
    return _closed(ending, _run(arguments, profile, ending), Reason.BUG)


def _preflight(arguments: RunArguments) -> RunArguments:
    """Returns the command line as its engine is to have it; tells all that the engine cannot do.

    Raises:
      UsageError, ConfigError: there is something; the last of it.
    """
    from pipelines.runners import dataflow_preflight

    if problems := dataflow_preflight.find_problems(arguments):
        for problem in problems[:-1]:
            _tell(problem)
        raise ConfigError(problems[-1])
    return dataflow_preflight.with_pins(arguments)


def _closed(ending: Ending, exit_status: int, reason: Reason) -> int:
    """Returns an exit status, told to programs too."""
    ending.close(exit_status, reason)
    return exit_status


@contextmanager
def _terminable() -> Iterator[None]:
    """Ends with `_TerminatedError` on SIGTERM, until the run sees to its signals by itself.

    A command that another program calls as a function has its own ways with signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: RunArguments, profile: JobProfile, ending: Ending) -> int:
    from transforms.codec.pool import POOL

    POOL.restart()
    try:
        if not arguments.names_runner:
            # It is ready to unpack by the time that Beam is imported.
            POOL.warm(profile.settings.limits.codec_memory_bytes)
        with _importing_much():
            from pipelines.run import run

        return run(arguments, profile, ending)
    finally:
        POOL.stop()


def _press(arguments: PressArguments, settings: PressSettings) -> int:
    # This process computes nothing: threads of numpy's would only keep the other from its core.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with _importing_much():
        from pipelines.press_archives import press_archives

    return press_archives(arguments, settings)


@contextmanager
def _importing_much() -> Iterator[None]:
    """Stops the search for garbage: of Beam's 300,000 objects all stay, and to find none takes a
    quarter of a second.
    """
    if "apache_beam" in sys.modules:  # and with it most of what is ours
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def _tell(line: str) -> None:
    telling.tell(printable(without_secrets(line)), "ERROR")
