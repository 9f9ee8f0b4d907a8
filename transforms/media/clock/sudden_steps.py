"""Where all packets of a packet run seem to come later, or earlier, from one packet to the next.

What a clock that is set does to them. A stall does it, too; a queue that fills does not. What
counts is how sharp it is and by how much, not what it comes to in the end: `steps` asks that.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.server_clock import StepSighting
from transforms.media.units import NS_PER_MS, Ints

LEAST_STEP_NS = 30 * NS_PER_MS
_PAUSE_NS = 500 * NS_PER_MS
"""A longer pause between packets counts as this: it has nothing to tell."""
_BIN_NS = 50 * NS_PER_MS
_NEAR, _FAR = 5, 20
"""Bins on either side of a step in which delays are compared: what is sudden is nearly as large by
those near to it as by those further away.
"""
_LASTING, _LEAST_LASTING, _LEAST_KNOWN = 160, 60, 20
"""Bins on either side in which a step that lasts is there: 8 s, more than a burst, or 3 s to the
end; 1 s where the delay is less.
"""
_SUDDEN = 0.6
_LEAST_BACK_NS = 10 * NS_PER_MS
_FEW = 4
"""Packets of which the least tells something; fewer tell no step."""
_NONE = np.iinfo(np.int64).max


def find_sudden_steps(media_ns: Ints, arrival_unix_ns: Ints) -> Iterator[StepSighting]:
    """Yields the sudden steps of the least delay, the largest first, none as a stall; a second of
    media lies between any two.

    Packets are taken as they arrived: one that was overtaken arrived after a step, though it was
    sent before it.

    Args:
      media_ns: media time at the end of each packet of a packet run, in the order in which they
        arrived; shape (packets,).
      arrival_unix_ns: when each arrived.
    """
    if len(media_ns) < 2 * _FEW:
        return
    delay_ns = arrival_unix_ns - media_ns
    latest_ns = np.maximum.accumulate(media_ns)
    bins = np.minimum(np.diff(latest_ns, prepend=latest_ns[0]), _PAUSE_NS)
    np.cumsum(bins, out=bins)
    bins //= _BIN_NS
    firsts = np.flatnonzero(np.diff(bins, prepend=-1))
    least_ns = np.full(int(bins[-1]) + 1, _NONE, dtype=np.int64)
    least_ns[bins[firsts]] = np.minimum.reduceat(delay_ns, firsts)
    far_ns, is_far_known = _differences(least_ns, _FAR)
    near_ns, is_near_known = _differences(least_ns, _NEAR)
    # Where few packets are there may be none near.
    near_ns = np.where(is_near_known, near_ns, far_ns)
    places = np.flatnonzero(
        is_far_known
        & (np.abs(far_ns) >= LEAST_STEP_NS)
        & (np.abs(near_ns) >= _SUDDEN * np.abs(far_ns))
        & (near_ns * np.sign(far_ns) > 0)
    )
    taken = np.zeros(len(least_ns), dtype=np.bool_)
    count = 0
    for place in places[np.argsort(-np.abs(near_ns[places]), kind="stable")].tolist():
        if taken[place]:
            continue
        taken[max(0, place - _FAR) : place + _FAR + 1] = True
        index = _first_after(bins, delay_ns, place, int(far_ns[place]))
        if index is None:
            continue
        taken[max(0, int(bins[index]) - _FAR) : int(bins[index]) + _FAR + 1] = True
        # As many packets as are near, or a few.
        start, stop = np.searchsorted(bins, [bins[index] - _NEAR, bins[index] + _NEAR]).tolist()
        before = delay_ns[max(0, min(start, index - _FEW)) : index]
        after = delay_ns[index : max(stop, index + _FEW)]
        size_ns = int(after.min()) - int(before.min())
        # Packets that were overtaken may look as if they came behind a step.
        since_unix_ns = int(arrival_unix_ns[index - 1])
        at_unix_ns = max(since_unix_ns, int(arrival_unix_ns[index]) - size_ns)
        yield StepSighting(
            since_unix_ns=since_unix_ns,
            at_unix_ns=at_unix_ns,
            size_ns=size_ns,
            noise_ns=_noise_ns(before) + _noise_ns(after),
            is_lasting=_lasts(least_ns, int(bins[index]), size_ns),
            is_stall=False,
            is_back=_goes_back(arrival_unix_ns, index),
        )
        count += 1
        if count == caps.MAX_STEP_SIGHTINGS:
            return


def _first_after(bins: Ints, delay_ns: Ints, place: int, size_ns: int) -> int | None:
    """Returns the first packet after a step: where the fewest packets on either side are nearer to
    the level of the other one.

    Args:
      bins: that each packet is in.
      delay_ns: of each packet.
      place: the bin about which the step is.
      size_ns: of the step, about.

    Returns:
      its index; None where there are too few packets around.
    """
    start, turn, stop = np.searchsorted(bins, [place - _FAR, place, place + _FAR + 1]).tolist()
    first, last = max(_FEW, start), min(len(bins) - _FEW, stop)
    if last <= first or turn == start:
        return None
    middle_ns = int(delay_ns[start:turn].min()) + size_ns // 2
    is_behind = (delay_ns[start:stop] >= middle_ns) == (size_ns > 0)
    wrong_before = np.cumsum(is_behind) - is_behind
    wrong_behind = np.cumsum(~is_behind[::-1])[::-1]
    wrong = (wrong_before + wrong_behind)[first - start : last - start]
    return int(first + wrong.argmin())


def _goes_back(arrival_unix_ns: Ints, index: int) -> bool:
    """Whether times of packets around one go back, in the order in which they arrived."""
    before, behind = arrival_unix_ns[index - _FEW : index], arrival_unix_ns[index : index + _FEW]
    return int(before.max()) - int(behind.min()) > _LEAST_BACK_NS


def _lasts(least_ns: Ints, place: int, size_ns: int) -> bool:
    """Whether half of a step or more is there for seconds before and after.

    What is late for a moment only, as the first packets of a call that came together, begins with a
    rise and ends with a fall: the delay that is less is known sooner.

    Args:
      least_ns: the least delay of each bin.
      place: the bin of the step; its packets may be of either side.
      size_ns: of the step.
    """
    least = (_LEAST_KNOWN, _LEAST_LASTING) if size_ns > 0 else (_LEAST_LASTING, _LEAST_KNOWN)
    if place < least[0] or len(least_ns) - place - 1 < least[1]:
        return False
    before = least_ns[max(0, place - _LASTING) : place].min()
    after = least_ns[place + 1 : place + 1 + _LASTING].min()
    if _NONE in (before, after):
        return False
    return bool(2 * (after - before) * np.sign(size_ns) >= abs(size_ns))


def _noise_ns(delay_ns: Ints) -> int:
    """Returns how far the least of some delays may lie above the network's least, about."""
    if len(delay_ns) < _FEW:
        return 10 * NS_PER_MS
    return NS_PER_MS + int(delay_ns.mean() - delay_ns.min()) // 4


def _differences(least_ns: Ints, width: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Returns by how much the least of the bins from each one on is above that of those before, and
    where there are packets in both; 0 where there are not.
    """
    padded = np.concatenate([np.full(width, _NONE), least_ns, np.full(width, _NONE)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width).min(axis=1)
    before, after = windows[: len(least_ns)], windows[width : width + len(least_ns)]
    known = (before != _NONE) & (after != _NONE)
    return np.where(known, after - np.where(known, before, 0), 0), known
