"""How many hours of media may be written of what an archive holds: its packets bound them.

Silence costs nothing to send and something to write: two packets a day apart are a day of files. So
each archive is allowed so many hours, and so many more for each hour that its packets hold. It
shares them out among its calls by what it holds itself, whatever else a run is about; a call has
what all its archives give it, and divides that among its mix and its individual files. The bound
holds for every archive, and a call is given the same in each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transforms.media.settings import LimitSettings
from transforms.media.units import SAMPLE_RATE_HZ, ns_to_samples

_HOUR_SAMPLES = 3_600 * SAMPLE_RATE_HZ
_MARGIN_SAMPLES = 10 * SAMPLE_RATE_HZ
"""How much longer than their packets seem to lie apart files are taken to be: their clocks are not
fitted yet.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackReach:
    """How much audio a track has, and from when to when."""

    media_samples: int
    first_server_unix_ns: int
    stop_server_unix_ns: int

    @property
    def file_samples(self) -> int:
        """About the length of its individual file, or somewhat more."""
        apart_ns = self.stop_server_unix_ns - self.first_server_unix_ns
        return max(ns_to_samples(apart_ns), self.media_samples) + _MARGIN_SAMPLES


def share_archive(calls: Sequence[Sequence[TrackReach]], limits: LimitSettings) -> tuple[int, ...]:
    """Returns how much of an archive's allowance each of its calls is given, in samples.

    All calls have half of what their packets bring. Of the rest the mixes come first, as one that
    is too long is not written at all, then the individual files, each time those of the call that
    needs least; what nobody needs is for calls that go on in other archives, in equal parts.

    Args:
      calls: the tracks of each, as far as the archive holds them; at least one.
      limits: the bounds.
    """
    shares = [sum(_kept_samples(track, limits) for track in tracks) for tracks in calls]
    media = sum(track.media_samples for tracks in calls for track in tracks)
    left = limits.max_media_hours * _HOUR_SAMPLES + limits.max_media_ratio * media - sum(shares)
    files = [sum(track.file_samples for track in tracks) for tracks in calls]
    for wanted in (
        [_mix_samples(tracks) for tracks in calls],
        [max(0, whole - kept) for whole, kept in zip(files, shares, strict=True)],
    ):
        for number in sorted(range(len(calls)), key=wanted.__getitem__):
            if wanted[number] <= left:
                shares[number] += wanted[number]
                left -= wanted[number]
    return tuple(share + left // len(calls) for share in shares)


def divide_call(
    allowed_samples: int,
    tracks: Sequence[TrackReach],
    limits: LimitSettings,
    *,
    has_mix: bool,
    has_file: Sequence[bool],
) -> tuple[int, tuple[int, ...]]:
    """Returns how long a call's mix may be, 0 where that is not enough, and each individual file.

    Each file has half of what the track's packets bring; of the rest the mix comes first. Files are
    given what they need while there is enough of it for all that need more.

    Args:
      allowed_samples: what all archives of the call give it.
      tracks: those with packets.
      limits: the bounds.
      has_mix: whether there is to be a mix.
      has_file: of each track, whether there is to be a file.
    """
    files = [
        _kept_samples(track, limits) if wants else 0
        for track, wants in zip(tracks, has_file, strict=True)
    ]
    left = max(0, allowed_samples - sum(files))
    mix = _mix_samples(tracks) if has_mix else 0
    if mix > left:
        mix = 0
    left -= mix
    wanted = [max(0, track.file_samples - kept) for track, kept in zip(tracks, files, strict=True)]
    still = sum(has_file)
    for number in sorted(range(len(tracks)), key=wanted.__getitem__):
        if has_file[number]:
            given = min(wanted[number], left // still)
            files[number] += given
            left -= given
            still -= 1
    more = left // max(1, sum(has_file))
    return mix, tuple(
        file + more if wants else 0 for file, wants in zip(files, has_file, strict=True)
    )


def _kept_samples(track: TrackReach, limits: LimitSettings) -> int:
    """Returns what a file is allowed in any case: more than it has once its pauses are left out."""
    return limits.max_media_ratio * track.media_samples // 2


def _mix_samples(tracks: Sequence[TrackReach]) -> int:
    """Returns about the length of the mix of some tracks, or somewhat more."""
    if not tracks:
        return 0
    first = min(track.first_server_unix_ns for track in tracks)
    stop = max(track.stop_server_unix_ns for track in tracks)
    longest = max(track.file_samples for track in tracks)
    return max(longest, ns_to_samples(stop - first) + _MARGIN_SAMPLES)
