"""One archive -> staged parts: who sent what, what is kept of a damaged archive, and what each
finding says.
"""

from __future__ import annotations

import io
import json
import random
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import (
    CALL_START_UNIX_MS,
    Participant,
    Segment,
    make_archive,
    make_call_archive,
    make_call_members,
    make_rtp_packet,
    make_rtpdump,
    make_timing_metadata,
    write_folder,
)
from tests.support.media import (
    LIMITS,
    load_part,
    make_input,
    open_in,
    part_files,
    participant_of,
    staged_packet_run,
    unpack,
)
from transforms.media.archive.read_members import ArchiveInput, read_members
from transforms.media.errors import ArchiveError
from transforms.media.findings import Findings
from transforms.media.job import JobHost
from transforms.media.settings import LimitSettings
from transforms.media.unpack_archive import UnpackedArchive, unpack_archive
from transforms.media.values import OutputType, PartFiles, SessionKey, TrackKey

CALL_START_NS = CALL_START_UNIX_MS * 1_000_000
SCREEN = "TRACK_TYPE_SCREEN_SHARE_AUDIO"


def fake_packets(count: int, tag: int = 0) -> list[bytes]:
    return [bytes([0x08, tag, number % 256]) for number in range(count)]


def segment(count: int = 20, tag: int = 0, **options: Any) -> Segment:
    return Segment(packets=fake_packets(count, tag), **options)


ALICE = Participant(participant_id="alice", segments=[segment(tag=1)])
BOB = Participant(
    participant_id="bob",
    segments=[segment(tag=2, start_ms=700), segment(5, tag=3, start_ms=900, track_type=SCREEN)],
)


def staged_packets(folder: Path, unpacked: UnpackedArchive) -> list[list[bytes]]:
    """Returns the packets of every staged track, its runs joined."""
    found = []
    for part in part_files(unpacked):
        index = load_part(folder, part)
        with open_in(folder)(part.packets) as file:
            found.append(
                [
                    packet
                    for packet_run in index.packet_runs
                    for _, _, _, packet in staged_packet_run(file, packet_run)
                ]
            )
    return found


def errors_of(unpacked: UnpackedArchive) -> list[tuple[str, str]]:
    return [(type(finding.error).__name__, finding.error.message) for finding in unpacked.findings]


def test_what_a_child_left_that_died_over_the_archive_is_in_nobody_s_way(tmp_path: Path) -> None:
    data = make_call_archive([ALICE, BOB])
    expected = unpack(data, tmp_path / "clean")
    folder = tmp_path / "again"
    (folder / "dumps").mkdir(parents=True)
    (folder / "dumps" / "0").write_bytes(b"half a dump")
    for part in part_files(expected):
        (folder / part.packets).write_bytes(b"half of the packets" * 10_000)
    found = unpack(data, folder)
    assert found == expected
    assert staged_packets(folder, found) == staged_packets(tmp_path / "clean", expected)


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
@pytest.mark.parametrize("nested", ["", "2026/standup/"], ids=["top", "nested"])
def test_archive_of_any_kind_gives_its_tracks(tmp_path: Path, kind: str, nested: str) -> None:
    data = make_call_archive([ALICE, BOB], kind=kind, folder=nested)
    unpacked = unpack(data, tmp_path)
    assert unpacked.findings == ()
    assert (unpacked.member_count, unpacked.bytes_read) == (8, len(data))
    assert [
        (s.key.participant_id, s.key.user_session_id, s.call_start_unix_ns)
        for s in unpacked.sessions
    ] == [
        ("alice", "sess-alice", CALL_START_NS),
        ("bob", "sess-bob", CALL_START_NS),
    ]
    assert {s.key.call.cid for s in unpacked.sessions} == {"default:standup"}
    parts = [part for session in unpacked.sessions for part in session.parts]
    assert [(part.track.participant_id, part.track.output_type) for part in parts] == [
        ("alice", OutputType.AUDIO_ONLY),
        ("bob", OutputType.AUDIO_ONLY),
        ("bob", OutputType.SCREENSHARE_AUDIO_ONLY),
    ]
    assert [part.media_samples for part in parts] == [20 * 960, 20 * 960, 5 * 960]
    starts = [CALL_START_NS + ms * 1_000_000 for ms in (0, 700, 900)]
    assert [part.first_server_unix_ns for part in parts] == starts
    assert [part.last_server_unix_ns for part in parts] == starts
    assert staged_packets(tmp_path, unpacked) == [
        fake_packets(20, 1),
        fake_packets(20, 2),
        fake_packets(5, 3),
    ]
    assert not (tmp_path / "dumps").exists()


