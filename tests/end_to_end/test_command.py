"""The command itself: usage errors in one line, exit statuses, inspect, clean ends."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.job_profile import load_profile
from tests.support.builders import (
    Participant,
    Segment,
    encode_opus,
    make_archive,
    make_call_archive,
    make_timing_metadata,
    noise,
    write_folder,
)
from tests.support.command import ROOT, SAMPLE, callpress, callpress_process, press, query
from transforms.media.settings import PressSettings


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "a command is needed"),
        (("rnu",), 2, "invalid choice"),
        (("run", "--output", "x"), 2, "--input or --manifest is required"),
        (
            ("run", "--inptu", "x", "--output", "y"),
            2,
            "unknown option --inptu, did you mean --input?",
        ),
        (("run", "--input", "x"), 2, "--output is required"),
        (("run", "--input", "x", "--output", "y", "--projct=z"), 2, "did you mean --project?"),
        (
            ("run", "--input", "x", "--output", "y", "--output_type=video_only"),
            2,
            "invalid choice: 'video_only'",
        ),
        (("run", "--input", "x", "--output", "y", "--call", "standup"), 2, "TYPE:ID"),
        (("run", "--input", "x", "--output", "y", "--since", "yesterday"), 2, "--since yesterday"),
        (("run", "--input", "x", "--output", "y", "stray"), 2, "'stray' belongs to no option"),
        (
            ("run", "--codec-processes=2", "--input", "x", "y.gz", "--output", "z"),
            2,
            "'y.gz' belongs to no option",
        ),
        *(
            (("run", "--input", "x", "--output", "y", "--codec-processes", given), 2, "1 to 1024")
            for given in ("0", "-1", "two", "1.5", "1025", "٣")
        ),
        *(
            (
                ("run", "--input", "x", "--output", "y", flag, "2"),
                2,
                "expected --codec-processes N",
            )
            for flag in ("--direct_num_workers", "--direct-num-workers")
        ),
        (
            ("run", "--input", "x", "--output", "y", "--runner=PrismRunner"),
            2,
            "--temp_location is needed",
        ),
        (
            ("run", "--input", "x", "--output", "y", "--runner=Foo", "--temp_location=z"),
            2,
            "--runner Foo",
        ),
        (
            ("run", "--input", "x", "--output", "y", "--since", "99999999999d"),
            2,
            "before the calendar",
        ),
        (
            ("run", "--input", "x", "--output", "y", "--log-file", "/nowhere/log"),
            2,
            "--log-file /nowhere/log",
        ),
        (
            ("run", "--input", "SAMPLE", "--output", "OUT", "--summary-json", "/proc/none/x"),
            1,
            "cannot be written",
        ),
        (("run", "--input", "x", "--output", "y", "--config", "/nowhere.toml"), 2, "No such file"),
        (
            ("run", "--input", "x", "--output", "y", "--config", "podcats"),
            2,
            "did you mean podcast?",
        ),
        (("run", "--input", "/nowhere/*", "--output", "OUT"), 1, "/nowhere/* matches nothing"),
        (("run", "--input", "EMPTY", "--output", "OUT"), 1, "is a folder without"),
        (("run", "--input", "SAMPLE", "--output", "/proc/nothing"), 1, "cannot be written"),
        (
            ("run", "--in", "x", "--output", "y"),
            2,
            "unknown option --in, did you mean --input?",
        ),
        (("run", "--input", "x", "--output", "y", "--verb"), 2, "did you mean --verbose?"),
        (("run", "--input", "x", "--output", "y", "--output=z"), 2, "--output: given twice"),
        (
            ("run", "--summary_json", "x", "--output", "y", "--summary-json=z"),
            2,
            "--summary-json: given twice",
        ),
        (("run", "-v", "--output", "y", "--verbose"), 2, "-v/--verbose: given twice"),
        (
            ("run", "--input", "x", "--output", "y", "--temp_loc=z", "--runner=PrismRunner"),
            2,
            "unknown option --temp-loc, did you mean --temp-location?",
        ),
        (
            ("run", "--input", "x", "--output", "y", "--project=a", "--project", "b"),
            2,
            "--project: given twice",
        ),
        (("inspect", "x", "--js"), 2, "does not know --js"),
        (("inspect", "x", "--config", "a", "--config", "b"), 2, "--config: given twice"),
        (("verify", "--catalog", "x", "--catalog", "y"), 2, "--catalog: given twice"),
        (("verify", "--cat", "x"), 2, "does not know --cat"),
        (("inspect", "/nowhere.tar.gz"), 1, "matches nothing"),
        (("inspect", "x", "--jsn"), 2, "does not know --jsn"),
    ],
    ids=lambda value: "-".join(value)[-40:] if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_one_clear_line(
    arguments: tuple[str, ...],
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # some name files beside them
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.tar.gz").write_bytes(b"x")
    named = {"SAMPLE": SAMPLE, "OUT": tmp_path / "out", "EMPTY": tmp_path / "empty"}
    done = callpress(*(named.get(argument, argument) for argument in arguments))
    assert done.status == status
    assert message in done.err
    last = done.err.strip().split("\n")[-1]
    assert last.startswith("callpress: ")
    assert "Traceback" not in done.err
    assert not (tmp_path / "out" / "recordings").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mp3]\nbitrate = 64\n", "unknown key mp3.bitrate, did you mean mp3.bitrate_kbps?"),
        ("[mp4]\n", "unknown key mp4, did you mean mp3?"),
        ("[mp3]\nbitrate_kbps = 100\n", "expected one of [32, 40"),
        ("[mp3]\nvbr_quality = 10\n", "expected 0 (best) to 9"),
        ('[mp3]\nmode = "abr"\n', "mp3.mode"),
        ('[mp3]\nchannels = "two"\n', 'expected "auto", 1 or 2'),
        ('[individual]\ncontainer = "mp4"\n', "individual.container"),
        ("[individual]\noutput_types = []\n", "output_types is empty"),
        ("[individual]\nenabled = false\n[composite]\nenabled = false\n", "nothing would be made"),
        ("max_failed_ratio = 2\n", "expected 0 to 1"),
        ("max_failed_count = -1\n", 'expected "off" or 0 or more'),
        ("max_failed_count = true\n", "max_failed_count"),
        ('max_failed_count = "ten"\n', "max_failed_count is 'ten'"),
        ("max_failed_count = 0.5\n", "max_failed_count"),
        ("[limits]\nmax_members = 0\n", "expected a positive number"),
        ("[mp3\n", "not TOML"),
        ('[composite]\nenabled = "yes"\n', "composite.enabled"),
        ("[mp3]\nchannels = true\n", "mp3.channels"),
    ],
)
def test_a_wrong_config_is_one_clear_line(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text(text)
    done = callpress("run", "--input", SAMPLE, "--output", tmp_path / "out", "--config", config)
    assert done.status == 2
    assert message in done.err
    assert str(config) in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_config_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_bytes(b"\xef\xbb\xbfmax_failed_ratio = 0.25\n")
    assert load_profile(str(config)).settings == PressSettings(max_failed_ratio=0.25)


def test_version_and_help() -> None:
    assert re.fullmatch(r"callpress \d+\.\d+\.\d+\n", callpress("--version").out)
    for command in ((), ("run",), ("inspect",)):
        done = callpress(*command, "--help")
        assert done.status == 0
        assert done.out.startswith("usage: callpress")


def test_inspect_lists_everybody() -> None:
    done = callpress("inspect", SAMPLE)
    assert done.status == 0
    lines = [line for line in done.out.split("\n") if "sess-" in line]
    assert len(lines) == 5
    assert "default:weekly-sync" in done.out
    assert re.search(
        r"alice +│ sess-alice-1 +│ audio +│ audio/opus +│ +1 │ 06:11:17.007 │ 43.94 s", done.out
    )


def test_inspect_json_has_this_shape() -> None:
    found = json.loads(callpress("inspect", "--json", SAMPLE).out)
    (archive,) = found["archives"]
    assert set(archive) == {"uri", "error", "sessions"}
    assert archive["error"] is None
    dave = next(session for session in archive["sessions"] if session["participant_id"] == "dave")
    assert dave["tracks"][1] == {
        "track_type": "TRACK_TYPE_SCREEN_SHARE_AUDIO",
        "track_ids": [dave["tracks"][1]["track_ids"][0]],
        "codecs": ["audio/opus"],
        "segment_count": 1,
        "start_time": "2026-11-22T06:11:29.163Z",
        "end_time": "2026-11-22T06:11:56.962Z",
        "segments": [
            {
                "base_filename": "dave_sess-dave-1_track_type_screen_share_audio_1795327889163",
                "codec": "audio/opus",
                "start_time": "2026-11-22T06:11:29.163Z",
                "end_time": "2026-11-22T06:11:56.962Z",
                "dump_bytes": 138918,
            }
        ],
    }
    del dave["tracks"]
    assert dave == {
        "call_cid": "default:weekly-sync",
        "call_type": "default",
        "call_id": "weekly-sync",
        "call_session_id": "weekly-sync-2026-11-22",
        "call_start_time": "2026-11-22T06:11:14.519Z",
        "participant_id": "dave",
        "user_session_id": "sess-dave-1",
    }


def test_inspect_of_a_broken_archive_says_so(tmp_path: Path) -> None:
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(b"nothing of use")
    done = callpress("inspect", bad)
    assert done.status == 1
    assert "expected tar, gzipped tar or zip" in done.err


def _inspect_segments(archive: Path) -> dict[str, int | None]:
    """Returns the dump's size of every segment that `inspect` lists, by its base_filename."""
    (found,) = json.loads(callpress("inspect", "--json", archive).out)["archives"]
    return {
        segment["base_filename"]: segment["dump_bytes"]
        for session in found["sessions"]
        for track in session["tracks"]
        for segment in track["segments"]
    }


