"""How much of a machine is ours: cores and memory, by what the kernel allows this process.

A container has all cores and all memory of its machine before its eyes, and is given less: what it
is given stands in its control groups (Linux; `cgroups(7)`, the kernel's `cgroup-v2.rst` and
`cgroup-v1/memory.rst`). Elsewhere there are none, and nothing is known of free memory.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_KIB = 1024
_CPU_V1 = "cpu"
_MEMORY_V1 = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine this process is on. The folders are others in tests."""

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")

    def cores(self) -> int:
        """Returns how many cores this process may keep busy: those it may run on, or fewer where
        a quota of its control groups is less. Of a core and a half there are two: with one, a part
        of what is allowed would lie idle.
        """
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        else:
            cores = os.cpu_count() or 1
        return max(1, min([cores, *(math.ceil(quota) for quota in self._quotas())]))

    def free_bytes(self) -> int | None:
        """Returns how much memory may still be taken: what the kernel has left without swapping, or
        what a limit of the control groups leaves. None where neither is told.
        """
        return min((*self._available(), *self._limits_left()), default=None)

    def _quotas(self) -> Iterator[float]:
        """Yields how many cores each group above this process allows it, where one says so."""
        for folder in self._groups(None):
            quota, _, period = _read(folder / "cpu.max").partition(" ")
            if quota.isdigit() and period.isdigit() and int(period):
                yield int(quota) / int(period)
        for folder in self._groups(_CPU_V1):
            quota, period = (_read(folder / f"cpu.cfs_{what}_us") for what in ("quota", "period"))
            if quota.isdigit() and period.isdigit() and int(period):  # -1 is none
                yield int(quota) / int(period)

    def _available(self) -> Iterator[int]:
        for line in _read(self.proc / "meminfo").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable" and (number := value.split()[0]).isdigit():
                yield int(number) * _KIB

    def _limits_left(self) -> Iterator[int]:
        """Yields what each group above this process leaves of its limit. Cached files count as
        used by a group, and make room when it is asked for: those that were not used of late.
        """
        for folder in self._groups(None):
            for limit in ("memory.max", "memory.high"):
                yield from _left(folder, limit, "memory.current", "inactive_file")
        for folder in self._groups(_MEMORY_V1):
            yield from _left(
                folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            )

    def _groups(self, controller: str | None) -> Iterator[Path]:
        """Yields the folders of the groups that this process is in, from its own to the root.

        A container may have its own group mounted as the root, and still be told its name on the
        host: of a name that is not there the groups above count.

        Args:
          controller: of version 1; None for version 2, which has all in one tree.
        """
        for line in _read(self.proc / "self" / "cgroup").splitlines():
            _, controllers, name = [*line.split(":", 2), "", ""][:3]
            if controller is None and not controllers:
                yield from self._above(self.cgroups, name)
            elif controller is not None and controller in controllers.split(","):
                yield from self._above(self.cgroups / controller, name)

    @staticmethod
    def _above(root: Path, name: str) -> Iterator[Path]:
        parts = [part for part in name.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield root.joinpath(*parts[:depth])


def _left(folder: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    allowed, used = _read(folder / limit), _read(folder / usage)
    if not (allowed.isdigit() and used.isdigit()):  # "max" is none
        return
    cached = 0
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == cache and value.isdigit():
            cached = int(value)
    yield max(0, int(allowed) - int(used) + cached)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""