def test_unpacked_folder_gives_the_same_as_its_archive(tmp_path: Path) -> None:
    members = make_call_members([ALICE, BOB])
    listing = write_folder(tmp_path / "in", members)
    out = tmp_path / "out"
    out.mkdir()
    unpacked = unpack_archive(
        JobHost(open_input=lambda name: (tmp_path / name).open("rb")),
        ArchiveInput(name="in/", size_bytes=0, folder_members=tuple(listing)),
        out,
        LIMITS,
    )
    assert unpacked.bytes_read == sum(map(len, members.values()))
    assert (unpacked.findings, unpacked.member_count) == ((), 8)
    assert staged_packets(out, unpacked) == [
        fake_packets(20, 1),
        fake_packets(20, 2),
        fake_packets(5, 3),
    ]


@pytest.mark.parametrize("order", ["metadata_first", "reversed", "sorted"])
def test_order_of_the_members_does_not_matter(tmp_path: Path, order: str) -> None:
    members = list(make_call_members([ALICE, BOB]).items())
    if order == "metadata_first":
        members.sort(key=lambda member: not member[0].endswith(".json"))
    else:
        members.sort(reverse=order == "reversed")
    unpacked = unpack(make_archive(dict(members)), tmp_path)
    assert unpacked.findings == ()
    assert sorted(map(len, staged_packets(tmp_path, unpacked))) == [5, 20, 20]


def test_names_compare_without_case_and_with_a_leading_dot(tmp_path: Path) -> None:
    renamed = {
        "./"
        + name.replace(".rtpdump", ".RTPDUMP")
        .replace(".sdp", ".Sdp")
        .replace("metadata.json", "Metadata.JSON"): data
        for name, data in make_call_members([ALICE]).items()
    }
    unpacked = unpack(make_archive(renamed), tmp_path)
    assert unpacked.findings == ()
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]


def test_name_that_begins_another_s_is_not_mistaken_for_it(tmp_path: Path) -> None:
    people = [
        Participant(participant_id="a", segments=[segment(tag=1, base_filename="audio_1")]),
        Participant(participant_id="b", segments=[segment(tag=2, base_filename="audio_10")]),
    ]
    unpacked = unpack(make_call_archive(people), tmp_path)
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1), fake_packets(20, 2)]


def renamed(members: dict[str, bytes], change: Any) -> dict[str, bytes]:
    """Returns members with the names of their dumps and descriptions changed."""
    return {
        name if name.endswith(".json") else change(name): data for name, data in members.items()
    }


AUDIO_1 = [
    Participant(participant_id="a", segments=[segment(tag=1, base_filename="audio_1")]),
    Participant(participant_id="b", segments=[segment(tag=2, base_filename="audio_10")]),
]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("suffix", [".rtpdump", ".RTPdump"])
def test_base_filename_may_have_the_dump_s_suffix(tmp_path: Path, suffix: str, kind: str) -> None:
    base = f"a1e5f21f716affb7:TRACK_TYPE_AUDIO:eO{suffix}"
    people = [Participant(participant_id="a", segments=[segment(tag=1, base_filename=base)])]
    members = renamed(make_call_members(people), lambda name: name.replace(suffix, "", 1))
    unpacked = unpack(make_archive(members, kind), tmp_path)
    assert unpacked.findings == ()
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]


def test_dump_whose_name_contains_that_of_its_segment_is_taken(tmp_path: Path) -> None:
    members = renamed(make_call_members(AUDIO_1), lambda name: name.replace("audio", "r_audio"))
    unpacked = unpack(make_archive(members), tmp_path)
    assert unpacked.findings == ()
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1), fake_packets(20, 2)]


def test_dump_that_another_segment_names_exactly_is_not_taken(tmp_path: Path) -> None:
    members = without(make_call_members(AUDIO_1), "audio_1.rtpdump", "audio_1.sdp")
    unpacked = unpack(make_archive(members), tmp_path)
    assert errors_of(unpacked) == [
        ("ArchiveError", "audio_1.rtpdump: not in the archive, listed by p0_timing_metadata.json")
    ]
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 2)]


