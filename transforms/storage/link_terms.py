"""How long connections for links may take, however slowly what comes drips in."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

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


class Cut:
    """Cuts a connection when it is not stopped in time: a time-out of sockets begins anew with each
    byte that drips in.
    """

    def __init__(self, terms: Terms, seconds: float, sock: socket.socket) -> None:
        # A second handle: that of the connection changes hands when encryption begins.
        self._handle = socket.socket(fileno=os.dup(sock.fileno()))
        self._terms = terms
        self._has_cut = False
        self._timer = threading.Timer(max(0.0, seconds), self.cut)
        self._timer.daemon = True
        self._timer.start()
        terms.add(self)

    def cut(self) -> None:
        """Cuts it, at once."""
        self._has_cut = True
        with contextlib.suppress(OSError):  # it is cut already
            self._handle.shutdown(socket.SHUT_RDWR)

    def stop(self) -> TimeoutError | None:
        """Leaves the connection alone from now on; returns the error to raise if it was cut."""
        self._terms.remove(self)
        self._timer.cancel()
        self._timer.join()
        self._handle.close()
        if not self._has_cut:
            return None
        return TimeoutError(f"nothing whole within {self._terms.answer_seconds:g} s")


READING = Terms()
"""For links that are read."""
