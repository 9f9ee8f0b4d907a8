"""How much memory and disk a worker's machine needs, by what was measured (`benchmarks/README.md`).

The constants stand here once: the rows of `benchmarks/run` compare with them, and so do the
machines of `configs/*.flags`. 1 GB is 10^9 bytes.
"""

from __future__ import annotations

from transforms.codec.governor import JOB_BYTES

SDK_PROCESS_BYTES = 400_000_000
"""Of the process that drives the codec processes; 229 to 297 MB were measured, 20 people in a call
of 8 hours among them.
"""
ROWS_BYTES = 70_000_000
"""The rows of a call of 8 hours with 20 people, of which each thread may have one: what the process
held beyond the 229 MB it has with nothing to do.
"""
_CODEC_START_BYTES = 90_000_000
"""87 MB were measured with segments of 5 minutes."""
PACKET_BYTES = 100
"""Of the longest segment, in a codec process."""
PACKETS_PER_HOUR = 180_000
"""Of 20 ms, as browsers send them."""
SYSTEM_BYTES = 1_500_000_000
"""The system and what the engine itself runs on a machine: a guess, not measured."""

SYSTEM_DISK_BYTES = 25_000_000_000
"""The system, the image and logs: what Dataflow's pages say that each worker needs."""
STAGED_RATIO = 1.3
"""Bytes staged by the Opus packets they hold; 1.28 was measured."""
FOLDERS_PER_CORE = 2
"""Archives on disk: while one is unpacked, the one before it is put away in the temporary place."""


def codec_process_bytes(segment_hours: float) -> int:
    """Returns the memory of a codec process. Args: segment_hours: the longest segment."""
    packets = segment_hours * PACKETS_PER_HOUR
    return max(JOB_BYTES, round(_CODEC_START_BYTES + PACKET_BYTES * packets))


def memory_bytes(cores: int, threads: int, codec_bytes: int) -> int:
    """Returns the memory that a machine needs.

    Args:
      cores: of the machine; as many codec processes are at work.
      threads: bundles at a time (`--number_of_worker_harness_threads`).
      codec_bytes: of a codec process: `codec_process_bytes`, or what it may have at most
        (`[limits] codec_memory_bytes`), to withstand an archive made to take it.
    """
    return SYSTEM_BYTES + SDK_PROCESS_BYTES + threads * ROWS_BYTES + cores * codec_bytes


def disk_bytes(cores: int, archive_bytes: int) -> int:
    """Returns the disk that a machine needs.

    Args:
      cores: of the machine.
      archive_bytes: of audio in the largest archive, expanded; its video and all else is passed
        over as it comes.
    """
    folders = FOLDERS_PER_CORE * cores
    return SYSTEM_DISK_BYTES + round(folders * STAGED_RATIO * archive_bytes)
