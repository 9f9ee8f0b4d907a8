"""A network that reaches nothing but itself: what listens on all interfaces is seen by nobody."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_THIS_THREADS = Path("/proc/thread-self/ns/net")
_libc = ctypes.CDLL(None, use_errno=True)


class LoopbackNetwork:
    """A network namespace (network_namespaces(7)) with the loopback interface only; it is gone with
    the last process in it.
    """

    def __init__(self) -> None:
        """Makes one; skips the test where that is not allowed."""
        if not _THIS_THREADS.exists() or os.geteuid() != 0:
            pytest.skip("needs a network namespace of its own: Linux, and root to make it")
        home = os.open(_THIS_THREADS, os.O_RDONLY)
        _call("unshare", _CLONE_NEWNET)
        try:
            self._namespace = os.open(_THIS_THREADS, os.O_RDONLY)
            _bring_loopback_up()
        finally:
            _call("setns", home, _CLONE_NEWNET)
            os.close(home)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Has this thread, and all threads and processes it starts, in the network until the block
        ends.
        """
        home = os.open(_THIS_THREADS, os.O_RDONLY)
        _call("setns", self._namespace, _CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", home, _CLONE_NEWNET)
            os.close(home)

    def processes(self) -> dict[int, str]:
        """Returns the processes in the network other than this one, and their command lines."""
        found = {}
        inode = os.fstat(self._namespace).st_ino
        for process in Path("/proc").glob("[0-9]*"):
            pid = int(process.name)
            try:
                is_inside = (process / "ns" / "net").stat().st_ino == inode
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:
                continue  # it has just ended
            if is_inside and pid != os.getpid():
                found[pid] = command
        return found

    def close(self) -> None:
        """Leaves the network to the processes that are in it."""
        os.close(self._namespace)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _bring_loopback_up() -> None:
    with socket.socket() as control:
        # struct ifreq (netdevice(7)): the interface's name, its flags.
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
