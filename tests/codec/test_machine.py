"""What a machine has for us: cores and memory, by affinity and control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from transforms.codec.machine import Machine

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
NO_LIMIT = 9_223_372_036_854_771_712
"""What version 1 says for none."""


def make_machine(
    folder: Path, groups: str, files: Mapping[str, object], available_kib: int | None = None
) -> Machine:
    """Returns a machine with such control groups.

    Args:
      folder: where its files go.
      groups: /proc/self/cgroup.
      files: what is in files below /sys/fs/cgroup.
      available_kib: by /proc/meminfo.
    """
    for name, text in {
        "proc/self/cgroup": groups,
        "proc/meminfo": ""
        if available_kib is None
        else f"MemTotal:       99999999 kB\nMemAvailable:   {available_kib} kB\n",
        **{f"cgroup/{name}": text for name, text in files.items()},
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return Machine(proc=folder / "proc", cgroups=folder / "cgroup")


V2 = "0::/"
V2_NESTED = "0::/system.slice/callpress.service"
V1 = "4:memory:/job\n2:cpu,cpuacct:/job\n1:name=systemd:/job\n0::/job"
V1_OF_HOST = "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 64),
        (V2, {"cpu.max": "max 100000"}, 64),
        (V2, {"cpu.max": "200000 100000"}, 2),
        (V2, {"cpu.max": "150000 100000"}, 2),
        (V2, {"cpu.max": "50000 100000"}, 1),
        (V2, {"cpu.max": "99900000 100000"}, 64),
        (V2_NESTED, {"system.slice/callpress.service/cpu.max": "300000 100000"}, 3),
        (
            V2_NESTED,
            {
                "system.slice/callpress.service/cpu.max": "max 100000",
                "system.slice/cpu.max": "400000 100000",
                "cpu.max": "500000 100000",
            },
            4,
        ),
        (V1, {"cpu/job/cpu.cfs_quota_us": -1, "cpu/job/cpu.cfs_period_us": 100000}, 64),
        (V1, {"cpu/job/cpu.cfs_quota_us": 250000, "cpu/job/cpu.cfs_period_us": 100000}, 3),
        (V1_OF_HOST, {"cpu/cpu.cfs_quota_us": 700000, "cpu/cpu.cfs_period_us": 100000}, 7),
        (V2, {"cpu.max": ""}, 64),
        (V2, {"cpu.max": "100000 0"}, 64),
        (V2, {"cpu.max": "what is this"}, 64),
        ("0::/../..", {"cpu.max": "100000 100000"}, 1),
        ("nonsense\n:\n0", {}, 64),
    ],
)
def test_cores_are_those_a_quota_leaves(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: str,
    files: dict[str, object],
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))

    assert make_machine(tmp_path, groups, files).cores() == expected


def test_cores_are_those_a_process_may_run_on() -> None:
    code = (
        "import os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from transforms.codec.machine import Machine\n"
        "print(Machine().cores())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "1\n"


def test_cores_without_affinity_are_those_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)

    assert make_machine(tmp_path, "", {}).cores() == 6


@pytest.mark.parametrize(
    ("groups", "files", "available_kib", "expected"),
    [
        ("", {}, None, None),
        ("", {}, 4 * 1024, 4 * MIB),
        (V2, {"memory.max": "max", "memory.current": 5 * MIB}, 9 * 1024, 9 * MIB),
        (V2, {"memory.max": 8 * MIB, "memory.current": 5 * MIB}, 9 * 1024, 3 * MIB),
        (
            V2,
            {
                "memory.max": 8 * MIB,
                "memory.current": 5 * MIB,
                "memory.stat": f"anon {MIB}\ninactive_file {2 * MIB}\nactive_file {MIB}",
            },
            9 * 1024,
            5 * MIB,
        ),
        (V2, {"memory.max": 8 * MIB, "memory.current": 9 * MIB}, 9 * 1024, 0),
        (
            V2,
            {"memory.max": "max", "memory.high": 6 * MIB, "memory.current": 5 * MIB},
            9 * 1024,
            MIB,
        ),
        (
            V2_NESTED,
            {
                "system.slice/callpress.service/memory.max": "max",
                "system.slice/callpress.service/memory.current": MIB,
                "system.slice/memory.max": 6 * MIB,
                "system.slice/memory.current": 2 * MIB,
            },
            None,
            4 * MIB,
        ),
        (
            V1,
            {
                "memory/job/memory.limit_in_bytes": NO_LIMIT,
                "memory/job/memory.usage_in_bytes": MIB,
            },
            7 * 1024,
            7 * MIB,
        ),
        (
            V1,
            {
                "memory/job/memory.limit_in_bytes": 6 * MIB,
                "memory/job/memory.usage_in_bytes": 4 * MIB,
                "memory/job/memory.stat": f"inactive_file 0\ntotal_inactive_file {MIB}",
            },
            7 * 1024,
            3 * MIB,
        ),
        (
            V1_OF_HOST,
            {"memory/memory.limit_in_bytes": 6 * MIB, "memory/memory.usage_in_bytes": 5 * MIB},
            7 * 1024,
            MIB,
        ),
    ],
)
def test_free_memory_is_what_the_kernel_and_limits_leave(
    tmp_path: Path,
    groups: str,
    files: dict[str, object],
    available_kib: int | None,
    expected: int | None,
) -> None:
    assert make_machine(tmp_path, groups, files, available_kib).free_bytes() == expected


def test_this_machine_can_be_asked() -> None:
    machine = Machine()

    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
    assert machine.free_bytes() is None or machine.free_bytes() > 0  # type: ignore[operator]
