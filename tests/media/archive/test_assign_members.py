"""Which member of an archive a segment means: by its exact name first, then in another spelling,
then as a part of a longer name.
"""

from __future__ import annotations

import itertools
import time
import unicodedata
from collections.abc import Sequence

import pytest

from tests.support.media import make_timing
from transforms.media import caps
from transforms.media.archive.assign_members import Assignment, assign_members
from transforms.media.archive.match_members import MembersByPath
from transforms.media.rtp.participant_sessions import ListedSegment

NFC, NFD = (unicodedata.normalize(form, "zoë") for form in ("NFC", "NFD"))


def assign(
    bases: Sequence[str], paths: Sequence[str], metadata: str = "m.json", **beside: str
) -> Assignment:
    members: MembersByPath[None] = MembersByPath()
    for path in paths:
        members.add(path, None)
    segments = [
        ListedSegment(timing=make_timing(base_filename=base), metadata_member=metadata)
        for base in bases
    ]
    return assign_members(segments, members, {("", base): path for base, path in beside.items()})


def found(bases: Sequence[str], paths: Sequence[str]) -> dict[str, str]:
    """Returns the path of each name, in whatever order names and members come."""
    results = [
        {base: path for (_, base), path in assign(some, others).paths.items()}
        for some in itertools.permutations(bases)
        for others in itertools.permutations(paths)
    ]
    assert all(result == results[0] for result in results)
    return results[0]


@pytest.mark.parametrize(
    ("bases", "paths", "expected"),
    [
        (["a"], ["a"], {"a": "a"}),
        (["a.rtpdump"], ["a"], {"a.rtpdump": "a"}),
        (["a.RtpDump"], ["x/a"], {"a.RtpDump": "x/a"}),
        (["a.rtpdump", "a"], ["a", "a.rtpdump"], {"a": "a", "a.rtpdump": "a.rtpdump"}),
        ([".rtpdump"], ["b"], {}),
        (["x/.rtpdump"], ["x/b"], {}),
    ],
    ids=["plain", "suffix", "suffix_in_any_case", "both", "suffix_alone", "suffix_in_a_folder"],
)
def test_suffix_of_a_dump_is_no_part_of_its_name(
    bases: list[str], paths: list[str], expected: dict[str, str]
) -> None:
    assert found(bases, paths) == expected


@pytest.mark.parametrize(
    ("bases", "paths", "expected"),
    [
        (["audio_1"], ["rec_audio_1_z"], {"audio_1": "rec_audio_1_z"}),
        (["audio_1.rtpdump"], ["x/rec_audio_1"], {"audio_1.rtpdump": "x/rec_audio_1"}),
        (["audio_1", "audio_10"], ["audio_10"], {"audio_10": "audio_10"}),
        (["audio_1", "audio_10"], ["r_audio_10"], {"audio_10": "r_audio_10"}),
        (
            ["audio_1", "audio_10"],
            ["r_audio_1", "r_audio_10"],
            {"audio_1": "r_audio_1", "audio_10": "r_audio_10"},
        ),
        (
            ["a_1", "a_10", "a_100"],
            ["r_a_1", "r_a_10", "r_a_100"],
            {"a_1": "r_a_1", "a_10": "r_a_10", "a_100": "r_a_100"},
        ),
        (["a_1"], ["r_a_1", "s_a_1"], {}),
        (["ab", "bc"], ["abc"], {}),
        (["ab", "bc", "abc"], ["x_abc"], {"abc": "x_abc"}),
        (["ab", "bc"], ["abc", "ab"], {"ab": "ab", "bc": "abc"}),
        (["x/a"], ["w/x/a_1", "a_2"], {"x/a": "w/x/a_1"}),
        (["x"], ["x/a"], {}),
    ],
    ids=[
        "part",
        "part_with_suffix",
        "exact_is_another_s",
        "longer_fits_better",
        "what_is_left",
        "what_is_left_twice",
        "two_members",
        "two_segments",
        "one_holds_the_others",
        "exact_goes_first",
        "in_its_folder",
        "folder_is_no_name",
    ],
)
def test_part_of_a_name_is_enough_where_one_member_and_no_other_segment_fits(
    bases: list[str], paths: list[str], expected: dict[str, str]
) -> None:
    assert found(bases, paths) == expected
    assignment = assign(bases, paths)
    assert not assignment.spelled_otherwise
    assert not assignment.unclear & assignment.paths.keys()


def test_part_of_a_name_is_looked_for_beside_the_metadata_first() -> None:
    paths = ["1/r_a", "2/r_a"]
    assert assign(["a"], paths, "1/m.json").paths == {("1", "a"): "1/r_a"}
    assert assign(["a"], paths, "m.json").unclear == {("", "a")}


@pytest.mark.parametrize(
    ("bases", "paths", "expected", "told"),
    [
        ([NFC], [NFD], {NFC: NFD}, {NFC}),
        ([NFD], [f"x/{NFC}"], {NFD: f"x/{NFC}"}, {NFD}),
        (["Alice"], ["aLICE"], {"Alice": "aLICE"}, {"Alice"}),
        (["Alice.RTPDUMP"], ["alice"], {"Alice.RTPDUMP": "alice"}, {"Alice.RTPDUMP"}),
        (["STRASSE"], ["straße"], {"STRASSE": "straße"}, {"STRASSE"}),
        (["Alice"], ["alice", "ALICE"], {}, set()),
        (["Alice", "ALICE"], ["alice"], {}, set()),
        (["Al", "AL"], ["al", "AL"], {"Al": "al", "AL": "AL"}, {"Al"}),
        ([NFC.upper()], [f"r_{NFD}_1"], {NFC.upper(): f"r_{NFD}_1"}, {NFC.upper()}),
    ],
    ids=[
        "nfc",
        "nfd",
        "case",
        "suffix",
        "sharp_s",
        "two_members",
        "two_segments",
        "exact_goes_first",
        "part",
    ],
)
def test_another_spelling_is_taken_where_one_fits_and_told(
    bases: list[str], paths: list[str], expected: dict[str, str], told: set[str]
) -> None:
    assert found(bases, paths) == expected
    assert assign(bases, paths).spelled_otherwise == {("", base) for base in told}


def test_description_lies_beside_its_dump() -> None:
    assert assign(["a"], ["r_a_1", "s_a"], a="r_a_1").paths == {("", "a"): "r_a_1"}
    assert assign(["a"], ["a", "r_a_1"], a="r_a_1").paths == {("", "a"): "a"}


def test_many_names_that_fit_nothing_cost_little() -> None:
    """20,000 segments among 20,000 dumps of long names, and accents without end."""
    paths = [f"{number:04d}_{'x' * 500}" for number in range(20_000)]
    accents = "a" + "\u0301\u0323" * 400
    bases = [f"{accents}{number}" for number in range(2_000)]
    bases += [f"{number}_{'x' * (number % 400)}y" for number in range(18_000)]
    started = time.process_time()
    assert assign(bases, paths).paths == {}
    assert time.process_time() - started < 10


def test_names_within_the_cap_are_all_found() -> None:
    count = 5_000
    bases = [f"alice_track_{number}" for number in range(count)]
    paths = [f"{base}_1767607200000" for base in bases]
    assert count * 40 * 4 < caps.MAX_NAME_WINDOWS
    assert len(assign(bases, paths).paths) == count
