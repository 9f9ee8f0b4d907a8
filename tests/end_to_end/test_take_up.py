"""Runs killed at any moment: what they had completed is taken up, byte for byte, and only the rest
is pressed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
from tests.support.command import callpress, press, query
from tests.support.tls_site import running_site, signed
from transforms.catalog.bundles import WrittenBundle
from transforms.catalog.schema import TABLES
from transforms.media.errors import StorageError
from transforms.recovery import completed_work

CALLS = ("one", "two", "three")
_ONE_CALL_A_BUNDLE = (
    "import sys; from transforms.catalog import gathering; gathering.MOST_PIECES = 1; "
    "from pipelines.cli import main; sys.exit(main())"
)
"""The command, which leaves what it has completed at once and not after 30 s."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three archives of a call each, 40 s long."""
    folder = tmp_path_factory.mktemp("raw")
    for number, call_id in enumerate(CALLS):
        packets = encode_opus(tone(300 + 100 * number, 5)) * 8
        people = [
            Participant(participant_id=name, segments=[Segment(packets=packets, ssrc=ssrc)])
            for ssrc, name in ((1, "alice"), (2, "bob"))
        ]
        archive = make_call_archive(people, call_id=call_id, call_session_id=f"session-{call_id}")
        (folder / f"{call_id}.tar.gz").write_bytes(archive)
    return folder


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run makes of them."""
    output = tmp_path_factory.mktemp("whole")
    press(output, raw / "*.tar.gz")
    return output


def kill_when(
    output: Path,
    raw: Path,
    is_time: Callable[[Path], bool],
    number: int = signal.SIGKILL,
    flags: Sequence[str] = (),
) -> int:
    """Runs with one codec process and sends a signal as soon as the time has come; returns the exit
    status. Args: flags: what to press, where it is not all of `raw`.
    """
    command = [
        sys.executable,
        "-c",
        _ONE_CALL_A_BUNDLE,
        "run",
        *(flags or ("--input", str(raw / "*.tar.gz"))),
        "--output",
        str(output),
    ]
    run = subprocess.Popen(
        [*command, "--codec-processes=1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 180  # where nobody else is at work it takes some 5
    while not is_time(output):
        assert run.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(number)
    return run.wait(20)


def completed(output: Path) -> set[str]:
    """Returns the calls that a dead run has left as completed."""
    found: set[str] = set()
    for note in output.glob(".staging/*/*/bundles/*.jsonl"):
        with contextlib.suppress(StorageError):  # one that is being written is none yet
            calls = completed_work.calls_in(WrittenBundle(str(note)))
            found.update(each.pressed.call.call_id for each in calls)
    return found


def contents(output: Path) -> dict[str, str]:
    """Returns the hash of every media file by its name."""
    found = (path for path in (output / "recordings").rglob("*") if path.is_file())
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
    }


def tables(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of the calls less what says who made them and where."""
    differ = ("run_id", "created_at", "uri", "processed_at", "call_date")
    return {
        table: [
            {k: v for k, v in row.items() if k not in differ}
            for row in query(output / "catalog", table)
        ]
        for table in TABLES
        if table != "runs"
    }


