"""The slots of a machine as files: a codec job is at work while it has one of them locked.

The locks are advisory (`flock(2)`) and the kernel's: they end with the process that has them,
however it ends. No descriptor of them is handed on to a codec process. All processes of a user that
share a folder for temporary files share its slots; another user has others.

    callpress-slots-1000/   of user 1000, mode 0700
        0  1  2 ...         a slot each; its holder's process id is in it
        next-2  head-2      the line of those that wait for one of the first two slots
        freed               a pipe: whoever gives a slot back says so

To wait in line is to lock `next`, then `head`, then to let go of `next`. Whoever comes to the head
waits there for a slot, and all others in the kernel, in the order in which they came: one that has
had its turn cannot be first at `head` again, since the second in line has `next`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from transforms.media.errors import CallpressError, exhausted_resource

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_ELSEWHERE = "or name another place for temporary files with TMPDIR"


class SlotFolderError(CallpressError):
    """The folder of the slots cannot be made, or is not ours alone."""


class SlotFiles:
    """The files of the slots, and of the lines before them. From any thread.

    Each method raises `SlotFolderError` where the folder is of no use.
    """

    def __init__(self, root: Path | None = None) -> None:
        """Args: root: in which folder theirs is; None for that of temporary files."""
        self._root = root

    @property
    def folder(self) -> Path:
        """Where they are."""
        try:
            root = self._root or tempfile.gettempdir()
        except OSError as error:
            raise SlotFolderError(
                f"no place for temporary files ({error.strerror}), expected one that can be "
                "written: TMPDIR names another"
            ) from None
        return Path(root) / f"callpress-slots-{os.geteuid()}"

    def prepare(self) -> None:
        """Makes the folder, if it is not there."""
        with self._opened():
            pass

    def take(self, slot: int) -> int | None:
        """Returns a descriptor that has a slot locked, None when somebody has it."""
        lock = self._open(str(slot))
        if not self._lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            os.close(lock)
            return None
        with contextlib.suppress(OSError):  # for people: nothing reads it, and a disk may be full
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    def give_back(self, lock: int) -> None:
        """Lets go of a slot, and tells who waits for one."""
        _let_go(lock)
        # Where nobody reads nobody waits, and a full pipe tells enough.
        with contextlib.suppress(OSError, SlotFolderError), self.freed() as freed:
            os.write(freed, b".")

    def count_held(self) -> int:
        """Returns how many slots somebody has."""
        with self._opened() as folder:
            names = [name for name in os.listdir(folder) if name.isdigit()]
        held = 0
        for name in names:
            lock = self._open(name)
            held += not self._lock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            _let_go(lock)
        return held

    @contextlib.contextmanager
    def at_head(self, slots: int, *, waits: bool) -> Iterator[bool]:
        """Goes to the head of a line and stays there for the block.

        Args:
          slots: for how many slots it is the line.
          waits: for whoever is in line; else the block is told whether nobody is.
        """
        how = fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB
        second = self._open(f"next-{slots}")
        head = -1
        try:
            is_head = self._lock(second, how)
            if is_head:
                head = self._open(f"head-{slots}")
                is_head = self._lock(head, how)
            _let_go(second)
            second = -1
            yield is_head
        finally:
            for lock in (second, head):
                if lock >= 0:
                    _let_go(lock)

    @contextlib.contextmanager
    def freed(self) -> Iterator[int]:
        """Gives a descriptor that can be read once a slot was given back during the block."""
        pipe = self._open("freed", make=os.mkfifo)
        try:
            yield pipe
        finally:
            os.close(pipe)

    def _open(self, name: str, make: Callable[[Path, int], None] | None = None) -> int:
        """Returns a descriptor of a file, made if it is not there: by `make`, or empty."""
        with self._opened() as folder:
            if make is None:
                return os.open(name, _FLAGS | os.O_CREAT, 0o600, dir_fd=folder)
            try:
                return os.open(name, _FLAGS, dir_fd=folder)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    make(self.folder / name, 0o600)
                return os.open(name, _FLAGS, dir_fd=folder)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Gives a descriptor of the folder, which is ours alone. It is made anew if it is gone: who
        tidies up temporary files does not know that it is in use.
        """
        try:
            try:
                folder = os.open(self.folder, _FOLDER_FLAGS)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.folder, 0o700)
                folder = os.open(self.folder, _FOLDER_FLAGS)
            try:
                self._check(os.fstat(folder))
                yield folder
            finally:
                os.close(folder)
        except OSError as error:
            if exhausted_resource(error) is not None:
                raise
            raise self._useless(error) from None

    def _check(self, found: os.stat_result) -> None:
        """Raises: SlotFolderError: it is another's, or others may write there."""
        if found.st_uid != os.geteuid():
            what = f"is of user {found.st_uid}"
        elif stat.S_IMODE(found.st_mode) & 0o077:
            what = f"has mode {stat.S_IMODE(found.st_mode):04o}"
        else:
            return
        raise SlotFolderError(
            f"{self.folder}: {what}, expected a folder of user {os.geteuid()} with mode 0700; "
            f"remove it, {_ELSEWHERE}"
        )

    def _useless(self, error: OSError) -> SlotFolderError:
        return SlotFolderError(
            f"{self.folder}: {error.strerror}, expected a folder in which files can be made and "
            f"locked; remove what is there, {_ELSEWHERE}"
        )

    def _lock(self, lock: int, how: int) -> bool:
        """Returns whether a lock was got, for which it waits unless `how` says otherwise."""
        try:
            fcntl.flock(lock, how)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._useless(error) from None
        return True


def _let_go(lock: int) -> None:
    # Also of copies: a process that was forked this moment has one until it is another program.
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)