def test_inspect_finds_dumps_as_a_run_does(tmp_path: Path) -> None:
    segments = [
        {"base_filename": name, "codec": "audio/opus", "track_type": "TRACK_TYPE_AUDIO"}
        for name in ("beside", "there/spelled", "once", "twice", "elsewhere/x")
    ]
    dumps = {"a/beside": 1, "beside": 2, "there/spelled": 3, "b/once": 4, "x": 5}
    members = {f"{name}.rtpdump": bytes(size) for name, size in dumps.items()}
    members |= {"b/twice.rtpdump": b"b", "c/twice.rtpdump": b"c"}
    members["a/p_timing_metadata.json"] = make_timing_metadata(segments={"audio": segments})
    archive = tmp_path / "call.tar.gz"
    archive.write_bytes(make_archive(members))
    assert _inspect_segments(archive) == {
        "beside": 1,
        "there/spelled": 3,
        "once": 4,
        "twice": None,  # it is not clear which
        "elsewhere/x": None,
    }


def test_inspect_lists_what_a_run_presses(tmp_path: Path) -> None:
    """Audio by its type, joined over lists and metadata; dumps by names as vendor's tools write."""
    audio = {"codec": "audio/opus", "track_type": "TRACK_TYPE_AUDIO"}
    lists = [
        {
            "audio": [{**audio, "base_filename": "twice"}],
            "video": [
                {**audio, "base_filename": "twice"},
                {**audio, "base_filename": "rtpdump.RTPDUMP"},
                {"base_filename": "v", "codec": "video/VP8", "track_type": "TRACK_TYPE_VIDEO"},
            ],
        },
        {
            "Audio": [
                {**audio, "base_filename": "part"},
                {"BASE_FILENAME": "untyped", "codec": "audio/opus;stereo=1"},
            ]
        },
    ]
    members = {
        f"se:{number}_timing_metadata.json": make_timing_metadata(call_type=..., segments=segments)
        for number, segments in enumerate(lists)
    }
    dumps = {"twice": 1, "rtpdump": 2, "v": 3, "a part of it": 4, "Untyped": 5}
    members |= {f"{name}.rtpdump": bytes(size) for name, size in dumps.items()}
    archive = tmp_path / "call.tar.gz"
    archive.write_bytes(make_archive(members))
    (found,) = json.loads(callpress("inspect", "--json", archive).out)["archives"]
    assert found["error"] is None
    (session,) = found["sessions"]
    assert (session["call_cid"], session["call_type"]) == (":standup", "")
    assert {
        track["track_type"]: {s["base_filename"]: s["dump_bytes"] for s in track["segments"]}
        for track in session["tracks"]
    } == {
        "TRACK_TYPE_AUDIO": {"twice": 1, "rtpdump.RTPDUMP": 2, "part": 4, "untyped": 5},
        "TRACK_TYPE_VIDEO": {"v": 3},
    }


