"""Names of copies: who and when can be read in them, and no id makes one that a file system
refuses, hides, or takes for another.
"""

from __future__ import annotations

import itertools
import random
import re
import unicodedata
from typing import Any

import pytest

from tests.support.beam import CALL, CALL_START_UNIX_NS, recording_row
from transforms.elements import Row
from transforms.media.wall_time import to_time
from transforms.retrieval.names import call_name, file_names

HOSTILE = [
    "", ".", "..", "...", "../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "C:\\x", "-rf", "~",
    "CON", "nul", "com1.txt", "a:b", "a*b?", "<a>|\"b\"", "a\x00b", "a\nb", "\x1b[2J", "a\u202eb",
    "\ufeff", "trailing.", "trailing ", " ", "Alice", "alice", "ALICE", "\uff41lice", "al\u0131ce",
    "stra\u00dfe", "strasse", "e\u0301", "\u00e9", "\ufb01", "fi", "a_b", "a b", "\U0001f469\u200d",
    "\u7530\u4e2d", "x" * 40, "x" * 41, "x" * 4_096, "\u00e9" * 4_096, "\U0001f469" * 2_000,
    "everybody", "bob_screenshare", "bob-0f1e2d3c", "%2e%2e", "$(id)", "`id`",
]  # fmt: skip
_LETTERS = [
    *range(0x250), *range(0x300, 0x320), *range(0x5D0, 0x650), *range(0x2000, 0x2070),
    *range(0xFB00, 0xFB07), *range(0x1F600, 0x1F610), 0x1D400, 0x3C2, 0x3C3, 0x3A3,
]  # fmt: skip
_FIT = re.compile(r"[^\W_](?:[\w.@+-]|\u0300)*\.(?:mp3|mkv)")


def _row(participant: str | None, **fields: Any) -> Row:
    ending = "mkv" if participant is not None else "mp3"
    row = recording_row(participant, f"/out/x.{ending}", filename=f"x.{ending}", part=0)
    row["start_time"] = to_time(CALL_START_UNIX_NS)
    return {"output_type": None, "participant_id": None, "user_session_id": None, **row, **fields}


def _looks_to_a_disk(name: str) -> str:
    """Returns what some file system takes for the same name."""
    return unicodedata.normalize("NFKC", name.casefold())


def _check(names: list[str]) -> None:
    for name in names:
        marks = "".join("\u0300" if unicodedata.category(c)[0] == "M" else c for c in name)
        assert _FIT.fullmatch(marks), repr(name)
        assert len(name.encode()) <= 140, name
        assert unicodedata.is_normalized("NFC", name)
    assert len({_looks_to_a_disk(name) for name in names}) == len(names)


def test_plain_ids_are_read_back() -> None:
    rows = [
        _row(None),
        _row("alice"),
        _row("0b6f2a9e-7c1d-4e53-9a54-2f0d6b8e1c37"),
        _row("ann.smith@example.com"),
        _row("田中"),
        _row("dave", output_type="screenshare_audio_only"),
        _row("dave", part=2),
    ]

    assert file_names("default:weekly_sync", rows) == [
        f"default_weekly_sync_20260105T100000Z_{whose}"
        for whose in (
            "everybody.mp3",
            "alice.mkv",
            "0b6f2a9e-7c1d-4e53-9a54-2f0d6b8e1c37.mkv",
            "ann.smith@example.com.mkv",
            "田中.mkv",
            "dave_screenshare.mkv",
            "dave_part2.mkv",
        )
    ]


def test_hostile_ids_of_one_call_make_names_fit_for_every_disk() -> None:
    rows = [_row(None), *(_row(each, user_session_id=f"s-{each}") for each in HOSTILE)]
    rows += [_row(each, output_type="screenshare_audio_only") for each in HOSTILE]

    names = file_names("default:weekly", rows)

    _check(names)
    assert names == file_names("default:weekly", rows)


def test_rejoining_within_a_second_makes_two_names() -> None:
    names = file_names("default:a", [_row("bob"), _row("bob", user_session_id="again")])

    assert all(re.search(r"Z_bob-[0-9a-f]{8}\.mkv$", name) for name in names)
    _check(names)


def test_id_that_spells_the_hash_of_another_gets_a_name_of_its_own() -> None:
    alice = [_row("Alice", user_session_id="a"), _row("alice", user_session_id="b")]
    stolen = file_names("default:a", alice)[1].rsplit("_", 1)[1].removesuffix(".mkv")

    _check(file_names("default:a", [*alice, _row(stolen)]))


def test_calls_share_no_name() -> None:
    cids = [f"{kind}:{each}" for kind, each in itertools.product(("default", "a_b", "a"), HOSTILE)]
    cids += ["a:b_c", "a_b:c", "default:x:y", "default:x_y", ":", "::"]

    names = [call_name(cid) for cid in cids]

    assert len({_looks_to_a_disk(name) for name in names}) == len(set(cids))
    _check([f"{name}.mp3" for name in names])


@pytest.mark.parametrize("filename", ["x", "x.", ".json/../x", "x.MKV", "x.mkv\n", "a.b c"])
def test_ending_that_is_none_is_left_out(filename: str) -> None:
    (name,) = file_names("default:a", [_row("bob", filename=filename)])

    assert name == "default_a_20260105T100000Z_bob"


def test_any_ids_make_names_fit_for_every_disk() -> None:
    for seed in range(300):
        dice = random.Random(seed)
        ids = {
            "".join(chr(dice.choice(_LETTERS)) for _ in range(dice.randrange(60))) for _ in range(6)
        }
        _check(file_names(CALL.cid, [_row(each) for each in sorted(ids)]))


@pytest.mark.parametrize("call_type", ["con.x", "NUL.a", "lpt1.z.y"])
def test_type_of_a_call_makes_no_device_of_windows(call_type: str) -> None:
    """What counts there is what stands before the first dot."""
    assert re.fullmatch(r"[^.]+_standup-[0-9a-f]{8}", call_name(f"{call_type}:standup"))