def test_segment_of_video_keeps_its_dump_from_audio_of_a_like_name(tmp_path: Path) -> None:
    video = {"base_filename": "x_audio", "codec": "video/VP8", "track_type": "TRACK_TYPE_VIDEO"}
    audio = {"base_filename": "audio", "codec": "audio/opus", "track_type": "TRACK_TYPE_AUDIO"}
    metadata = make_timing_metadata(segments={"audio": [audio], "video": [video]})
    members = {"x_audio.rtpdump": b"video", "a_timing_metadata.json": metadata}
    ((_, message),) = errors_of(unpack(make_archive(members), tmp_path))
    assert message == "audio.rtpdump: not in the archive, listed by a_timing_metadata.json"


def test_two_dumps_that_contain_a_name_are_both_told(tmp_path: Path) -> None:
    members = make_call_members(AUDIO_1[:1])
    members |= renamed(members, lambda name: f"r_{name}") | renamed(
        members, lambda name: f"s_{name}"
    )
    members = without(members, "/audio_1.rtpdump")
    del members["audio_1.rtpdump"], members["audio_1.sdp"]
    messages = [message for _, message in errors_of(unpack(make_archive(members), tmp_path))]
    assert messages == [
        "audio_1.rtpdump: not in the archive, listed by p0_timing_metadata.json; it is not clear "
        "which of the dumps of a like name is meant",
        *(
            f"{name}_audio_1.rtpdump: no timing metadata lists this dump, expected a segment with "
            "its base_filename"
            for name in ("r", "s")
        ),
    ]


@pytest.mark.parametrize(
    ("base", "member"),
    [("zo\u00eb", "zoe\u0308"), ("zoe\u0308", "zo\u00eb"), ("Alice", "aLICE")],
    ids=["nfd", "nfc", "case"],
)
def test_name_in_another_spelling_is_taken_and_told(tmp_path: Path, base: str, member: str) -> None:
    people = [Participant(participant_id="a", segments=[segment(tag=1, base_filename=base)])]
    members = renamed(make_call_members(people), lambda name: name.replace(base, member))
    unpacked = unpack(make_archive(members), tmp_path)
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]
    assert [message for _, message in errors_of(unpacked)] == [
        f"{member}.rtpdump: taken for {base}.rtpdump of p0_timing_metadata.json, expected the same "
        "case and Unicode normalisation"
    ]
    assert participant_of(unpacked.findings[0]) == "a"


def test_description_in_another_spelling_than_its_dump_is_taken_and_told(tmp_path: Path) -> None:
    members = make_call_members(AUDIO_1)
    members["AUDIO_1.sdp"] = members.pop("audio_1.sdp")
    unpacked = unpack(make_archive(members), tmp_path)
    assert [message for _, message in errors_of(unpacked)] == [
        "AUDIO_1.sdp: taken for audio_1.sdp of p0_timing_metadata.json, expected the same case and "
        "Unicode normalisation"
    ]


def test_same_names_in_two_folders_belong_to_the_metadata_beside_them(tmp_path: Path) -> None:
    one = make_call_members(
        [Participant(participant_id="a", segments=[segment(tag=1, base_filename="x")])], folder="1/"
    )
    two = make_call_members(
        [Participant(participant_id="b", segments=[segment(tag=2, base_filename="x")])], folder="2/"
    )
    unpacked = unpack(make_archive(one | two), tmp_path)
    assert unpacked.findings == ()
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1), fake_packets(20, 2)]


def test_dump_in_another_folder_is_found_when_its_name_is_there_once(tmp_path: Path) -> None:
    members = make_call_members([ALICE])
    moved = {
        ("dumps/" if not name.endswith(".json") else "") + name: data
        for name, data in members.items()
    }
    unpacked = unpack(make_archive(moved), tmp_path)
    assert unpacked.findings == ()
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]


