"""How a run ends before its time: on Ctrl-C, on SIGTERM, or because the catalog is another's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from pipelines.telling import shaped
from transforms.codec.pool import POOL

_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 4.0
"""For cleaning up; then the process ends wherever it is. Nothing half made is ever under a final
name.
"""
_CLOSE_SECONDS = 2.0
_SHOW_CURSOR = "\x1b[?25h"


class StoppedError(BaseException):
    """Ctrl-C or SIGTERM came, or the run may not go on."""


class Stopper:
    """How a run is ended from outside of its own course, and what it says then."""

    def __init__(self, farewell: Callable[[], str], close: Callable[[int], None] | None) -> None:
        self._farewell = farewell
        self._close = close
        self._why: str | None = None
        self._status: int | None = None
        self._has_left = threading.Lock()

    @property
    def is_interrupted(self) -> bool:
        """Whether a person or a scheduler ended the run, and not `stop`."""
        return self._why is None

    @property
    def is_stopped(self) -> bool:
        """Whether the end has begun."""
        return self._status is not None

    def stop(self, why: str) -> None:
        """Ends the run, from any thread, as failed and not as interrupted."""
        self._why = why
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def receive(self, number: int, _frame: FrameType | None = None) -> None:
        """Handles a signal. Raises: StoppedError: the first time; a second signal must not disturb
        the cleaning up.
        """
        if self._status is None:
            self._status = 128 + number if self._why is None else 1
            raise StoppedError(signal.Signals(number).name)

    def leave(self, number: int = 0) -> NoReturn:
        """Says farewell and ends the process: threads may still wait for storage."""
        if self._has_left.acquire(blocking=False):
            status = self._status or (128 + number if number else 1)
            self._close_in_time(status)
            show_cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
            why = f"callpress: {self._why}\n" if self._why else ""
            with contextlib.suppress(OSError, ValueError):
                os.write(2, shaped(f"{show_cursor}\n{why}{self._farewell()}\n", "WARNING").encode())
            os._exit(status)
        threading.Event().wait()  # the other thread is about to end the process
        raise AssertionError

    def _close_in_time(self, status: int) -> None:
        """Does what is to be done last, for as long as an end may take: storage may not answer."""
        if self._close is not None:
            closing = threading.Thread(target=self._close, args=(status,), daemon=True)
            closing.start()
            closing.join(_CLOSE_SECONDS)


@contextmanager
def stopping_cleanly(
    farewell: Callable[[], str],
    close: Callable[[int], None] | None = None,
    engine_seconds: float = 0.0,
    *,
    ends_with_terminal: bool = False,
) -> Iterator[Stopper]:
    """Turns Ctrl-C and SIGTERM into `StoppedError`; the codec processes are gone when the block has
    ended, however it did.

    After a signal both are ignored for good, and the process ends within `_GRACE_SECONDS` also
    where its main thread is stuck in a call that no signal interrupts, as in looking up a host's
    name.

    Args:
      farewell: gives a line for standard error that says how to go on.
      close: what to do last before the process ends, with its exit status.
      engine_seconds: how much longer it may take, for an engine elsewhere to end the job; a second
        signal ends the process then.
      ends_with_terminal: whether SIGHUP, of a terminal that was closed, is taken like the others;
        not where it is ignored, as by nohup.
    """
    stopper = Stopper(farewell, close)
    signals = _SIGNALS
    if ends_with_terminal and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals = (*_SIGNALS, signal.SIGHUP)
    before = {number: signal.signal(number, stopper.receive) for number in signals}
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    threading.Thread(
        target=_leave_in_time,
        args=(ours, stopper, signals, engine_seconds),
        daemon=True,
        name="stop-watch",
    ).start()
    POOL.restart()
    try:
        yield stopper
    except BaseException as error:
        if stopper.is_stopped:  # Beam wraps whatever is raised inside a step
            raise StoppedError from error
        raise
    finally:
        if stopper.is_stopped:
            for number in signals:
                signal.signal(number, signal.SIG_IGN)
        POOL.stop()
        if not stopper.is_stopped:
            signal.set_wakeup_fd(wakeup_before)
            theirs.close()
            for number, handler in before.items():
                signal.signal(number, handler)


def _leave_in_time(
    received: socket.socket, stopper: Stopper, signals: Collection[int], engine_seconds: float
) -> None:
    """Ends the process some time after a signal: the C handler writes its number here whatever the
    main thread does.
    """
    with received:
        while number := received.recv(1):
            if number[0] in signals:
                if engine_seconds:
                    _wait_for_signal(received, engine_seconds)
                else:
                    threading.Event().wait(_GRACE_SECONDS)
                stopper.leave(number[0])


def _wait_for_signal(signals: socket.socket, seconds: float) -> None:
    """Waits until another signal to end comes, or the time is over."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(TimeoutError):
        while True:
            signals.settimeout(max(0.001, deadline - time.monotonic()))
            received = signals.recv(1)
            if not received or received[0] in _SIGNALS:
                return
