"""What may be written of an archive's calls: bounded by its packets, shared out the same way each
time.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.media.media_hours import TrackReach, divide_call, share_archive
from transforms.media.settings import LimitSettings
from transforms.media.units import samples_to_ns

HOUR = 3_600 * 48_000
LIMITS = LimitSettings()
SMALL = LimitSettings(max_media_hours=3, max_media_ratio=7)


def reach(media_hours: float, start_hours: float, stop_hours: float) -> TrackReach:
    return TrackReach(
        media_samples=round(media_hours * HOUR),
        first_server_unix_ns=samples_to_ns(round(start_hours * HOUR)),
        stop_server_unix_ns=samples_to_ns(round(stop_hours * HOUR)),
    )


WORD = 1 / 1_800
"""Hours of somebody who speaks for two seconds."""

reaches = st.builds(
    lambda media, start, length: reach(min(media, length), start, start + length),
    st.floats(0, 1),
    st.floats(0, 24),
    st.floats(0, 24),
)
calls_of_tracks = st.lists(st.lists(reaches, min_size=1, max_size=6), min_size=1, max_size=8)


@given(calls_of_tracks, st.sampled_from([LIMITS, SMALL]))
def test_shares_of_an_archive_never_sum_up_to_more_than_it_is_allowed(
    calls: list[list[TrackReach]], limits: LimitSettings
) -> None:
    media = sum(track.media_samples for tracks in calls for track in tracks)
    shares = share_archive(calls, limits)
    assert sum(shares) <= limits.max_media_hours * HOUR + limits.max_media_ratio * media
    for share, tracks in zip(shares, calls, strict=True):
        kept = sum(limits.max_media_ratio * track.media_samples // 2 for track in tracks)
        assert share >= kept


@given(
    st.lists(reaches, min_size=1, max_size=6),
    st.floats(0, 60),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_files_of_a_call_never_sum_up_to_more_than_it_is_allowed(
    tracks: list[TrackReach], more_hours: float, has_mix: bool, chance: random.Random
) -> None:
    has_file = [chance.random() < 0.7 for _ in tracks]
    kept = [LIMITS.max_media_ratio * track.media_samples // 2 for track in tracks]
    allowed = sum(kept) + round(more_hours * HOUR)
    mix, files = divide_call(allowed, tracks, LIMITS, has_mix=has_mix, has_file=has_file)
    assert mix + sum(files) <= allowed
    assert has_mix or not mix
    for file, least, wants in zip(files, kept, has_file, strict=True):
        assert file >= least if wants else file == 0


def test_order_of_calls_does_not_matter() -> None:
    calls = [[reach(WORD, 0, hours)] for hours in (9, 2, 5, 1, 7)]
    shares = share_archive(calls, LIMITS)
    assert share_archive(calls[::-1], LIMITS) == shares[::-1]


@pytest.mark.parametrize(
    "tracks",
    [
        [reach(2 * WORD, 0, 12)],
        [reach(0.25, 0, 24)],
        [reach(0.1, 0, 8) for _ in range(20)],
        [reach(0.7, 0, 1) for _ in range(300)],
        [reach(WORD, 0, 4), reach(WORD, 0, 4), reach(WORD, 3.9, 4)],
    ],
    ids=["two packets", "webinar of a day", "lobby of 8 h", "large call", "quiet call"],
)
def test_honest_call_stays_as_it_is(tracks: list[TrackReach]) -> None:
    (share,) = share_archive([tracks], LIMITS)
    mix, files = divide_call(share, tracks, LIMITS, has_mix=True, has_file=[True] * len(tracks))
    longest = max(track.file_samples for track in tracks)
    assert mix >= longest
    for file, track in zip(files, tracks, strict=True):
        assert file >= track.file_samples


def test_mix_of_a_silent_day_comes_before_individual_files() -> None:
    tracks = [reach(WORD, 0, 24), reach(WORD, 1, 24), reach(WORD, 5, 6)]
    (share,) = share_archive([tracks], LIMITS)
    mix, files = divide_call(share, tracks, LIMITS, has_mix=True, has_file=[True] * 3)
    assert mix >= 24 * HOUR
    assert max(files) < HOUR
    mix, files = divide_call(share, tracks, LIMITS, has_mix=False, has_file=[False, True, True])
    assert (mix, files[0]) == (0, 0)
    assert files[1] >= 23 * HOUR
    assert files[2] >= HOUR


def test_many_silent_calls_share_what_one_archive_is_allowed() -> None:
    """Of twelve calls of three hours each eight mixes fit into 25 h; the other calls have less."""
    calls = [[reach(WORD, 0, 3)] for _ in range(12)]
    shares = share_archive(calls, LIMITS)
    mixes = [
        divide_call(share, tracks, LIMITS, has_mix=True, has_file=[True])[0]
        for share, tracks in zip(shares, calls, strict=True)
    ]
    assert [mix >= 3 * HOUR for mix in mixes] == [True] * 8 + [False] * 4
    assert mixes[8:] == [0] * 4


def test_call_has_what_all_its_archives_allow_it() -> None:
    """One word in each of two archives, 20 h apart: neither holds the silence between them."""
    morning, evening = [reach(WORD, 0, 0.1)], [reach(WORD, 20, 20.1)]
    allowed = share_archive([morning], LIMITS)[0] + share_archive([evening], LIMITS)[0]
    whole = [reach(2 * WORD, 0, 20.1)]
    mix, (file,) = divide_call(allowed, whole, LIMITS, has_mix=True, has_file=[True])
    assert min(mix, file) >= 20.1 * HOUR