def test_segments_of_a_track_are_one_part_in_order_of_time(tmp_path: Path) -> None:
    segments = [segment(tag=2, start_ms=5_000, ssrc=2), segment(tag=1, ssrc=1)]
    unpacked = unpack(
        make_call_archive([Participant(participant_id="a", segments=segments)]), tmp_path
    )
    (part,) = part_files(unpacked)
    index = load_part(tmp_path, part)
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1) + fake_packets(20, 2)]
    assert [packet_run.ssrc for packet_run in index.packet_runs] == [1, 2]
    assert [packet_run.base_filename for packet_run in index.packet_runs] == [
        "p0_track_type_audio_1",
        "p0_track_type_audio_0",
    ]
    assert [
        (packet_run.packet_count, packet_run.media_stop_sample, packet_run.packets_lost)
        for packet_run in index.packet_runs
    ] == [(20, 19_200, 0)] * 2
    assert (index.segment_count, index.channels, index.codec) == (2, 1, "audio/opus")
    assert (index.counts.expected, index.counts.received) == (40, 40)
    (staged,) = unpacked.sessions[0].parts
    assert staged.first_server_unix_ns == CALL_START_NS
    assert staged.last_server_unix_ns == CALL_START_NS + 5_000_000_000


def test_metadata_of_one_session_in_two_members_is_joined(tmp_path: Path) -> None:
    first = make_call_members(
        [Participant(participant_id="a", segments=[segment(tag=1, base_filename="x")])]
    )
    second = make_call_members(
        [
            Participant(
                participant_id="a", segments=[segment(tag=2, base_filename="y", start_ms=3_000)]
            )
        ],
        folder="more/",
    )
    unpacked = unpack(make_archive(first | second), tmp_path)
    assert len(unpacked.sessions) == 1
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1) + fake_packets(20, 2)]


def test_session_that_sent_nothing_is_kept(tmp_path: Path) -> None:
    unpacked = unpack(make_call_archive([Participant(participant_id="mute"), ALICE]), tmp_path)
    assert [(s.key.participant_id, len(s.parts)) for s in unpacked.sessions] == [
        ("mute", 0),
        ("alice", 1),
    ]


def test_segment_without_packets_makes_an_empty_part(tmp_path: Path) -> None:
    unpacked = unpack(
        make_call_archive([Participant(participant_id="a", segments=[Segment(packets=[])])]),
        tmp_path,
    )
    (part,) = unpacked.sessions[0].parts
    assert (part.packets_file, part.media_samples) == ("", 0)
    (dump,) = load_part(tmp_path, PartFiles(packets="", index=part.index_file)).dumps
    assert (dump.records, dump.claim.span_ms) == (0, None)
    assert unpacked.findings == ()


def test_other_members_are_counted_and_left_alone(tmp_path: Path) -> None:
    data = make_call_archive(
        [ALICE], extra_members={"README.txt": b"x", "metadata.json": b"not json", "noext": b""}
    )
    unpacked = unpack(data, tmp_path)
    assert (unpacked.findings, unpacked.member_count) == ((), 6)


def test_video_is_not_pressed_and_no_finding(tmp_path: Path) -> None:
    metadata = make_timing_metadata(
        segments={
            "audio": None,
            "video": [
                {"base_filename": "v", "codec": "video/VP8", "track_type": "TRACK_TYPE_VIDEO"}
            ],
        }
    )
    unpacked = unpack(
        make_archive({"v.rtpdump": b"x", "v.sdp": b"y", "v_timing_metadata.json": metadata}),
        tmp_path,
    )
    assert (unpacked.findings, len(unpacked.sessions)) == ((), 1)


# --- what fails is one segment --------------------------------------------------------------------


def without(members: dict[str, bytes], *endings: str) -> dict[str, bytes]:
    return {name: data for name, data in members.items() if not name.endswith(endings)}


def test_missing_dump_fails_its_track_alone(tmp_path: Path) -> None:
    people = [Participant(participant_id="alice", segments=[segment(with_dump=False)]), BOB]
    unpacked = unpack(make_call_archive(people), tmp_path)
    (finding,) = unpacked.findings
    base = "p0_track_type_audio_0"
    assert type(finding.error) is ArchiveError
    assert (
        finding.error.message
        == f"{base}.rtpdump: not in the archive, listed by p0_timing_metadata.json"
    )
    assert (finding.error.member, finding.error.byte_offset) == (f"{base}.rtpdump", None)
    assert finding.owner == TrackKey(
        call=unpacked.sessions[0].key.call,
        participant_id="alice",
        user_session_id="sess-alice",
        output_type=OutputType.AUDIO_ONLY,
    )
    (part,) = unpacked.sessions[0].parts
    assert part.packets_file == ""
    assert len(unpacked.sessions[1].parts) == 2


