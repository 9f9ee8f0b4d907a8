"""`extract-audio`, `mix-audio`, `process-all`: a few archives by themselves make byte for byte what
a run makes of them, and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines import cli, press_progress
from pipelines.archive_commands import Wanted
from tests.support.builders import (
    Participant,
    Segment,
    encode_opus,
    make_archive,
    make_call_archive,
    noise,
    tone,
)
from tests.support.command import (
    CAPTURES,
    SAMPLE,
    Finished,
    callpress,
    press,
)
from tests.support.processes import children_of, is_running, wait_until
from tests.support.tls_site import Site, signed
from transforms.codec.pool import CodecPool
from transforms.engine import progress
from transforms.media.errors import StorageError
from transforms.storage import objects, storage_options
from transforms.storage.storage_options import StorageOptions

SECRET = "Planted7Signature0f9e8d7c"
SIGNAL_SECONDS = 3
TONE = tuple(encode_opus(tone(440, 0.5)))


def test_commands_that_begin_early_are_those_that_press() -> None:
    assert set(Wanted) == cli.PRESSING


def test_ctrl_c_before_it_has_begun_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CodecPool, "warm", interrupt)

    done = callpress("mix-audio", "--input-file", SAMPLE, "--output", "/nowhere")

    assert (done.status, done.out, done.err) == (130, "", "")


class Terminal(io.StringIO):
    """Standard error of somebody who watches."""

    def isatty(self) -> bool:
        return True


def test_line_on_a_terminal_tells_how_far_it_is_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(press_progress, "_QUIET_SECONDS", 0)
    monkeypatch.setattr(press_progress, "_LOOK_SECONDS", 0.01)

    with press_progress.showing_progress_on_terminal() as clear:
        progress.add("archives_found", 2)
        progress.add("bytes_found", 10)
        wait_until(lambda: "unpacking  archives 0/2" in shown.getvalue())
        clear()

    assert shown.getvalue().endswith("\r\x1b[K")


def test_work_of_all_calls_is_known_before_the_first_is_made(tmp_path: Path) -> None:
    """What is told to be left would be that of one call."""
    inputs = [
        archive_of(tmp_path / f"{n}.tar", "alice", call_session_id=f"session-{n}") for n in range(2)
    ]
    told: list[str] = []
    stop_listening = progress.listen(lambda what, _number: told.append(what))
    try:
        make("extract-audio", tmp_path / "out", *inputs)
    finally:
        stop_listening()

    assert told.count("samples_extracted") == 2
    assert "samples_found" not in told[told.index("samples_extracted") :]


def sums_of(files: Iterable[Path]) -> dict[str, str]:
    """Returns the SHA-256 of files by their names."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def made_by_run(output: Path) -> dict[str, str]:
    """Returns what a run made, by name alone."""
    return sums_of(file for file in (output / "recordings").rglob("*") if file.is_file())


def make(command: str, output: Path, *inputs: object, flags: tuple[object, ...] = ()) -> Finished:
    """Runs a command over some archives."""
    named = [part for each in inputs for part in ("--input-file", each)]
    return callpress(command, *named, "--output", output, *flags)


