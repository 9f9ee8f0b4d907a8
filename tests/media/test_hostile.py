"""Hostile archives, one by one.

What is good in them comes out whole, what is not is told, and nothing costs too much.
"""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import (
    SSRC,
    make_archive,
    make_rtcp_sender_report,
    make_rtp_packet,
    make_rtpdump,
    make_timing_metadata,
    write_folder,
)
from tests.support.hostile.case import HostileCase
from tests.support.hostile.cases import CASES
from tests.support.hostile.good_call import good_members, good_packets
from tests.support.hostile.guest import MALLORY, dump_of, guest, plain_packets
from tests.support.hostile.raw_gzip import gzip_of
from tests.support.hostile.raw_tar import TAR_END, tar_entry, tar_of
from tests.support.media import (
    LIMITS,
    ingest,
    load_part,
    make_input,
    open_in,
    part_files,
    participant_of,
    staged_packet_run,
    unpack,
)
from transforms.media.archive.read_members import ArchiveInput, read_members
from transforms.media.archive.walk import walk_archive
from transforms.media.errors import ArchiveError, CodecProcessError, RecordingError
from transforms.media.findings import Finding, Findings
from transforms.media.job import JobHost
from transforms.media.rtp.ingest import ingest_segment
from transforms.media.rtp.packets import parse_rtp_window
from transforms.media.rtp.rtpdump import read_rtpdump
from transforms.media.rtp.timing_metadata import SUFFIX
from transforms.media.settings import LimitSettings
from transforms.media.track.timeline import PlacedPacket, place_packets, plan_pieces
from transforms.media.unpack_archive import UnpackedArchive, unpack_archive
from transforms.media.values import PartFiles

BOMBS = [name for name in CASES if "bomb" in name]


def findings_of(
    data: bytes, folder: Path, limits: LimitSettings = LIMITS
) -> tuple[UnpackedArchive | None, list[Finding]]:
    """Unpacks an archive; one that is refused as a whole gives its one finding."""
    try:
        unpacked = unpack(data, folder, limits)
    except RecordingError as error:
        findings = Findings()
        findings.add(error)
        return None, list(findings.all())
    return unpacked, list(unpacked.findings)


def packets_by_participant(
    unpacked: UnpackedArchive | None, folder: Path
) -> dict[str, tuple[bytes, ...]]:
    """Returns all staged packets of each participant."""
    found: dict[str, tuple[bytes, ...]] = {}
    for session in unpacked.sessions if unpacked else ():
        for part in session.parts:
            if part.packets_file:
                index = load_part(
                    folder, PartFiles(packets=part.packets_file, index=part.index_file)
                )
                with open_in(folder)(part.packets_file) as file:
                    packets = tuple(
                        packet
                        for packet_run in index.packet_runs
                        for *_, packet in staged_packet_run(file, packet_run)
                    )
                found[session.key.participant_id] = (
                    found.get(session.key.participant_id, ()) + packets
                )
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_good_comes_out_whole_and_what_is_not_is_told(
    case: HostileCase, tmp_path: Path
) -> None:
    data = case.build()
    started = time.process_time()
    unpacked, findings = findings_of(data, tmp_path / "out")
    assert time.process_time() - started < 20
    messages = [finding.error.message for finding in findings]
    if case.message is None:
        assert messages == []
    else:
        assert any(re.search(case.message, message) for message in messages), messages
    staged = packets_by_participant(unpacked, tmp_path / "out")
    for participant_id in case.intact:
        assert staged[participant_id] == good_packets(participant_id)
    assert len(findings) <= 600
    for finding in findings:
        assert type(finding.error).__name__.endswith("Error")
        assert finding.error.message.isprintable()
        assert len(finding.error.message) <= 2_000
    assert not (tmp_path / "out" / "dumps").exists() or unpacked is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_all_archives_are_small_and_many() -> None:
    assert len(CASES) >= 150
    assert sum(len(case.build()) for case in CASES.values()) < 60 << 20