def test_missing_description_is_a_failure_but_the_packets_are_taken(tmp_path: Path) -> None:
    unpacked = unpack(
        make_call_archive([Participant(participant_id="a", segments=[segment(with_sdp=False)])]),
        tmp_path,
    )
    assert errors_of(unpacked) == [
        (
            "ArchiveError",
            "p0_track_type_audio_0.sdp: not in the archive, the codec was taken from "
            "p0_timing_metadata.json",
        )
    ]
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20)]


def damaged_dumps() -> Iterator[Any]:
    good = make_rtpdump(0, [(0, make_rtp_packet(b"\x08a"), False)])
    yield pytest.param(b"", "ArchiveError", r"\.rtpdump: empty, expected an rtpdump", id="empty")
    yield pytest.param(b"junk" * 100, "RtpdumpError", r"begins with b'junkjunk", id="junk")
    yield pytest.param(good[:30], "RtpdumpError", r"ends at byte 30, expected a header", id="cut")
    yield pytest.param(
        good, "TimelineError", r"neither the metadata nor the dump says", id="no_clock"
    )


@pytest.mark.parametrize(("dump", "error_type", "message"), list(damaged_dumps()))
def test_damaged_dump_fails_its_segment_alone(
    tmp_path: Path, dump: bytes, error_type: str, message: str
) -> None:
    broken = Segment(packets=[], base_filename="x", with_dump=False)
    people = [Participant(participant_id="a", segments=[broken, segment(tag=1)])]
    unpacked = unpack(make_call_archive(people, extra_members={"x.rtpdump": dump}), tmp_path)
    ((found, text),) = errors_of(unpacked)
    assert found == error_type
    assert re.search(message, text)
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]


def test_unsupported_codec_fails_its_segment_alone(tmp_path: Path) -> None:
    people = [
        Participant(participant_id="a", segments=[segment(codec="audio/PCMU"), segment(tag=1)])
    ]
    unpacked = unpack(make_call_archive(people), tmp_path)
    assert errors_of(unpacked) == [
        (
            "UnsupportedCodecError",
            "p0_track_type_audio_0: codec is audio/PCMU, expected audio/opus or audio/red",
        )
    ]
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]


def test_unknown_track_type_is_a_failure_with_its_session(tmp_path: Path) -> None:
    people = [
        Participant(
            participant_id="a", segments=[segment(track_type="TRACK_TYPE_SMELL"), segment(tag=1)]
        )
    ]
    unpacked = unpack(make_call_archive(people), tmp_path)
    (finding,) = unpacked.findings
    assert (
        "has track_type 'TRACK_TYPE_SMELL', expected TRACK_TYPE_AUDIO or" in finding.error.message
    )
    assert finding.owner == SessionKey(
        call=unpacked.sessions[0].key.call, participant_id="a", user_session_id="sess-a"
    )
    assert finding.error.member == "p0_timing_metadata.json"
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]


def listed_in(tmp_path: Path, audio: list[Any], video: list[Any]) -> UnpackedArchive:
    """Unpacks Alice's call with her one segment, `x`, listed otherwise. Args: audio, video: fields
    of the segments that the lists have, each on top of what is right.
    """
    people = [Participant(participant_id="alice", segments=[segment(tag=1, base_filename="x")])]
    members = make_call_members(people)
    fields = json.loads(members["p0_timing_metadata.json"])
    (right,) = fields["segments"]["audio"]
    fields["segments"] = {
        "audio": [{**right, **changes} for changes in audio],
        "video": [{**right, **changes} for changes in video],
    }
    members["p0_timing_metadata.json"] = json.dumps(fields).encode()
    return unpack(make_archive(members), tmp_path)


VIDEO = "TRACK_TYPE_VIDEO"