def archive_of(path: Path, *participant_ids: str, call_session_id: str = "session-1") -> Path:
    """Writes an archive in which each of some people is heard."""
    people = [
        Participant(
            participant_id=who, segments=[Segment(packets=list(TONE), ssrc=n + 1, start_ms=n * 700)]
        )
        for n, who in enumerate(participant_ids)
    ]
    path.write_bytes(make_call_archive(people, kind="tar", call_session_id=call_session_id))
    return path


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two archives of one call: the first has all of alice, the second bob and the rest of her."""
    folder = tmp_path_factory.mktemp("halves")

    def part(number: int, *people: Participant) -> Path:
        path = folder / f"half{number}.tar.gz"
        path.write_bytes(make_call_archive(people, call_id="two-halves"))
        return path

    def heard(who: str, start_ms: int, ssrc: int, name: str) -> Participant:
        segment = Segment(packets=list(TONE), start_ms=start_ms, ssrc=ssrc, base_filename=name)
        return Participant(participant_id=who, segments=[segment])

    return [
        part(1, heard("alice", 200, 1, "a1")),
        part(2, heard("alice", 1_700, 2, "a2"), heard("bob", 900, 3, "b1")),
    ]


def test_all_files_are_those_of_a_run(pressed: Path, tmp_path: Path) -> None:
    """Three calls together: each is made."""
    expected = made_by_run(pressed)

    done = make("process-all", tmp_path / "out", SAMPLE, CAPTURES / "*.tar.gz")

    assert sums_of((tmp_path / "out").iterdir()) == expected
    lines = {line.split("  ")[0]: line for line in done.out.splitlines()}
    assert lines.keys() == expected.keys()
    for name, line in lines.items():
        size = (tmp_path / "out" / name).stat().st_size
        assert line.endswith(f" s  {size} bytes")
    # What is wrong with a recording the command tells, as the table of failures does.
    assert done.status == (1 if done.err else 0)


@pytest.mark.parametrize(
    ("command", "kinds"), [("extract-audio", {".mkv"}), ("mix-audio", {".mp3"})]
)
def test_one_kind_of_files_is_that_of_a_run(
    command: str, kinds: set[str], pressed: Path, tmp_path: Path
) -> None:
    expected = {
        name: sha256
        for name, sha256 in made_by_run(pressed).items()
        if "weekly-sync" in name and Path(name).suffix in kinds
    }

    done = make(command, tmp_path / "out", SAMPLE)

    assert (done.status, done.err) == (0, "")
    assert sums_of((tmp_path / "out").iterdir()) == expected


def test_two_archives_of_a_call_are_one_call_and_a_profile_counts(
    halves: list[Path], tmp_path: Path
) -> None:
    profile = (
        '[individual]\ncontainer = "webm"\nbegin_with = "mix"\n'
        '[composite]\ntarget_lufs = -18\n[mp3]\nmode = "vbr"\nchannels = 2\n'
    )
    (tmp_path / "as.toml").write_text(profile)
    press(tmp_path / "run", *halves, flags=("--config", tmp_path / "as.toml"))
    expected = made_by_run(tmp_path / "run")
    assert len(expected) == 3
    # Asked for, it is made whatever the profile has switched off; and in any order of the archives.
    for command, off, made in (
        ("process-all", "[individual]\n", expected),
        ("mix-audio", "[composite]\n", {n: s for n, s in expected.items() if n.endswith(".mp3")}),
    ):
        (tmp_path / "off.toml").write_text(profile.replace(off, f"{off}enabled = false\n"))
        done = make(
            command,
            tmp_path / command,
            *reversed(halves),
            flags=("--config", tmp_path / "off.toml"),
        )

        assert (done.status, done.err) == (0, "")
        assert sums_of((tmp_path / command).iterdir()) == made


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--user-id", "dave"), {"dave_sess-dave-1", "dave_sess-dave-1_screenshare"}),
        (("--session-id", "sess-bob-1"), {"bob_sess-bob-1"}),
        (("--track-id", "sess-bob-1:TRACK_TYPE_AUDIO:a13233ef"), {"bob_sess-bob-1"}),
        (
            ("--user-id", "bob", "--user-id", "carol"),
            {"bob_sess-bob-1", "carol_sess-carol-1"},
        ),
    ],
    ids=["user", "session", "track", "two"],
)
def test_only_the_files_asked_for_are_made(
    flags: tuple[str, ...], expected: set[str], pressed: Path, tmp_path: Path
) -> None:
    of_run = made_by_run(pressed)

    done = make("extract-audio", tmp_path / "out", SAMPLE, flags=flags)

    made = sums_of((tmp_path / "out").iterdir())
    assert (done.status, done.err) == (0, "")
    assert {
        name.removeprefix("individual_default_weekly-sync_").split("_audio_only")[0]
        for name in made
    } == {name.removesuffix("_audio") for name in expected}
    assert made.items() <= of_run.items()


def test_mix_has_everybody_whoevers_files_are_asked_for(pressed: Path, tmp_path: Path) -> None:
    done = make("process-all", tmp_path / "out", SAMPLE, flags=("--user-id", "bob"))

    made = sums_of((tmp_path / "out").iterdir())
    assert (done.status, done.err) == (0, "")
    assert sorted(Path(name).suffix for name in made) == [".mkv", ".mp3"]
    assert made.items() <= made_by_run(pressed).items()


@pytest.mark.parametrize(
    ("flag", "there"),
    [
        ("--user-id", "alice, bob, carol, dave"),
        ("--session-id", "sess-alice-1, sess-bob-1, sess-carol-1, sess-dave-1"),
        ("--track-id", "sess-alice-1:TRACK_TYPE_AUDIO:6a2b142f, "),
    ],
)
def test_filter_that_matches_nothing_is_a_line_with_what_there_is(
    flag: str, there: str, tmp_path: Path
) -> None:
    done = make("extract-audio", tmp_path / "out", SAMPLE, flags=(flag, "zoe\x1b[2J"))

    assert done.status == 1
    assert done.err.startswith(
        f"callpress: {flag} zoe\\x1b[2J: not in these archives; there are: {there}"
    )
    assert done.err.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def test_filters_that_no_file_passes_together_are_told_as_there(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tar", "alice", "bob")
    of_bob = ("--session-id", "sess-bob", "--track-id", "sess-bob:TRACK_TYPE_AUDIO")

    done = make("extract-audio", tmp_path / "out", archive, flags=("--user-id", "alice", *of_bob))

    told = "there, but no file of it is also of"
    assert done.status == 1
    assert sorted(done.err.splitlines()) == [
        f"callpress: --session-id sess-bob: {told} --user-id alice and --track-id {of_bob[-1]}",
        f"callpress: --track-id {of_bob[-1]}: {told} --user-id alice and --session-id sess-bob",
        f"callpress: --user-id alice: {told} --session-id sess-bob and --track-id {of_bob[-1]}",
    ]
    assert not list((tmp_path / "out").iterdir())


def test_what_is_there_is_replaced_and_nothing_else_touched(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tar", "alice")
    make("mix-audio", tmp_path / "out", archive)
    (made,) = (tmp_path / "out").iterdir()
    before = sums_of([made])
    made.write_bytes(b"an older one")
    (tmp_path / "out" / "notes.txt").write_text("mine")

    assert make("mix-audio", tmp_path / "out", archive).status == 0

    assert sums_of([made]) == before
    assert {file.name for file in (tmp_path / "out").iterdir()} == {made.name, "notes.txt"}


class Bad(NamedTuple):
    """An archive of which nothing can be used, and what is said of it."""

    content: bytes
    told: str


BAD = {
    "empty.tar.gz": Bad(b"", "the file is empty, expected tar, gzipped tar or zip"),
    "foreign.zip": Bad(make_archive({"a.txt": b"x"}, "zip"), "no *_timing_metadata.json among"),
    "broken.tar.gz": Bad(SAMPLE.read_bytes()[:3_000], "damaged: ends at byte 3000"),
}


@pytest.mark.parametrize("command", ["extract-audio", "mix-audio", "list-tracks"])
def test_bad_archives_are_a_line_each_and_cost_no_neighbour(command: str, tmp_path: Path) -> None:
    for name, bad in BAD.items():
        (tmp_path / name).write_bytes(bad.content)
    good = archive_of(tmp_path / "good.tar", "alice")
    inputs = [*(tmp_path / name for name in BAD), good, tmp_path / "nowhere.tar"]
    named = [part for each in inputs for part in ("--input-file", each)]
    output = () if command == "list-tracks" else ("--output", tmp_path / "out")

    done = callpress(command, *named, *output)

    assert done.status == 1
    for name, bad in BAD.items():
        (line,) = (line for line in done.err.splitlines() if f"/{name}: " in line)
        assert line.startswith(f"callpress: {tmp_path / name}: ")
        assert bad.told.removeprefix("damaged: ").split(" among")[0] in line
    assert f"callpress: {tmp_path / 'nowhere.tar'} matches nothing" in done.err
    assert len(done.err.splitlines()) == len(BAD) + 1
    assert "alice" in done.out or "standup" in done.out
    if output:
        assert len(list((tmp_path / "out").iterdir())) == 1


def test_archive_in_which_nothing_was_sent_is_said(tmp_path: Path) -> None:
    mute = tmp_path / "mute.tar"
    people = [Participant(participant_id="alice", segments=[])]
    mute.write_bytes(make_call_archive(people, kind="tar"))

    done = make("process-all", tmp_path / "out", mute)

    assert done.status == 1
    assert done.err == f"callpress: {mute}: nothing was sent in it\n"
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("command", "told", "made"),
    [("extract-audio", "nothing", 0), ("process-all", "no individual file", 1)],
)
def test_somebody_asked_for_who_sent_nothing_is_said(
    command: str, told: str, made: int, tmp_path: Path
) -> None:
    heard = Participant(participant_id="alice", segments=[Segment(packets=list(TONE))])
    archive = tmp_path / "a.tar"
    people = [heard, Participant(participant_id="mute")]
    archive.write_bytes(make_call_archive(people, kind="tar"))

    done = make(command, tmp_path / "out", archive, flags=("--user-id", "mute"))

    assert done.status == 1
    assert done.err == (f"callpress: {told} was made: nothing of what was asked for was sent\n")
    assert len(list((tmp_path / "out").iterdir())) == made


def test_what_a_profile_leaves_out_is_not_told_as_never_sent(tmp_path: Path) -> None:
    share = Segment(packets=list(TONE), track_type="TRACK_TYPE_SCREEN_SHARE_AUDIO")
    archive = tmp_path / "a.tar"
    people = [Participant(participant_id="alice", segments=[share])]
    archive.write_bytes(make_call_archive(people, kind="tar"))

    done = make("extract-audio", tmp_path / "out", archive, flags=("--config", "podcast"))

    assert (done.status, done.out) == (1, "")
    assert done.err.endswith("was sent, or all of it is left out by --config\n")


def test_part_of_a_call_that_is_missing_is_said_and_the_rest_made(tmp_path: Path) -> None:
    segments = [Segment(packets=list(TONE)), Segment(packets=list(TONE), ssrc=2, with_dump=False)]
    people = [Participant(participant_id=f"p{n}", segments=[s]) for n, s in enumerate(segments)]
    archive = tmp_path / "a.tar"
    archive.write_bytes(make_call_archive(people, kind="tar"))

    done = make("process-all", tmp_path / "out", archive)

    assert done.status == 1
    assert done.err.startswith(f"callpress: {archive}: ")
    assert done.err.count("\n") == 1
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_folder_that_cannot_be_read_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    done = make("mix-audio", tmp_path / "out", tmp_path / "locked")

    assert done.status == 1
    assert done.err == f"callpress: {tmp_path / 'locked'}/: Permission denied\n"


def test_output_that_cannot_be_written_is_a_line_and_nothing_begun(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for output, why in (
        (tmp_path / "file", "File exists"),
        (Path("/proc/nothing"), "No such file or directory"),
    ):
        done = make("mix-audio", output, SAMPLE)

        assert done.status == 1
        assert done.err == f"callpress: {output}: cannot be written: {why}\n"
        assert done.out == ""
    assert (tmp_path / "file").read_text() == "x"


def test_disk_that_fills_up_costs_the_files_that_did_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(tmp_path / "a.tar", "alice", "bob")
    move = objects.move

    def fill_up(uri: str, source: Path) -> None:
        if "_bob_" in uri:
            raise StorageError(f"{uri}: No space left on device")
        move(uri, source)

    monkeypatch.setattr(objects, "move", fill_up)

    done = make("process-all", tmp_path / "out", archive)

    assert done.status == 1
    assert done.err.endswith(": No space left on device\n")
    assert done.err.count("\n") == 1
    names = [file.name for file in (tmp_path / "out").iterdir()]
    assert len(names) == 2
    assert not any("_bob_" in name for name in names)


def test_two_sessions_of_a_call_with_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    first = archive_of(tmp_path / "a.tar", "alice", call_session_id="one")
    second = archive_of(tmp_path / "b.tar", "bob", call_session_id="two")

    done = make("mix-audio", tmp_path / "out", first, second)

    assert done.status == 1
    assert len(done.out.splitlines()) == len(list((tmp_path / "out").iterdir())) == 1
    assert "would replace the file of the same name of session one" in done.err


def test_archive_behind_a_signed_link_is_pressed_and_its_signature_not_told(
    tls_site: Site, tmp_path: Path
) -> None:
    storage_options.use(StorageOptions())  # that it is named allows the address
    archive = archive_of(tmp_path / "a.tar", "alice")
    link = tls_site.put("/raw/a.tar", archive.read_bytes())
    expired = tls_site.link("/raw/gone.tar")

    done = make("process-all", tmp_path / "out", signed(link, SECRET, "20260105T100000Z", 3_600))
    gone = make("mix-audio", tmp_path / "out", signed(expired, SECRET, "20260105T100000Z", 3_600))

    assert (done.status, done.err) == (0, "")
    assert len(done.out.splitlines()) == len(list((tmp_path / "out").iterdir())) == 2
    assert gone.status == 1
    assert gone.err.startswith(f"callpress: {expired}: ")
    assert gone.err.count("\n") == 1
    assert SECRET not in done.out + gone.out + gone.err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--output", "out"), "--input-file is required; see callpress --help"),
        (("--input-file", "a.tar"), "--output is required; see callpress --help"),
        (
            ("--input-file", "a.tar", "--output", "out", "--session-id", "s"),
            "mix-audio does not know --session-id; see callpress --help",
        ),
        (("--input-file", "", "--output", "out"), "--input-file '' names nothing, "),
        (
            ("--input-file", "a.tar", "--output", f"https://h/x?sig={SECRET}"),
            "--output https://h/x",
        ),
        (("--input-file", "a.tar", "--output", "out", "--config", "nix"), "--config nix: "),
    ],
    ids=["no-input", "no-output", "no-such-flag", "nameless", "link", "profile"],
)
def test_wrong_usage_is_a_line(flags: tuple[str, ...], told: str) -> None:
    done = callpress("mix-audio", *flags)

    assert done.status == 2
    assert done.err.startswith(f"callpress: {told}")
    assert done.err.count("\n") == 1
    assert SECRET not in done.err


@pytest.fixture(scope="module")
def long_call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive that takes some seconds to mix."""
    packets = list(encode_opus(noise(20), bitrate_bps=64_000)) * 30
    people = [
        Participant(
            participant_id=f"p{n}",
            segments=[Segment(packets=packets, ssrc=n + 1, base_filename=f"d{n}")],
        )
        for n in range(3)
    ]
    path = tmp_path_factory.mktemp("long") / "long.tar"
    path.write_bytes(make_call_archive(people, kind="tar"))
    return path


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["int", "term", "hup"],
)
def test_signal_ends_it_at_once_and_leaves_whole_files_only(
    number: int, expected: int, long_call: Path, tmp_path: Path
) -> None:
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    command = ("process-all", "--input-file", long_call, "--output", out)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    wait_until(lambda: list(temporary.glob("*/work/*/mix")) or process.poll() is not None)
    children = children_of(process.pid)
    began = time.monotonic()
    process.send_signal(number)
    said, err = process.communicate(timeout=60)

    assert process.returncode == expected
    assert time.monotonic() - began < SIGNAL_SECONDS
    assert err.strip() == "callpress: stopped; 3 whole files made"
    assert {line.split("  ")[0] for line in said.splitlines()} == {f.name for f in out.iterdir()}
    assert len(list(out.iterdir())) == 3
    assert [each.name for each in temporary.iterdir()] == [f"callpress-slots-{os.geteuid()}"]
    wait_until(lambda: not any(map(is_running, children)), 2)