def test_bombs_cost_little_memory_and_disk(tmp_path: Path) -> None:
    """In a process of its own: its peak is that of the bombs alone."""
    code = (
        "import os, resource, shutil, sys, tempfile, pathlib\n"
        "from tests.support.hostile.cases import CASES\n"
        "from tests.support.media import unpack\n"
        "from transforms.media import unpack_archive as module\n"
        "from transforms.media.errors import RecordingError\n"
        "cases = {name: CASES[name].build() for name in sys.argv[2:]}\n"
        "peak, disk = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0\n"
        "remove = shutil.rmtree\n"
        "def measured(folder, **more):\n"
        "    global disk\n"
        "    disk = max(disk, sum(p.stat().st_size for p in pathlib.Path(folder).rglob('*')))\n"
        "    remove(folder, **more)\n"
        "module.shutil.rmtree = measured\n"
        "before = peak()\n"
        "for number, data in enumerate(cases.values()):\n"
        "    try:\n"
        "        unpack(data, pathlib.Path(sys.argv[1]) / str(number))\n"
        "    except RecordingError:\n"
        "        pass\n"
        "print((peak() - before) // 1024, disk >> 20)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, *BOMBS], capture_output=True, text=True, check=True
    )
    memory_mib, disk_mib = map(int, done.stdout.split())
    assert memory_mib < 100
    assert disk_mib < 400  # a hundred times the two MiB of the archive, and no more


# --- what is never done ---------------------------------------------------------------------------