def check_whole(output: Path, whole: Path) -> None:
    assert contents(output) == contents(whole)
    assert tables(output) == tables(whole)
    assert not (output / ".staging").exists()
    assert not list(output.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_completed_calls_are_taken_up_and_the_rest_is_pressed(
    raw: Path, whole: Path, tmp_path: Path, number: int
) -> None:
    kill_when(tmp_path, raw, lambda output: bool(completed(output)), number)
    done = completed(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "recordings").rglob("*.mp3")}

    again = press(tmp_path, raw / "*.tar.gz")

    assert f"took up {len(done)} calls" in again.err
    assert f"{len(done)} skipped" in again.out
    check_whole(tmp_path, whole)
    for path, made in before.items():
        if any(call in str(path) for call in done):
            assert path.stat().st_mtime_ns == made
    assert "took up" not in press(tmp_path, raw / "*.tar.gz").err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_completed_calls_of_a_manifest_are_taken_up_without_a_request(
    raw: Path, tmp_path: Path, number: int
) -> None:
    output, manifest = tmp_path / "out", tmp_path / "links.txt"
    with running_site(None) as site:
        links = [site.put(f"/{path.name}", path.read_bytes()) for path in raw.iterdir()]
        signed_links = [signed(link, "PLANTED", "29990101T000000Z", 60) for link in links]
        manifest.write_text("\n".join(signed_links[1:]))
        named = ("--manifest", str(manifest), "--input", signed_links[0])
        flags = (*named, "--allow-private-addresses")
        kill_when(output, raw, lambda output: bool(completed(output)), number, flags)
        done = completed(output)
        staged = list(output.glob(".staging/*/manifests/*"))
        assert bool(staged) == (number == signal.SIGKILL)
        for call_id in done:  # nobody is asked for what is done
            del site.pages[f"/{call_id}.tar.gz"]
        site.requests.clear()

        again = callpress("run", "--output", output, *flags)

        assert again.status == 0, again.err
        assert f"took up {len(done)} calls" in again.err
        assert f"{len(done)} skipped" in again.out
        assert {request.path for request in site.requests} == {
            f"/{call_id}.tar.gz" for call_id in set(CALLS) - done
        }
    assert {row["archive_uri"] for row in query(output / "catalog", "archives")} == set(links)
    for path in staged:  # another launcher's job may wait for it: it goes after a day
        path.unlink()
    left = [path for path in output.rglob("*") if path.is_file()]
    assert not [path for path in left if b"PLANTED" in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "is_time",
    [
        lambda output: any(output.glob(".staging/*/*/packets/*")),
        lambda output: any(output.glob("recordings/*/*/*/*.mkv")),
        lambda output: any(output.glob("catalog/*/*/*.parquet")),
        lambda output: any(output.glob("catalog/archives/*/*.parquet")),
    ],
    ids=["unpacking", "extracting", "publishing", "recording-archives"],
)
def test_run_killed_at_some_moment_is_completed_by_the_next(
    raw: Path, whole: Path, tmp_path: Path, is_time: Callable[[Path], bool]
) -> None:
    kill_when(tmp_path, raw, is_time)

    press(tmp_path, raw / "*.tar.gz")

    check_whole(tmp_path, whole)


@pytest.fixture(scope="module")
def run_killed_late(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The place of a run that was killed before it could publish a row, and a copy of what was
    there then: it can go on only where it lay.
    """
    place = tmp_path_factory.mktemp("killed")
    shutil.copytree(raw, place / "raw")
    output = place / "out"
    kill_when(output, place / "raw", lambda output: len(completed(output)) == len(CALLS))
    shutil.rmtree(output / "catalog", ignore_errors=True)  # the same as killed a moment earlier
    kept = tmp_path_factory.mktemp("kept") / "place"
    shutil.copytree(place, kept)
    return place, kept


@pytest.fixture
def killed(run_killed_late: tuple[Path, Path]) -> tuple[Path, Path]:
    """The archives and the output of that run, as it left them."""
    place, kept = run_killed_late
    shutil.rmtree(place)
    shutil.copytree(kept, place)
    return place / "raw", place / "out"


@pytest.mark.slow
def test_completed_call_of_which_the_archive_is_gone_is_taken_up(
    killed: tuple[Path, Path], whole: Path
) -> None:
    folder, output = killed
    (folder / "one.tar.gz").unlink()

    assert f"took up {len(CALLS)} calls" in press(output, folder / "*.tar.gz").err

    assert contents(output) == contents(whole)
    assert {
        row["call_id"]: row["status"] for row in query(output / "catalog", "calls")
    } == dict.fromkeys(CALLS, "ok")


@pytest.mark.slow
def test_what_changed_since_is_pressed_anew(killed: tuple[Path, Path], whole: Path) -> None:
    folder, output = killed
    os.utime(folder / "one.tar.gz", (1, 1_800_000_000))
    (mix,) = (output / "recordings" / "default" / "two").rglob("*.mp3")
    mix.write_bytes(mix.read_bytes()[:-1] + b"\0")

    again = press(output, folder / "*.tar.gz")

    assert "took up 1 calls" in again.err
    assert "1 skipped" in again.out
    assert contents(output) == contents(whole)


@pytest.mark.slow
def test_calls_made_with_other_settings_are_not_taken_up(
    killed: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, output = killed
    config = tmp_path / "other.toml"
    config.write_text("[mp3]\nbitrate_kbps = 64\n")

    done = callpress("run", "--input", folder / "*.tar.gz", "--output", output, "--config", config)

    assert (done.status, "took up" in done.err) == (0, False)
    assert {
        row["bitrate_bps"]
        for row in query(output / "catalog", "recordings")
        if row["codec"] == "mp3"
    } == {64_000}
