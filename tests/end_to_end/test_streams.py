"""Standard output and error that cannot take what is written: it costs the message, not the
work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.beam import speak
from tests.support.builders import Participant, Segment, make_call_archive
from tests.support.command import ROOT, SAMPLE, query


def _sh(line: str, *arguments: object, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of the shell, in which `$P` is the command and $1 and on are the arguments."""
    return subprocess.run(
        ["bash", "-c", f"P() {{ {sys.executable} -m pipelines.cli \"$@\"; }}\n{line}", "sh",
         *map(str, arguments)],
        capture_output=True, check=False, cwd=ROOT, env={**os.environ, **env}, timeout=240,
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        'P inspect "$1" >&-',
        'P inspect "$1" > /dev/full',
        'P inspect "$1" --json > /dev/full',
        'P inspect "$1" | head -1 > /dev/null; exit ${PIPESTATUS[0]}',
        'P inspect "$1" >&- 2>&-',
        "P --help >&-",
        "P --version > /dev/full",
    ],
)
def test_output_that_goes_nowhere_fails_nothing(line: str) -> None:
    done = _sh(line, SAMPLE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_status_is_that_of_the_work_also_where_the_error_goes_nowhere(tmp_path: Path) -> None:
    assert _sh('P verify --catalog "$1" 2>&-', tmp_path).returncode == 1
    assert _sh("P run --no-such-flag 2> /dev/full").returncode == 2


def test_run_without_any_standard_stream_presses_all(tmp_path: Path) -> None:
    done = _sh('P run --input "$1" --output "$2" <&- >&- 2>&-', SAMPLE, tmp_path / "out")
    assert done.returncode == 0
    (row,) = query(tmp_path / "out" / "catalog", "runs")
    assert (row["status"], row["archives_ok"]) == ("ok", 1)
    assert len(list((tmp_path / "out" / "recordings").rglob("*.m*"))) == 6


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_names_that_an_encoding_cannot_spell_are_escaped(tmp_path: Path, encoding: str) -> None:
    name = "z\u0142\u00f3ty \U0001f600"
    person = Participant(participant_id=name, segments=[Segment(packets=speak())])
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(make_call_archive([person]))
    for flags in ((), ("--json",)):
        done = _sh('P inspect "$@"', archive, *flags, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, b"")
        out = done.stdout.decode(encoding)
        assert "z\\u0142" in out
        if flags:
            assert json.dumps(json.loads(out), ensure_ascii=False).count(name) >= 1