def test_inspect_tells_of_a_path_out_of_the_archive(tmp_path: Path) -> None:
    archive = tmp_path / "call.tar.gz"
    members = {
        "a_timing_metadata.json": make_timing_metadata(),
        "b_timing_metadata.json": b"{",
        "C:\\x.rtpdump": b"",
    }
    archive.write_bytes(make_archive(members))
    done = callpress("inspect", "--json", archive)
    assert done.status == 1
    (found,) = json.loads(done.out)["archives"]
    assert found["error"] == (
        r"member 'C:\\x.rtpdump' leaves the archive, expected a relative path inside it"
    )
    assert len(found["sessions"]) == 1


def test_inspect_counts_as_a_run_does(tmp_path: Path) -> None:
    archive, config = tmp_path / "call.tar.gz", tmp_path / "my.toml"
    members = {
        "a_timing_metadata.json": make_timing_metadata(participant_id="a"),
        "b_timing_metadata.json": make_timing_metadata(participant_id="b") + b" " * 20_000,
    }
    archive.write_bytes(make_archive(members))
    config.write_text("[limits]\nmax_metadata_member_bytes = 9_000\n")
    done = callpress("inspect", "--json", archive, "--config", config)
    assert done.status == 1
    (found,) = json.loads(done.out)["archives"]
    assert [session["participant_id"] for session in found["sessions"]] == ["a"]
    assert found["error"] == (
        "b_timing_metadata.json: metadata past its limit, expected at most 9000 bytes "
        "(limits.max_metadata_member_bytes)"
    )