def test_nothing_is_written_through_a_link_or_under_a_name_of_the_archive(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    evil = [
        tar_entry("alice_1.rtpdump", kind=b"2", link=str(outside / "a").encode()),
        tar_entry("d", kind=b"2", link=str(outside).encode()),
        tar_entry("d/evil.rtpdump", b"evil"),
        tar_entry("0.rtpdump", kind=b"2", link=str(outside / "b").encode()),
        tar_entry("1.rtpdump", kind=b"1", link=str(outside / "c").encode()),
    ]
    data = gzip_of(b"".join(evil) + tar_of(good_members("links")) + TAR_END)
    spool = tmp_path / "spool"
    spool.mkdir()
    findings = Findings()
    members = read_members(make_input(data), lambda _: io.BytesIO(data), spool, LIMITS, findings)
    assert list(outside.iterdir()) == []
    assert all(
        re.fullmatch(r"\d+\.rtpdump", path.name) and not path.is_symlink()
        for path in spool.iterdir()
    )
    assert sorted(members.dumps) == ["alice_1", "bob_1", "d/evil"]
    told = [finding.error.message for finding in findings.all()]
    assert len([message for message in told if "link, expected a file" in message]) == 3


def test_folder_s_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.rtpdump"
    secret.write_bytes(dump_of(plain_packets(5)))
    folder = tmp_path / "in"
    members = {**good_members("folder"), **guest("folder", None)}
    listing = dict(write_folder(folder, members))
    (folder / f"{MALLORY}_1.rtpdump").symlink_to(secret)
    (folder / "inside.rtpdump").symlink_to(folder / "alice_1.rtpdump")
    os.mkfifo(folder / "pipe.rtpdump")
    listing |= {f"{MALLORY}_1.rtpdump": 1, "inside.rtpdump": 1, "pipe.rtpdump": 0}
    (tmp_path / "out").mkdir()
    unpacked = unpack_archive(
        JobHost(open_input=lambda name: Path(name).open("rb")),  # noqa: SIM115
        ArchiveInput(
            name=f"{folder}/",
            size_bytes=0,
            folder_members=tuple(listing.items()),
            local_folder=folder,
        ),
        tmp_path / "out",
        LIMITS,
    )
    staged = packets_by_participant(unpacked, tmp_path / "out")
    assert set(staged) == {"alice", "bob"}
    messages = [finding.error.message for finding in unpacked.findings]
    assert f"member '{MALLORY}_1.rtpdump' is a link out of its folder, expected a file" in messages
    assert "member 'pipe.rtpdump' is no regular file, expected a file" in messages


def test_metadata_names_no_file_of_this_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret.rtpdump"
    secret.write_bytes(dump_of(plain_packets(5)))
    listed = [str(secret.with_suffix("")), "../secret", "../out/dumps/1"]
    segments = [
        {"base_filename": name, "codec": "audio/opus", "track_type": "TRACK_TYPE_AUDIO"}
        for name in listed
    ]
    metadata = make_timing_metadata(participant_id=MALLORY, segments={"audio": segments})
    unpacked = unpack(
        make_archive({**good_members("names"), f"z{SUFFIX}": metadata}), tmp_path / "out"
    )
    assert [finding.error.message for finding in unpacked.findings] == [
        f"{name}.rtpdump: not in the archive, listed by z_timing_metadata.json"
        for name in sorted(listed)
    ]


def test_messages_hold_no_payload(tmp_path: Path) -> None:
    secret = b"SECRET-token-0123456789"
    members = {
        **good_members("payload"),
        **guest("payload", b"#!rtpplay9.9 " + secret * 9, b"a=rtpmap:" + secret),
        f"y{SUFFIX}": b'{"token": "' + secret + b'", ',
        f"z{SUFFIX}": secret,
    }
    _, findings = findings_of(make_archive(members), tmp_path / "out")
    assert len(findings) == 4
    assert not any("SECRET" in finding.error.message for finding in findings)


# --- cut off at any byte --------------------------------------------------------------------------


@pytest.mark.parametrize("metadata_first", [False, True], ids=["metadata_last", "metadata_first"])
def test_gzip_cut_at_any_byte_gives_every_whole_member(metadata_first: bool) -> None:
    members = dict(
        sorted(
            good_members("cut").items(),
            key=lambda item: (not item[0].endswith(".json")) == metadata_first,
        )
    )
    data = make_archive(members)
    stops = []  # where each member ends in the tar
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        stops = [(info.name, info.offset_data + info.size) for info in tar]
    draw = random.Random(1)
    for cut in sorted({*draw.sample(range(20, len(data)), 150), *range(len(data) - 12, len(data))}):
        expanded = len(zlib.decompressobj(31).decompress(data[:cut]))
        whole = [name for name, stop in stops if stop <= expanded]
        found, is_told = [], False
        try:
            for member in walk_archive(io.BytesIO(data[:cut]), LIMITS):
                content = member.stream.read()
                assert content == members[member.name]
                found.append(member.name)
        except ArchiveError as error:
            is_told = "in the middle of gzip data" in error.message
        assert is_told
        assert found == whole


def test_track_of_a_dump_that_is_cut_off_keeps_what_came(tmp_path: Path) -> None:
    members = good_members("cut-dump")
    late = {name: data for name, data in members.items() if name == "bob_1.rtpdump"}
    data = make_archive(
        {**{name: data for name, data in members.items() if name not in late}, **late}, "tar"
    )
    unpacked = unpack(data[: data.index(late["bob_1.rtpdump"]) + 2_000], tmp_path)
    staged = packets_by_participant(unpacked, tmp_path)
    assert staged["alice"] == good_packets("alice")
    assert 0 < len(staged["bob"]) < 50
    assert staged["bob"] == good_packets("bob")[: len(staged["bob"])]
    (finding,) = unpacked.findings
    assert participant_of(finding) == "bob"
    assert finding.error.message.startswith("bob_1.rtpdump: damaged: cut off: ends at byte")


# --- limits ---------------------------------------------------------------------------------------


def _sessions(count: int) -> bytes:
    members = {
        f"{number:03}_timing_metadata.json": make_timing_metadata(
            participant_id=f"p{number}", user_session_id="s"
        )
        for number in range(count)
    }
    return make_archive(members)


def test_sessions_over_the_limit_are_told_and_the_others_kept(tmp_path: Path) -> None:
    unpacked = unpack(_sessions(5), tmp_path, LimitSettings(max_sessions=3))
    assert [session.key.participant_id for session in unpacked.sessions] == ["p0", "p1", "p2"]
    assert [finding.error.message for finding in unpacked.findings] == [
        "more than 3 participant sessions (limits.max_sessions)"
    ]


def test_metadata_over_the_limit_of_one_file_is_told(tmp_path: Path) -> None:
    members = {**good_members("large"), f"z{SUFFIX}": b" " * 20_000}
    unpacked = unpack(
        make_archive(members), tmp_path, LimitSettings(max_metadata_member_bytes=9_000)
    )
    (finding,) = unpacked.findings
    assert finding.error.message.endswith(
        "expected at most 9000 bytes (limits.max_metadata_member_bytes)"
    )
    assert len(unpacked.sessions) == 2


def test_descriptions_count_as_metadata(tmp_path: Path) -> None:
    members = {**good_members("many-sdp"), **{f"d/{n}.sdp": b"x" * 60_000 for n in range(20)}}
    unpacked = unpack(make_archive(members), tmp_path, LimitSettings(max_metadata_bytes=500_000))
    assert any(
        "limits.max_metadata_bytes" in finding.error.message for finding in unpacked.findings
    )
    assert len(unpacked.sessions) == 2


def test_time_over_the_limit_keeps_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(float(tick) for tick in range(1_000_000))
    monkeypatch.setattr("transforms.media.archive.member.time.monotonic", lambda: next(clock))
    data = make_archive({**good_members("slow"), **{f"f{number}": b"" for number in range(200)}})
    unpacked = unpack(data, tmp_path, LimitSettings(max_archive_seconds=60))
    (late,) = {type(finding.error).__name__ for finding in unpacked.findings}
    assert late == "CodecProcessError"
    assert all(finding.error.retryable for finding in unpacked.findings)
    assert any(
        "took more than 60 s (limits.max_archive_seconds)" in finding.error.message
        for finding in unpacked.findings
    )


def test_time_runs_out_between_two_dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_archive(good_members("slow"))
    real = ingest_segment
    now = [0.0]
    monkeypatch.setattr("transforms.media.archive.claims.time.monotonic", lambda: now[0])

    def slow(*arguments: Any) -> Any:
        now[0] += 100
        return real(*arguments)

    monkeypatch.setattr("transforms.media.track.stage_track.ingest_segment", slow)
    unpacked = unpack(data, tmp_path, LimitSettings(max_archive_seconds=60))
    parts = [part for session in unpacked.sessions for part in session.parts]
    assert [bool(part.packets_file) for part in parts] == [True, False]
    (finding,) = unpacked.findings
    assert (type(finding.error).__name__, participant_of(finding)) == (
        CodecProcessError.__name__,
        "bob",
    )


def test_small_archives_never_trip_the_ratio(tmp_path: Path) -> None:
    data = make_archive({**good_members("zeros"), "x.bin": bytes(40 << 20)})
    assert len(data) < 300_000
    assert unpack(data, tmp_path).findings == ()


def test_ratio_is_a_setting(tmp_path: Path) -> None:
    data = make_archive({**good_members("zeros"), "x.bin": bytes(80 << 20)})
    _, findings = findings_of(data, tmp_path / "a")
    assert (
        "expected at most 100 times as many (limits.max_expansion_ratio)"
        in findings[0].error.message
    )
    assert unpack(data, tmp_path / "b", LimitSettings(max_expansion_ratio=1_000)).findings == ()


def test_flood_of_failures_is_summed_up(tmp_path: Path) -> None:
    data = make_archive({**good_members("flood"), **{f"d/{n}.rtpdump": b"" for n in range(700)}})
    messages = [finding.error.message for finding in unpack(data, tmp_path).findings]
    assert len(messages) == 201
    assert messages[-1] == "500 more of this kind in the archive, not told one by one"


def test_dump_that_takes_too_much_memory_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ingest_segment

    def hungry(*arguments: Any) -> Any:
        if arguments[2] == "bob_1.rtpdump":
            raise MemoryError
        return real(*arguments)

    monkeypatch.setattr("transforms.media.track.stage_track.ingest_segment", hungry)
    unpacked = unpack(make_archive(good_members("hungry")), tmp_path)
    assert packets_by_participant(unpacked, tmp_path) == {"alice": good_packets("alice")}
    (finding,) = unpacked.findings
    assert (
        type(finding.error).__name__,
        participant_of(finding),
        finding.error.retryable,
    ) == (
        "CodecProcessError",
        "bob",
        True,
    )
    assert (
        finding.error.message
        == "bob_1.rtpdump: needs more memory than it may take (limits.codec_memory_bytes)"
    )


def test_full_disk_is_no_fault_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transforms.media.archive.read_members._Reader._take_dump", full)
    with pytest.raises(
        RecordingError, match=r"No space left on device, expected room for the expanded archive"
    ) as caught:
        unpack(make_archive(good_members("full")), tmp_path)
    assert caught.value.retryable


# --- silence, clocks ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("dump_", "time_"))])
def test_no_dump_makes_hours_of_silence(name: str, tmp_path: Path) -> None:
    unpacked, _ = findings_of(CASES[name].build(), tmp_path)
    for part in part_files(unpacked) if unpacked else ():
        last = _last_placed(part, tmp_path)
        assert last.start_sample + last.duration_samples <= 60 * 48_000


def _last_placed(part: PartFiles, folder: Path) -> PlacedPacket:
    """Returns the last packet of a track's part on its timeline."""
    pieces = plan_pieces([load_part(folder, part)])
    *_, window = place_packets(pieces, lambda _: (folder / part.packets).open("rb"))
    return window[-1]


# --- what only a long dump shows ------------------------------------------------------------------


def test_many_reports_of_one_record_are_not_all_looked_at() -> None:
    record = make_rtcp_sender_report(ssrc=SSRC, cname=None) * 2_000
    packet = make_rtp_packet(b"\x08abc")
    dump = dump_of([(0, record, True), (20, packet, False)])
    window = next(read_rtpdump(io.BytesIO(dump), "m").windows)
    assert len(parse_rtp_window(window).sender_reports) == 64


def test_reports_of_a_dump_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.media.caps.MAX_REPORTS", 30)
    reports = [(20 * n, make_rtcp_sender_report(ssrc=SSRC), True) for n in range(40)]
    segment = ingest(dump_of(sorted([*plain_packets(40), *reports])))
    assert sum(len(packet_run.reports) for packet_run in segment.packet_runs) == 30
    (finding,) = segment.findings
    assert (
        finding.message
        == "a.rtpdump: 40 sender reports, expected at most 30; the later ones were left out"
    )


def test_records_count_though_they_hold_no_packets() -> None:
    dump = make_rtpdump(0, [(0, b"", True)] * 50)
    with pytest.raises(RecordingError, match=r"limits\.max_segment_packets"):
        ingest(dump, limits=LimitSettings(max_segment_packets=20))


def test_only_the_main_sources_are_kept() -> None:
    main = plain_packets(300)
    strays = plain_packets(400, ssrc=lambda n: 1_000 + n)
    segment = ingest(dump_of(sorted([*main, *strays])))
    assert max(len(packet_run.records) for packet_run in segment.packet_runs) == 300
    assert len({packet_run.ssrc for packet_run in segment.packet_runs}) == 256
    (strange,) = [finding.message for finding in segment.findings if "sources" in finding.message]
    assert (
        strange
        == "a.rtpdump: 401 sources in 700 packets, expected one or a few; 145 packets were left out"
    )


def test_only_the_longest_runs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.media.caps.MAX_PACKET_RUNS", 20)
    draw = random.Random(1)
    packets = plain_packets(
        300, rtp_timestamp=lambda n: 960 * n if n < 100 else draw.getrandbits(32)
    )
    segment = ingest(dump_of(packets))
    assert len(segment.packet_runs) == 20
    assert max(len(packet_run.records) for packet_run in segment.packet_runs) >= 100
    assert any(
        "of which the longest 20 were taken" in finding.message for finding in segment.findings
    )


def test_raw_entries_of_the_builders_are_a_tar(tmp_path: Path) -> None:
    """The raw entries of these tests are what the standard library reads, where nothing is wrong
    with them.
    """
    data = tar_of(good_members("raw")) + TAR_END
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == list(good_members("raw"))
    assert (
        unpack_archive(
            JobHost(open_input=lambda _: io.BytesIO(data)), make_input(data), tmp_path, LIMITS
        ).findings
        == ()
    )