@pytest.mark.parametrize(
    ("audio", "video", "output_type"),
    [
        ([], [{}], "audio_only"),
        ([], [{"track_type": SCREEN}], "screenshare_audio_only"),
        ([{}], [{}], "audio_only"),
        ([{}], [{"base_filename": "x.rtpdump"}], "audio_only"),
        ([{}], [{"track_type": VIDEO, "codec": "video/VP8"}], "audio_only"),
        ([{}], [{"track_type": ""}], "audio_only"),
        ([{"track_type": VIDEO, "codec": "video/VP8"}, {}], [], "audio_only"),
        ([{"codec": "audio/opus;stereo=1"}], [], "audio_only"),
    ],
    ids=[
        "video",
        "screen_in_video",
        "both",
        "both_with_suffix",
        "as_video_too",
        "untyped_too",
        "video_first",
        "parameters",
    ],
)
def test_audio_goes_by_its_track_type_whatever_the_list(
    tmp_path: Path, audio: list[Any], video: list[Any], output_type: str
) -> None:
    unpacked = listed_in(tmp_path, audio, video)
    assert unpacked.findings == ()
    ((part,),) = (session.parts for session in unpacked.sessions)
    assert part.track.output_type == output_type
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]


@pytest.mark.parametrize("track_type", ["TRACK_TYPE_UNSPECIFIED", "", None, 0])
@pytest.mark.parametrize(
    ("kind", "codec"), [("audio", "audio/opus"), ("video", "audio/opus;stereo=1"), ("audio", "")]
)
def test_audio_whose_type_is_not_set_is_pressed_and_told(
    tmp_path: Path, kind: str, codec: str, track_type: Any
) -> None:
    changes = [{"track_type": track_type, "codec": codec}]
    unpacked = listed_in(tmp_path, *((changes, []) if kind == "audio" else ([], changes)))
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]
    (finding,) = unpacked.findings
    assert finding.error.message == (
        f"p0_timing_metadata.json: segment x has track_type {track_type or ''!r}, expected "
        "TRACK_TYPE_AUDIO or TRACK_TYPE_SCREEN_SHARE_AUDIO; taken for the former by its codec"
    )
    assert finding.owner == unpacked.sessions[0].key.track(OutputType.AUDIO_ONLY)


@pytest.mark.parametrize(
    ("changes", "is_told"),
    [
        ({"track_type": VIDEO, "codec": "video/VP8"}, False),
        ({"track_type": VIDEO, "codec": ""}, False),
        ({"track_type": VIDEO, "codec": "audio/opus"}, True),
        ({"track_type": "TRACK_TYPE_UNSPECIFIED", "codec": "video/VP8"}, False),
        ({"track_type": "TRACK_TYPE_SMELL", "codec": "audio/opus"}, True),
    ],
)
@pytest.mark.parametrize("kind", ["audio", "video"])
def test_what_is_no_audio_by_type_is_told_where_its_codec_is(
    tmp_path: Path, kind: str, changes: Any, is_told: bool
) -> None:
    unpacked = listed_in(tmp_path, *(([changes], []) if kind == "audio" else ([], [changes])))
    assert staged_packets(tmp_path, unpacked) == []
    assert len(unpacked.findings) == is_told


def test_unlisted_dump_is_a_finding(tmp_path: Path) -> None:
    unpacked = unpack(make_call_archive([ALICE], extra_members={"stray.rtpdump": b"x"}), tmp_path)
    assert errors_of(unpacked) == [
        (
            "ArchiveError",
            "stray.rtpdump: no timing metadata lists this dump, expected a segment with its "
            "base_filename",
        )
    ]
    assert unpacked.findings[0].error.member == "stray.rtpdump"


def test_second_member_of_a_name_is_a_failure_and_the_first_counts(tmp_path: Path) -> None:
    members = make_call_members([ALICE])
    twice = {**members, "./p0_track_type_audio_0.rtpdump": b"other"}
    unpacked = unpack(make_archive(twice), tmp_path)
    ((_, message),) = errors_of(unpacked)
    assert (
        message
        == "p0_track_type_audio_0.rtpdump: a second member of this name, the first was taken"
    )
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]


def test_broken_metadata_fails_its_session_alone(tmp_path: Path) -> None:
    unpacked = unpack(
        make_call_archive([ALICE], extra_members={"b_timing_metadata.json": b"{"}), tmp_path
    )
    ((error_type, message),) = errors_of(unpacked)
    assert error_type == "TimingMetadataError"
    assert message.startswith("b_timing_metadata.json: ")
    assert len(unpacked.sessions) == 1


