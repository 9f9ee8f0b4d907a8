"""How long connections for links may take, however slowly what comes drips in."""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import os
import socket
import threading
import time

from urllib3.util import Timeout


class Terms:
    """How long connections may take; and all of them can be cut at one moment."""

    def __init__(
        self,
        *,
        connect_seconds: float = 20,
        answer_seconds: float = 60,
        read_seconds: float = 60,
        total_seconds: float | None = None,
    ) -> None:
        """Args:
        connect_seconds: for a connection to come about, address by address.
        answer_seconds: for one to be encrypted; and from a request to the last line of the
          answer's head, however slowly it drips.
        read_seconds: between two pieces of an answer.
        total_seconds: for all of it to the end of the answer's head; None for no such limit.
        """
        self.connect_seconds = connect_seconds
        self.answer_seconds = answer_seconds
        self.time_out = Timeout(total=total_seconds, connect=connect_seconds, read=read_seconds)
        self._lock = threading.Lock()
        self._cuts: set[Cut] = set()
        self._has_ended = False

    def end(self) -> None:
        """Cuts the connections that are waited for, and those that will be."""
        with self._lock:
            self._has_ended = True
            cuts = list(self._cuts)
        for cut in cuts:
            cut.cut()

    def add(self, cut: Cut) -> None:
        """Notes that a connection is waited for."""
        with self._lock:
            self._cuts.add(cut)
        if self._has_ended:
            cut.cut()

    def remove(self, cut: Cut) -> None:
        """Notes that it is not waited for any more."""
        with self._lock:
            self._cuts.discard(cut)


class _Watch:
    """Cuts connections when their time is over. One thread does it for all of them, and only while
    there are some: one for each request would cost more than the request.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Cut]] = []
        self._numbers = itertools.count()
        self._is_running = False

    def add(self, cut: Cut, seconds: float) -> None:
        """Has a connection cut after so long, unless that is stopped before."""
        entry = (time.monotonic() + seconds, next(self._numbers), cut)
        with self._changed:
            heapq.heappush(self._due, entry)
            if not self._is_running:
                self._start()
            elif self._due[0] is entry:
                self._changed.notify()

    def _start(self) -> None:
        """Raises: OSError: this user has as many threads as may be."""
        try:
            threading.Thread(target=self._run, daemon=True, name="connection-times").start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from None
        self._is_running = True

    def _run(self) -> None:
        with self._changed:
            while self._due:
                moment, _, cut = self._due[0]
                left = moment - time.monotonic()
                if left > 0 and not cut.is_stopped:
                    self._changed.wait(left)
                else:
                    heapq.heappop(self._due)
                    cut.cut()
            self._is_running = False


_WATCH = _Watch()


class Cut:
    """Cuts a connection when it is not stopped in time: a time-out of sockets begins anew with each
    byte that drips in.
    """

    def __init__(
        self, terms: Terms, seconds: float, sock: socket.socket, *, stays_open: bool = False
    ) -> None:
        """Args:
        terms: of the connection.
        seconds: for how long it is waited for.
        sock: of it.
        stays_open: whether it is the same, and open, until this is stopped. Then no other handle
          is made, which takes as long as all else here.

        Raises:
          OSError: this user has as many threads or open files as may be.
        """
        # As a rule a second handle: that of the connection changes hands when encryption begins.
        self._is_own = not (stays_open and isinstance(sock, socket.socket))
        self._handle = socket.socket(fileno=os.dup(sock.fileno())) if self._is_own else sock
        self._terms = terms
        self._lock = threading.Lock()
        self._has_cut = False
        self.is_stopped = False
        """Whether the connection is left alone by now."""
        try:
            _WATCH.add(self, seconds)
        except OSError:
            self._close()
            raise
        terms.add(self)

    def cut(self) -> None:
        """Cuts it, at once, unless it was stopped."""
        with self._lock:
            if not self.is_stopped:
                self._has_cut = True
                with contextlib.suppress(OSError):  # it is cut already
                    # Not that of an encrypted one, which would forget that it is.
                    socket.socket.shutdown(self._handle, socket.SHUT_RDWR)

    def stop(self) -> TimeoutError | None:
        """Leaves the connection alone from now on; returns the error to raise if it was cut."""
        self._terms.remove(self)
        with self._lock:
            self.is_stopped = True
            self._close()
        if not self._has_cut:
            return None
        return TimeoutError(f"nothing whole within {self._terms.answer_seconds:g} s")

    def _close(self) -> None:
        if self._is_own:
            self._handle.close()


READING = Terms()
"""For links that are read."""
