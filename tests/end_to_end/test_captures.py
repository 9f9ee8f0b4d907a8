"""Real captures, pressed as a user presses them: every track whole, in its place, readable by other
programs.
"""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import duckdb
import numpy as np
import numpy.typing as npt
import pytest

from tests.support.command import (
    DTX_STALLS,
    ROOT,
    SAMPLE,
    STEREO_STALLS,
    count_with_gstreamer,
    decode_with_ffmpeg,
    query,
)
from tests.support.media import is_filler
from transforms.locking import lock

# From the captures' README: packets received, padding-only probes among them, seconds of media time
# (first to last packet).
FACTS = {
    ("weekly-sync", "alice", "audio_only"): (2198, 43.96),
    ("weekly-sync", "bob", "audio_only"): (1902, 38.04),
    ("weekly-sync", "carol", "audio_only"): (1499, 29.98),
    ("weekly-sync", "dave", "audio_only"): (1396, 27.92),
    ("weekly-sync", "dave", "screenshare_audio_only"): (1391, 27.82),
    ("noisy-cafe", "alice", "audio_only"): (1342, 44.90),
    ("noisy-cafe", "bob", "audio_only"): (1009, 39.80),
    ("noisy-cafe", "carol", "audio_only"): (470, 33.84),
    ("noisy-cafe", "dave", "audio_only"): (862, 24.88),
    ("music-room", "alice", "audio_only"): (1814, 35.36),
    ("music-room", "bob", "audio_only"): (573, 31.56),
    ("music-room", "carol", "audio_only"): (2779, 27.79),
}
ARCHIVES = {"weekly-sync": SAMPLE, "noisy-cafe": DTX_STALLS, "music-room": STEREO_STALLS}
LOOK_AHEAD = 312
MAX_STALL_S = 0.62
"""What the stalls of any track sum up to, by arrival (README)."""


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return (row["call_id"], row["participant_id"], row["output_type"])


def _individual(pressed: Path) -> list[dict[str, Any]]:
    return [
        row
        for row in query(pressed / "catalog", "recordings")
        if row["recording_type"] == "individual"
    ]


def _mix(pressed: Path, call_id: str) -> dict[str, Any]:
    rows = query(pressed / "catalog", "recordings")
    return next(
        row for row in rows if row["recording_type"] == "composite" and row["call_id"] == call_id
    )


def _dump(
    archive: Path, participant: str, screenshare: bool = False
) -> Iterator[tuple[int, int, int, int]]:
    """Yields (arrival in Unix ms, sequence number, RTP time stamp, payload bytes) of a capture,
    read by nothing of ours.
    """
    with tarfile.open(archive) as tar:
        names = [n for n in tar.getnames() if n.startswith(participant) and n.endswith(".rtpdump")]
        name = next(n for n in names if ("screen_share" in n) == screenshare)
        file = tar.extractfile(name)
        assert file is not None
        data = file.read()
    position = data.index(b"\n") + 1
    seconds, microseconds = struct.unpack_from(">II", data, position)
    position += 16
    while position + 8 <= len(data):
        length, packet_length, offset = struct.unpack_from(">HHI", data, position)
        packet = data[position + 8 : position + length]
        position += length
        if not packet_length:
            continue
        sequence_number, timestamp = struct.unpack_from(">HI", packet, 2)
        header = 12 + 4 * (packet[0] & 15)
        if packet[0] & 16:
            header += 4 + 4 * struct.unpack_from(">H", packet, header + 2)[0]
        padding = packet[-1] if packet[0] & 32 else 0
        arrival = seconds * 1000 + microseconds / 1000 + offset
        yield round(arrival), sequence_number, timestamp, len(packet) - header - padding


def test_every_track_is_whole(pressed: Path) -> None:
    tracks = {_key(row): row for row in query(pressed / "catalog", "tracks")}
    assert set(tracks) == set(FACTS)
    for key, (packets, media_s) in FACTS.items():
        row = tracks[key]
        assert row["packets_received"] == row["packets_expected"] == packets
        assert row["packets_lost"] == row["packets_duplicate"] == row["packets_invalid"] == 0
        assert row["status"] == "ok"
        # Media time, plus what the sender's capture stood still.
        stall_s = row["duration_ms"] / 1000 + LOOK_AHEAD / 48000 - media_s
        limit = 0.001 if key[0] == "weekly-sync" else MAX_STALL_S
        assert -0.001 <= stall_s <= limit, (key, stall_s)