def test_metadata_over_its_limit_fails_its_session(tmp_path: Path) -> None:
    members = make_call_members([ALICE])
    size = len(members["p0_timing_metadata.json"]) + len(members["p0_track_type_audio_0.sdp"])
    unpacked = unpack(
        make_archive({**members, "z_timing_metadata.json": bytes(200)}),
        tmp_path,
        LimitSettings(max_metadata_bytes=size + 100),
    )
    ((error_type, message),) = errors_of(unpacked)
    assert error_type == "ArchiveError"
    assert (
        message == "z_timing_metadata.json: metadata past its limit, 100 bytes left for metadata "
        "(limits.max_metadata_bytes)"
    )


def listed(*bases: str, **changes: Any) -> bytes:
    """Returns metadata that lists audio segments of these names."""
    segments = [
        {"base_filename": base, "codec": "audio/opus", "track_type": "TRACK_TYPE_AUDIO"}
        for base in bases
    ]
    return make_timing_metadata(segments={"audio": segments, "video": []}, **changes)


def test_dump_that_two_sessions_list_is_the_first_one_s(tmp_path: Path) -> None:
    members = make_call_members(
        [Participant(participant_id="alice", segments=[segment(base_filename="x")])]
    )
    members["b_timing_metadata.json"] = listed(
        "x", participant_id="bob", user_session_id="sess-bob"
    )
    unpacked = unpack(make_archive(members), tmp_path)
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20)]
    (finding,) = unpacked.findings
    assert (
        finding.error.message
        == "x.rtpdump: listed again by b_timing_metadata.json, expected one session to have it"
    )
    assert participant_of(finding) == "bob"


def test_dump_listed_as_two_track_types_is_taken_once(tmp_path: Path) -> None:
    members = make_call_members(
        [Participant(participant_id="alice", segments=[segment(base_filename="x")])]
    )
    screen = {"base_filename": "x", "codec": "audio/opus", "track_type": SCREEN}
    members["b_timing_metadata.json"] = make_timing_metadata(segments={"audio": [screen]})
    unpacked = unpack(make_archive(members), tmp_path)
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20)]
    assert len(unpacked.findings) == 1


# --- what fails is the archive --------------------------------------------------------------------


def test_archive_without_metadata_and_dumps_raises(tmp_path: Path) -> None:
    data = make_archive(without(make_call_members([ALICE]), ".json", ".rtpdump"))
    with pytest.raises(
        ArchiveError,
        match=r"no \*_timing_metadata\.json among 1 members, expected one per participant",
    ):
        unpack(data, tmp_path)


def test_dumps_without_metadata_are_told(tmp_path: Path) -> None:
    unpacked = unpack(make_archive(without(make_call_members([ALICE]), ".json")), tmp_path)
    assert unpacked.sessions == ()
    assert errors_of(unpacked) == [
        (
            "ArchiveError",
            "no *_timing_metadata.json among 2 members, expected one per participant session",
        ),
        (
            "ArchiveError",
            "p0_track_type_audio_0.rtpdump: no timing metadata lists this dump, expected a "
            "segment with its base_filename",
        ),
    ]


def test_archive_of_unreadable_metadata_alone_tells_all_that_is_wrong(tmp_path: Path) -> None:
    data = make_archive(
        {
            "x.rtpdump": b"1",
            "./x.rtpdump": b"2",
            "a_timing_metadata.json": b"",
            "b_timing_metadata.json": b"[]",
        }
    )
    unpacked = unpack(data, tmp_path)
    assert (unpacked.sessions, unpacked.member_count) == ((), 4)
    assert [
        (type(finding.error).__name__, finding.error.member) for finding in unpacked.findings
    ] == [
        ("ArchiveError", "x.rtpdump"),
        ("TimingMetadataError", "a_timing_metadata.json"),
        ("TimingMetadataError", "b_timing_metadata.json"),
        ("ArchiveError", "x.rtpdump"),
    ]


@pytest.mark.parametrize("data", [b"", b"hello" * 200], ids=["empty", "text"])
def test_what_is_no_archive_raises(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArchiveError):
        unpack(data, tmp_path)