def test_inspect_follows_no_link_out_of_a_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(make_timing_metadata(participant_id="secret"))
    folder = tmp_path / "call"
    write_folder(folder, {"a_timing_metadata.json": make_timing_metadata(participant_id="a")})
    (folder / "b_timing_metadata.json").symlink_to(secret)
    done = callpress("inspect", "--json", folder)
    (found,) = json.loads(done.out)["archives"]
    assert [session["participant_id"] for session in found["sessions"]] == ["a"]
    assert "is a link out of its folder, expected a file" in found["error"]


def test_inspect_keeps_to_the_limits_of_its_config(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text("[limits]\nmax_members = 3\n")
    done = callpress("inspect", SAMPLE, "--config", config)
    assert done.status == 1
    assert "more than 3 members (limits.max_members)" in done.err
    config.write_text("[limits]\nmax_members = 100\n")
    done = callpress("inspect", SAMPLE, "--config", config)
    assert (done.status, done.out) == (0, callpress("inspect", SAMPLE).out)


def test_inspect_with_a_wrong_config_is_one_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text("[limits]\nmax_member = 3\n")
    done = callpress("inspect", SAMPLE, "--config", config)
    assert (done.status, done.out) == (2, "")
    assert "unknown key limits.max_member, did you mean limits.max_members?" in done.err


def test_an_unpacked_folder_and_a_glob_of_folders(tmp_path: Path) -> None:
    import tarfile

    for name in ("one", "two"):
        with tarfile.open(SAMPLE) as tar:
            tar.extractall(tmp_path / "raw" / name, filter="data")
    press(tmp_path / "single", tmp_path / "raw" / "one")
    assert len(query(tmp_path / "single" / "catalog", "recordings")) == 6
    press(tmp_path / "both", tmp_path / "raw" / "*")
    archives = query(tmp_path / "both" / "catalog", "archives")
    assert {row["archive_uri"] for row in archives} == {
        f"{tmp_path}/raw/one/",
        f"{tmp_path}/raw/two/",
    }
    assert {row["status"] for row in archives} == {"ok"}


def test_a_run_says_nothing_but_its_summary(tmp_path: Path) -> None:
    done = callpress_process("run", "--input", SAMPLE, "--output", tmp_path / "out")
    assert done.status == 0
    # One that takes more than ten seconds tells how far it is.
    said = [line for line in done.err.splitlines() if not line.startswith("callpress: after ")]
    assert said == []
    assert "1 listed, 1 ok" in done.out
    assert "6 recordings" in done.out


def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "run",
        "--input",
        str(SAMPLE),
        "--output",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        command, stderr=terminal, stdout=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"}
    )
    os.close(terminal)
    seen = b""
    while True:
        ready, _, _ = select.select([main], [], [], 60)
        assert ready, "no progress for a minute"
        try:
            data = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        seen += data
    os.close(main)
    assert process.wait(60) == 0
    assert b"archives 1/1" in seen
    assert b"media s/s" in seen