def test_files_decode_to_their_length_in_three_programs(pressed: Path) -> None:
    for row in query(pressed / "catalog", "recordings"):
        expected, channels = row["duration_samples"], row["channels"]
        assert len(decode_with_ffmpeg(row["uri"], channels)) == expected
        with av.open(row["uri"]) as file:
            assert sum(frame.samples for frame in file.decode(audio=0)) == expected
        if row["container"] == "mkv":
            assert count_with_gstreamer(row["uri"], channels) == expected
        else:
            raw = subprocess.run(
                ["mpg123", "-q", "-s", row["uri"]], capture_output=True, check=True
            ).stdout
            assert len(raw) // 2 // channels == expected
        data = Path(row["uri"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["size_bytes"], row["sha256"])


def test_mono_stays_mono_and_stereo_stereo(pressed: Path) -> None:
    channels = {_key(row): row["channels"] for row in _individual(pressed)}
    assert {key for key, count in channels.items() if count == 2} == {
        ("music-room", "alice", "audio_only"),
        ("music-room", "carol", "audio_only"),
    }
    assert [_mix(pressed, call)["channels"] for call in ARCHIVES] == [1, 1, 2]
    alice = next(
        row for row in _individual(pressed) if _key(row) == ("music-room", "alice", "audio_only")
    )
    sound = decode_with_ffmpeg(alice["uri"], 2)
    # The capture's right channel is at 0.6 of the left.
    ratio = np.sqrt((sound[:, 1] ** 2).mean() / (sound[:, 0] ** 2).mean())
    assert 0.5 < ratio < 0.7


def _delay_of_best_match(
    voice: npt.NDArray[np.float32], mix: npt.NDArray[np.float32], at: int, reach: int
) -> int:
    """Returns by how many samples `voice` sits later in `mix` than `at`, within `reach`."""
    around = mix[at - reach : at + len(voice) + reach]
    size = 1 << (len(around) + len(voice)).bit_length()
    spectrum = np.fft.rfft(around, size) * np.conj(np.fft.rfft(voice, size))
    return int(np.argmax(np.fft.irfft(spectrum, size)[: 2 * reach + 1])) - reach


@pytest.mark.parametrize(
    "key", [key for key in FACTS if key[0] == "weekly-sync"], ids=lambda key: "-".join(key[1:])
)
def test_each_voice_sits_in_the_mix_at_its_server_time(
    pressed: Path, key: tuple[str, str, str]
) -> None:
    call_id, participant, output_type = key
    row = next(row for row in _individual(pressed) if _key(row) == key)
    mix_row = _mix(pressed, call_id)
    packets = [
        p for p in _dump(ARCHIVES[call_id], participant, "screenshare" in output_type) if p[3]
    ]
    # Server time by the design's definition, worked out from the bare dump: the least delayed
    # packet sets the clock.
    first_timestamp = packets[0][2]
    delay_ms = min(
        arrival - ((stamp - first_timestamp) % 2**32) / 48 for arrival, _, stamp, _ in packets
    )
    start_ms = delay_ms - 20
    assert abs(row["start_time"].timestamp() * 1000 - start_ms) <= 1
    voice = decode_with_ffmpeg(row["uri"], 1)[:, 0]
    mix = decode_with_ffmpeg(mix_row["uri"], 1)[:, 0]
    begins = round((start_ms - mix_row["start_time"].timestamp() * 1000) * 48)
    checked = 0
    for second in range(1, int(len(voice) / 48000) - 6, 5):
        part = voice[second * 48000 : (second + 5) * 48000]
        if np.sqrt((part**2).mean()) > 0.01:
            late = _delay_of_best_match(part, mix, begins + second * 48000, 4800)
            assert abs(late) <= 25 * 48, (second, late / 48)
            checked += 1
    assert checked >= 3


def _sent_packets(path: str) -> list[tuple[float, bytes]]:
    """Returns (file time in ms, packet) of a file, without what fills holes and a sender's packets
    of a bare TOC byte.
    """
    with av.open(path) as file:
        stream = file.streams.audio[0]
        found = [
            (float(p.pts * p.time_base) * 1000, bytes(p))
            for p in file.demux(stream)
            if p.size and p.pts is not None
        ]
    return [
        (time_ms, packet) for time_ms, packet in found if len(packet) > 1 and not is_filler(packet)
    ]


@pytest.mark.parametrize("call_id", ["noisy-cafe", "music-room"])
def test_stalls_are_followed_within_100_ms(pressed: Path, call_id: str) -> None:
    calls = query(pressed / "catalog", "calls")
    zero_ms = next(
        row["timeline_start_time"].timestamp() * 1000 for row in calls if row["call_id"] == call_id
    )
    for recording in (row for row in _individual(pressed) if row["call_id"] == call_id):
        dump = [p for p in _dump(ARCHIVES[call_id], recording["participant_id"]) if p[3] > 1]
        sent = _sent_packets(recording["uri"])
        assert len(sent) == len(
            dump
        )  # DTX packets of a bare TOC byte aside, each packet is there once
        rows = [
            row for row in query(pressed / "catalog", "segments") if _key(row) == _key(recording)
        ]
        rows.sort(key=lambda row: row["file_start_ms"])
        assert len(rows) > 1
        assert {row["gap_before"] for row in rows[1:]} == {"stalled"}
        file_ms = np.array([time_ms for time_ms, _ in sent])
        row = np.searchsorted([row["file_start_ms"] for row in rows], file_ms + 2, "right") - 1
        shift = np.array([row["call_start_ms"] - row["file_start_ms"] for row in rows])
        # How long after its time in the call a packet arrived: its own length, and what the network
        # took.
        late = np.array([arrival for arrival, *_ in dump]) - (zero_ms + file_ms + shift[row])
        for at in range(len(late)):
            near = late[np.abs(file_ms - file_ms[at]) < 1000]
            assert -1 < near.min() < 100, (recording["participant_id"], file_ms[at], near.min())


def test_a_mute_is_silent(pressed: Path) -> None:
    # bob of the second capture mutes for 10 s: nothing comes in that time but DTX refreshes, a few
    # a second.
    packets = list(_dump(DTX_STALLS, "bob"))
    per_second = np.bincount([(arrival - packets[0][0]) // 1000 for arrival, *_ in packets])
    quiet_from = next(s for s in range(len(per_second)) if (per_second[s : s + 9] <= 8).all())
    row = next(
        row for row in _individual(pressed) if _key(row) == ("noisy-cafe", "bob", "audio_only")
    )
    from_ms = packets[0][0] + quiet_from * 1000 + 500
    sound = decode_with_ffmpeg(row["uri"], 1)[:, 0]
    at = round((from_ms - row["start_time"].timestamp() * 1000) * 48)
    quiet = sound[at : at + 8 * 48000]
    assert np.sqrt((quiet**2).mean()) < 1e-3  # below -60 dBFS
    assert np.sqrt((sound**2).mean()) > 0.01


def test_holes_do_not_click_in_a_plain_decoder(pressed: Path) -> None:
    # FFmpeg's own decoder has no concealment. libopus, which has, says how loud a track is.
    for row in (row for row in _individual(pressed) if row["call_id"] == "noisy-cafe"):
        plain = np.abs(decode_with_ffmpeg(row["uri"], 1)[:, 0])
        with av.open(row["uri"]) as file:
            sent = [(float(p.pts * p.time_base), p.size) for p in file.demux(audio=0) if p.size]
        holes = [round(at * 48000) for at, size in sent if size == 1]
        assert holes
        loudest = max(plain[at : at + 960].max(initial=0) for at in holes)
        assert loudest < 0.5


def test_the_mix_never_clips(pressed: Path) -> None:
    for call_id in ARCHIVES:
        row = _mix(pressed, call_id)
        peak = np.abs(decode_with_ffmpeg(row["uri"], row["channels"])).max()
        assert 0.1 < peak < 1.0


def test_tags_name_call_date_and_participants(pressed: Path) -> None:
    for row in query(pressed / "catalog", "recordings"):
        with av.open(row["uri"]) as file:
            tags = {name.lower(): value for name, value in file.metadata.items()}
        assert row["call_cid"] in tags["title"]
        assert tags["date"] == "2026-11-22"
        assert tags["album"] == row["call_cid"]
        if row["recording_type"] == "individual":
            assert tags["artist"] == row["participant_id"]
        else:
            assert tags["artist"].startswith("alice, bob, carol")


def test_tables_say_what_was_made(pressed: Path) -> None:
    catalog = pressed / "catalog"
    calls = sorted(query(catalog, "calls"), key=lambda row: row["call_id"])
    assert [(c["call_id"], c["status"], c["track_count"]) for c in calls] == [
        ("music-room", "ok", 3),
        ("noisy-cafe", "ok", 4),
        ("weekly-sync", "ok", 5),
    ]
    sync = next(c for c in calls if c["call_id"] == "weekly-sync")
    assert (sync["participant_count"], sync["session_count"]) == (4, 4)
    assert sync["timeline_start_time"].isoformat() == "2026-11-22T06:11:14.519000+00:00"
    assert sync["start_time"] < sync["end_time"]
    assert {str(row["call_date"]) for row in calls} == {"2026-11-22"}
    archives = query(catalog, "archives")
    assert {(a["status"], a["attempts"]) for a in archives} == {("ok", 1)}
    assert sorted(a["track_count"] for a in archives) == [3, 4, 5]
    assert query(catalog, "failures") == []
    _check_what_was_heard(catalog)
    (run,) = query(catalog, "runs")
    assert (run["status"], run["archives_listed"], run["archives_ok"], run["calls_pressed"]) == (
        "ok",
        3,
        3,
        3,
    )
    assert run["cpu_ms"] > 0
    assert run["bytes_read"] == sum(a["size_bytes"] for a in archives)
    recordings = query(catalog, "recordings")
    assert run["bytes_written"] == sum(r["size_bytes"] for r in recordings)
    on_disk = {str(path) for path in (pressed / "recordings").rglob("*") if path.is_file()}
    assert on_disk == {row["uri"] for row in recordings}
    not_parquet = {
        path.name for path in catalog.rglob("*") if path.is_file() and path.suffix != ".parquet"
    }
    assert not_parquet == {lock.NAME, f"{run['run_id']}.json"}  # the lock stays, given back
    assert lock.look(str(catalog)) is None
    assert sorted(path.name for path in pressed.iterdir()) == ["catalog", "recordings"]


def _check_what_was_heard(catalog: Path) -> None:
    """Levels, speech and repairs are told of every track, and add up."""
    speech: dict[Any, list[dict[str, Any]]] = {}
    for row in query(catalog, "speech"):
        assert 0 <= row["file_start_ms"] < row["file_end_ms"]
        speech.setdefault(_key(row), []).append(row)
    for track in query(catalog, "tracks"):
        assert (track["packets_lost"], track["packets_recovered_fec"], track["concealed_ms"]) == (
            0,
            0,
            0,
        )
        assert -32 < track["loudness_lufs"] < -18
        assert -12 < track["peak_dbfs"] < 0
        mine = speech.pop(_key(track))
        assert track["speech_ms"] == pytest.approx(
            sum(r["file_end_ms"] - r["file_start_ms"] for r in mine), abs=len(mine)
        )
        assert (
            0.4 < track["speech_ms"] / track["duration_ms"] < 0.85
        )  # sentences of 4 s with pauses of 1 to 2
        assert all(row["file_end_ms"] <= track["duration_ms"] + 1 for row in mine)
    assert not speech
    for call in query(catalog, "calls"):
        assert -26 < call["loudness_lufs"] < -16
        assert -12 < call["peak_dbfs"] < -0.9


def test_segments_map_file_time_to_call_time(pressed: Path) -> None:
    recordings = {_key(row): row for row in _individual(pressed)}
    for row in query(pressed / "catalog", "segments"):
        assert row["call_end_ms"] - row["call_start_ms"] == pytest.approx(
            row["file_end_ms"] - row["file_start_ms"], abs=1
        )
        drift = row["call_start_ms"] - recordings[_key(row)]["offset_ms"] - row["file_start_ms"]
        assert abs(drift) <= 3  # files are laid on a grid of 2.5 ms


def test_query_of_the_time_page_tells_the_utc_of_a_moment_in_a_file(pressed: Path) -> None:
    page = (ROOT / "docs" / "time.md").read_text(encoding="utf-8")
    (query_text,) = re.findall(r"```sql\n(.*?);\n```", page, re.DOTALL)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for table in ("segments", "calls"):
        source = (
            f"read_parquet('{pressed}/catalog/{table}/*/*.parquet', hive_partitioning = true, "
            "union_by_name = true)"
        )
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM {source}")
    told = {utc for utc, _ in connection.execute(query_text.replace("83200", "12000")).fetchall()}
    starts = [row["start_time"] for row in _individual(pressed) if row["participant_id"] == "alice"]
    assert len(told) == len(starts) == 3
    for start in starts:  # less the stalls before that moment
        assert any(-0.01 < (utc - start).total_seconds() - 12 < 0.7 for utc in told)