def test_archive_cut_before_its_metadata_tells_of_the_dump_that_came(tmp_path: Path) -> None:
    data = make_call_archive([ALICE], kind="tar")
    unpacked = unpack(data[:1_000], tmp_path)
    assert unpacked.sessions == ()
    ((_, message),) = errors_of(unpacked)
    assert message.startswith("p0_track_type_audio_0.rtpdump: damaged: cut off: ends at byte 1000")


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_archive_cut_after_some_metadata_keeps_what_came_whole(tmp_path: Path, kind: str) -> None:
    members = make_call_members([ALICE]) | {"later.rtpdump": random.Random(1).randbytes(600_000)}
    data = make_archive(members, kind)
    unpacked = unpack(data[: len(data) * 3 // 4], tmp_path)
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]
    assert any("damaged" in message for _, message in errors_of(unpacked))


def test_members_over_the_limit_fail_but_keep_what_came_before(tmp_path: Path) -> None:
    data = make_call_archive([ALICE], extra_members={"x": b"", "y": b""})
    unpacked = unpack(data, tmp_path, LimitSettings(max_members=4))
    assert errors_of(unpacked) == [("ArchiveError", "more than 4 members (limits.max_members)")]
    assert staged_packets(tmp_path, unpacked) == [fake_packets(20, 1)]


def test_every_text_that_leaves_has_a_utf8_form(tmp_path: Path) -> None:
    """Failures become rows of text columns, which hold UTF-8 only; JSON and tar names can spell
    what has none.
    """
    members = {"a_timing_metadata.json": listed("dump-\udcff"), "stray-\udcfe.rtpdump": b"x"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    unpacked = unpack(out.getvalue(), tmp_path)
    assert len(unpacked.findings) == 2
    for finding in unpacked.findings:
        assert finding.error.message.encode("utf-8")
        assert (finding.error.member or "").encode("utf-8") is not None


def test_trouble_of_the_local_disk_is_not_blamed_on_the_archive(tmp_path: Path) -> None:
    data = make_call_archive([ALICE])
    with pytest.raises(FileNotFoundError):
        read_members(
            make_input(data),
            lambda name: io.BytesIO(data),
            tmp_path / "missing",
            LIMITS,
            Findings(),
        )


def test_progress_tells_half_of_the_bytes_when_read_and_half_when_staged(tmp_path: Path) -> None:
    data = make_call_archive([ALICE, BOB], kind="tar")
    members = make_call_members([ALICE, BOB])
    dumps = [len(content) for name, content in members.items() if name.endswith(".rtpdump")]
    told: list[int] = []

    unpack_archive(
        JobHost(open_input=lambda name: io.BytesIO(data), tell_progress=told.append),
        make_input(data),
        tmp_path,
        LIMITS,
    )

    half = len(data) // 2
    assert told[: len(dumps)] == [
        sum(dumps[: n + 1]) // 2 - sum(dumps[:n]) // 2 for n in range(len(dumps))
    ]
    assert sum(told[len(dumps) :]) == half
    assert len(told) == 2 * len(dumps)


def test_progress_of_what_expands_much_stays_within_the_archive(tmp_path: Path) -> None:
    silent = Participant(
        participant_id="silent", segments=[Segment(packets=[b"\xf8" + bytes(99)] * 500)]
    )
    data = make_call_archive([silent])
    told: list[int] = []

    unpack_archive(
        JobHost(open_input=lambda name: io.BytesIO(data), tell_progress=told.append),
        make_input(data),
        tmp_path,
        LIMITS,
    )

    assert told == [len(data) // 2, len(data) // 2]


def test_two_segments_of_one_name_in_two_folders_are_not_taken_for_one_unsaid(
    tmp_path: Path,
) -> None:
    members = {
        name: data
        for folder, start_ms in (("one/", 0), ("two/", 5_000))
        for name, data in make_call_members(
            [
                Participant(
                    participant_id="a",
                    segments=[segment(base_filename="a_1", start_ms=start_ms)],
                )
            ],
            folder=folder,
        ).items()
    }
    messages = {
        participant_of(finding): finding.error.message
        for finding in unpack(make_archive(members), tmp_path).findings
    }
    assert messages["a"] == (
        "two/p0_timing_metadata.json: segment a_1 is listed by one/p0_timing_metadata.json too, "
        "with other times; that one was taken"
    )