@pytest.fixture(scope="module")
def long_call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a quarter of an hour of six voices: some seconds of work."""
    packets = encode_opus(noise(20), bitrate_bps=64_000) * 45
    people = [
        Participant(
            participant_id=f"p{n}",
            segments=[Segment(packets=packets, ssrc=n + 1, base_filename=f"d{n}")],
        )
        for n in range(6)
    ]
    path = tmp_path_factory.mktemp("long") / "long.tar"
    path.write_bytes(make_call_archive(people, kind="tar"))
    return path


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_a_stopped_run_ends_within_seconds_and_goes_on_next_time(
    long_call: Path, tmp_path: Path, number: int, status: int
) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "run",
        "--input",
        str(long_call),
        "--output",
        str(out),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((out / "recordings").rglob("*.mkv")):  # at work
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    stopped = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - stopped < 5
    assert process.returncode == status
    assert "same command again" in err
    assert "Traceback" not in err
    assert json.loads((out / "catalog/callpress.lock").read_text())["expires_unix_s"] == 0
    assert not list(out.rglob("*.partial"))
    assert not (out / ".staging").exists()
    assert not list((out / "recordings").rglob("*.mp3"))


_ON_WINDOWS = """
import argparse, importlib.metadata, shutil, signal, sys, tempfile  # with what is there really
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
sys.platform = "win32"
from pipelines.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", [("run", "--input", "x", "--output", "y"), ("inspect", "x")])
def test_windows_is_told_where_it_runs(command: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ON_WINDOWS, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "under WSL" in done.stderr


@pytest.mark.parametrize(
    "engine",
    [
        (),
        ("--runner=PrismRunner", "--temp_location=TMP"),
        ("--runner=FlinkRunner", "--temp_location=TMP"),
    ],
    ids=["local", "prism", "flink"],
)
def test_template_is_asked_of_dataflow_only(engine: tuple[str, ...], tmp_path: Path) -> None:
    """Beam would run the job elsewhere, as if no template were asked for."""
    done = callpress(
        *("run", "--input", SAMPLE, "--output", tmp_path / "out"),
        *(flag.replace("TMP", str(tmp_path)) for flag in engine),
        "--template_location=gs://lab-bucket/templates/nightly",
    )

    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "callpress: --template_location: templates are Dataflow's, expected it beside "
        "--runner=DataflowRunner\n"
    )
    assert not (tmp_path / "out").exists()
