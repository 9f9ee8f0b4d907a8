"""Runs the command as a user does, and reads back what it made.

Other programs read the media and the tables, where there are any: what this project wrote wrong it
might also read wrong.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam  # noqa: F401 - the command freezes what is there when it imports Beam, and these objects are not its own
import duckdb
import numpy as np
import numpy.typing as npt

from pipelines.cli import main
from tests.support import schemas

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples" / "weekly_sync.tar.gz"
CAPTURES = ROOT / "tests" / "data" / "captures"
DTX_STALLS = CAPTURES / "capture_dtx_stalls.tar.gz"
STEREO_STALLS = CAPTURES / "capture_stereo_stalls.tar.gz"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command that ended."""

    status: int
    out: str
    err: str


def callpress(*arguments: object) -> Finished:
    """Runs the command in this process: starting Python and Beam is most of what a small run
    costs.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # --help and --version
            status = int(ended.code or 0)
    schemas.look_at_printed(arguments, out.getvalue())
    return Finished(status=status, out=out.getvalue(), err=err.getvalue())


def callpress_process(
    *arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None
) -> Finished:
    """Runs the command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=240,
    )
    schemas.look_at_printed(arguments, done.stdout)
    return Finished(status=done.returncode, out=done.stdout, err=done.stderr)


def press(output: Path, *inputs: object, flags: tuple[object, ...] = ()) -> Finished:
    """Runs `callpress run` over some inputs and expects it to go well."""
    named = [part for source in inputs for part in ("--input", source)]
    done = callpress("run", *named, "--output", output, *flags)
    assert done.status == 0, done.err + done.out
    return done


def query(catalog: Path, table: str) -> list[dict[str, Any]]:
    """Reads a table with the contract's plain query, by DuckDB."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    found = connection.execute(
        f"SELECT * FROM read_parquet('{catalog}/{table}/*/*.parquet', hive_partitioning = true, "
        "union_by_name = true)"
    )
    names = [column[0] for column in found.description]
    rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return sorted(
        rows,
        key=lambda row: json.dumps(
            {k: str(v) for k, v in row.items() if k != "run_id"}, sort_keys=True
        ),
    )


def decode_with_ffmpeg(path: str | Path, channels: int) -> npt.NDArray[np.float32]:
    """Returns what ffmpeg hears in a file: float32, (samples, channels), at the file's own 48
    kHz.
    """
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "f32le", "-"],
        capture_output=True,
        check=True,
    ).stdout
    return np.frombuffer(raw, dtype=np.float32).reshape(-1, channels)


def count_with_gstreamer(path: str | Path, channels: int) -> int:
    """Returns how many samples GStreamer decodes from a Matroska file."""
    caps = f"audio/x-raw,format=F32LE,channels={channels},rate=48000"
    pipeline = [
        "filesrc",
        f"location={path}",
        "!",
        "matroskademux",
        "!",
        "opusdec",
        "!",
        "audioconvert",
        "!",
        caps,
        "!",
    ]
    raw = subprocess.run(
        ["gst-launch-1.0", "-q", *pipeline, "fdsink"], capture_output=True, check=True
    ).stdout
    return len(raw) // 4 // channels


def copy_tree(source: Path, target: Path) -> Path:
    """Copies a pressed output so that a test may change it."""
    shutil.copytree(source, target)
    return target
