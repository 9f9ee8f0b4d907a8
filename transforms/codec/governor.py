"""How many codec jobs are at work at a time: as many on a machine as it has cores, and memory for,
whichever processes they belong to.

A machine has numbered slots, and a job is at work while its process has one of them (see
`slot_files`). Runs that were told different numbers share them, too: one that was told two takes
the first two only, and one that was told twelve begins with the last. So of both together twelve
jobs are at work at most, and two at most of the first.

The threads of a process stand in its own line, and for the first of them one more thread stands in
the machine's, where it waits in the kernel. So who is to stop need not wait for a turn.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from transforms.codec.machine import Machine
from transforms.codec.slot_files import SlotFiles, SlotFolderError

JOB_BYTES = 256 << 20
"""What a codec process needs: it was seen to use 63 to 227 MB (`benchmarks/README.md`)."""
_LOOK_SECONDS = 0.2
"""How often the head of a line looks for a slot whose holder died: then nobody says that it is
free.
"""


_TELLING_SECONDS = 60.0

logger = logging.getLogger(__name__)


class _Place:
    """Of a thread in the line of its process."""

    def __init__(self) -> None:
        self.lock: int | None = None
        """The slot it was given."""
        self.error: BaseException | None = None


class Slots:
    """What a job has of the machine while it is at work: one slot, and maybe more for a while."""

    def __init__(self, governor: Governor, lock: int) -> None:
        self._governor = governor
        self._locks = [lock]
        self._places: list[_Place] = []

    def stand_in_line(self, times: int) -> None:
        """Stands in line for so many more, to be its own while it is at work."""
        self._places += self._governor.stand_in_line(times)

    def cores(self, most: int) -> int:
        """Returns how many cores the job may keep busy from now on: as many as it was given of its
        share, and those that nobody waits for. To be asked again every second or so: then it takes
        what is free by now, and gives back what it has beyond its share if somebody waits.

        Args:
          most: how many it can keep busy.
        """
        share = 1 + sum(place.lock is not None for place in self._places)
        with contextlib.suppress(OSError, SlotFolderError):  # with what it has it can go on
            if self._governor.has_others_waiting():
                self._give_back(keep=1)
            else:
                wanted = most - share - len(self._locks) + 1
                self._locks += self._governor.take_free(wanted)
        return share + len(self._locks) - 1

    def _give_back(self, keep: int) -> None:
        while len(self._locks) > keep:
            self._governor.give_back(self._locks.pop())

    def close(self) -> None:
        """Gives all back."""
        self._give_back(keep=0)
        self._governor.leave_line(self._places)


class Governor:
    """The slots of this machine, for one process and all its threads."""

    def __init__(self, files: SlotFiles | None = None, machine: Machine | None = None) -> None:
        self._files = files or SlotFiles()
        self._machine = machine or Machine()
        self._count = 0
        self._changed = threading.Condition()
        self._line: deque[_Place] = deque()
        self._has_stand_in = False
        self._has: set[int] = set()
        """The locks of all slots that this process has."""

    def use(self, wanted: int | None = None) -> int:
        """Has this process use so many slots from now on; returns how many.

        Args:
          wanted: by whoever started the run; None for as many as there are cores and memory for.

        Raises:
          SlotFolderError: the folder of the slots is of no use.
        """
        self._files.prepare()
        self._count = wanted or self._fitting()
        return self._count

    def _fitting(self) -> int:
        cores, free_bytes = self._machine.cores(), self._machine.free_bytes()
        if free_bytes is None:
            return cores
        # What those at work have is no longer free, and is theirs for this very use.
        return max(1, min(cores, self._files.count_held() + free_bytes // JOB_BYTES))

    @contextlib.contextmanager
    def slot(self, check: Callable[[], None], share: int = 1) -> Iterator[Slots]:
        """Waits for a slot, and has it for the block.

        Args:
          check: raises what is to end the waiting; called whenever `wake` is.
          share: how many slots the job is to have in the end: for more than one it goes on standing
            in line while it is at work.

        Raises:
          SlotFolderError: the folder of the slots is of no use.
        """
        if not self._count:
            self.use()
        slots = Slots(self, self._wait(check))
        try:
            slots.stand_in_line(share - 1)
            yield slots
        finally:
            slots.close()

    def wake(self) -> None:
        """Has all who wait ask whether they still should."""
        with self._changed:
            self._changed.notify_all()

    def take_free(self, most: int) -> list[int]:
        """Returns the locks of slots that are free and that nobody waits for. Does not wait."""
        with self._files.at_head(self._count, waits=False) as is_head:
            return list(self._free(most)) if is_head else []

    def has_others_waiting(self) -> bool:
        """Returns whether anybody waits for a slot, in this process or another."""
        if self._line:
            return True
        with self._files.at_head(self._count, waits=False) as is_head:
            return not is_head

    def give_back(self, lock: int) -> None:
        """Gives a slot back."""
        self._has.discard(lock)
        self._files.give_back(lock)

    def _free(self, most: int) -> Iterator[int]:
        for slot in reversed(range(self._count)):
            if most <= 0:
                return
            lock = self._files.take(slot)
            if lock is not None:
                most -= 1
                self._has.add(lock)
                yield lock

    def _wait(self, check: Callable[[], None]) -> int:
        with self._changed:
            check()
            if not self._line and (found := self.take_free(1)):
                return found[0]
            (place,) = self.stand_in_line(1)
            try:
                while place.lock is None:
                    check()
                    self._changed.wait()
                    if place.error is not None:
                        raise place.error
            except BaseException:
                self.leave_line([place])
                raise
        return place.lock

    def stand_in_line(self, times: int) -> list[_Place]:
        """Returns so many places at the end of the line of this process."""
        places = [_Place() for _ in range(times)]
        with self._changed:
            if places and not self._has_stand_in:
                threading.Thread(target=self._stand_in, daemon=True, name="codec-slots").start()
                self._has_stand_in = True
            self._line.extend(places)
        return places

    def leave_line(self, places: Sequence[_Place]) -> None:
        """Gives up places, and the slots that they were given."""
        with self._changed:
            for place in places:
                if place.lock is not None:
                    self.give_back(place.lock)
                with contextlib.suppress(ValueError):
                    self._line.remove(place)

    def _stand_in(self) -> None:
        """Stands in the machine's line for as long as anybody stands in this process's."""
        while True:
            with self._changed:
                if not self._line:
                    self._has_stand_in = False
                    return
            try:
                with self._files.at_head(self._count, waits=True), self._files.freed() as freed:
                    began = time.monotonic()
                    while not self._serve_first():
                        _wait_for(freed)
                        began = self._tell_waiting(began)
            except BaseException as error:
                with self._changed:
                    for place in self._line:
                        place.error = error
                    self._line.clear()
                    self._changed.notify_all()

    def _tell_waiting(self, began: float) -> float:
        """Tells the log when nothing of this process is at work for long; returns from when on to
        count again. Args: began: since when it waits.
        """
        if self._has or time.monotonic() - began < _TELLING_SECONDS:
            return began
        logger.warning(
            "no codec job of this process could begin for %d s: other processes have all %d slots "
            "in %s; each file there holds the id of the process that has it, or had it last",
            _TELLING_SECONDS,
            self._count,
            self._files.folder,
        )
        return time.monotonic()

    def _serve_first(self) -> bool:
        """Gives a free slot to the first in line. Returns whether this turn is over: it got one, or
        nobody is left.
        """
        with self._changed:
            if self._line and (lock := next(self._free(1), None)) is not None:
                self._line.popleft().lock = lock
                self._changed.notify_all()
                return True
            return not self._line


def _wait_for(freed: int) -> None:
    looking = select.poll()
    looking.register(freed, select.POLLIN)
    if looking.poll(_LOOK_SECONDS * 1_000):
        with contextlib.suppress(BlockingIOError):  # who waits for other slots may have been first
            os.read(freed, select.PIPE_BUF)
