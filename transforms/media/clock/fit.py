"""Fits straight lines from RTP media time to server time, by the least delays of the arrivals.

A packet's delay is its arrival less its media time. The network only ever adds to it, so the least
delays tell the clocks:

    delay |      .  .    .                 .  '    what the network added
          |  .  .  ' .  ._____. _._ . ___.____     a step that lasts: the sender's capture stood
          |             |                           still, or a new path
          |__._____.___|                           the slope: the sender's clock runs slow or fast
          +------------------------------------ media time

It is done in two parts. `observe_clock` (in `observe`) looks at one packet run and keeps little of
it: its plateaus (the media time between two lasting steps), each with the lower convex hull of its
delays, and what the sender reports say of each step. `fit_clocks`, here, lays straight lines under
the plateaus of all packet runs of a participant session together, which come from one device and so
have one skew. It solves the linear program of Moon, Skelly and Towsley ("Estimation and Removal of
Clock Skew from Network Delay Measurements", INFOCOM 1999): of all lines below every delay the one
nearest to them. `find_lines` (in `lines`) says which steps move the time line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from transforms.media.clock.lines import Line, find_lines
from transforms.media.clock.model import (
    BEND_S,
    METADATA_NOISE_NS,
    OWN_FIT_NS,
    WALL_CLOCK_RATE,
    ClockMethod,
    ClockPiece,
    PacketRunClock,
    Plateau,
    StepEvidence,
)
from transforms.media.clock.rate import (
    NOMINAL_RATE_ERROR,
    Skew,
    fit_rate,
    nominal_rate_error,
    reported_rate,
)
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ, samples_to_ns

_LEAST_FIT_SAMPLES = 30 * SAMPLE_RATE_HZ
_OWN_FIT_SAMPLES = 600 * SAMPLE_RATE_HZ
_OWN_FIT_GAIN_NS = 2 * NS_PER_MS
_DUMP_RESOLUTION_NS = NS_PER_MS
"""rtpdump counts arrivals in whole ms."""


def fit_clocks(packet_runs: Sequence[PacketRunClock]) -> tuple[tuple[ClockPiece, ...], ...]:
    """Returns how the media time of each packet run maps to server time, piece by piece.

    All get one skew, given 30 s of media; 10 minutes or more without a confirmed step get their own
    where it moves their ends by more than 2 ms against each other. Less media gets that of its
    sender reports, where it is beyond what most senders have, else the nominal rate; so does an
    absurd fit.

    Args:
      packet_runs: all of one participant session and track type.
    """
    plateaus = [plateau for packet_run in packet_runs for plateau in packet_run.plateaus]
    total = sum(plateau.media_stop_sample - plateau.media_start_sample for plateau in plateaus)
    reported = reported_rate(packet_runs)
    if total >= _LEAST_FIT_SAMPLES:
        common = fit_rate(plateaus, reported)
    else:
        is_fast = reported and abs(reported.rate) - reported.error > NOMINAL_RATE_ERROR
        common = reported if is_fast else None
    nominal_error = nominal_rate_error(plateaus, reported)
    return tuple(
        _lay_lines(packet_run, common, reported, nominal_error) for packet_run in packet_runs
    )


def _lay_lines(
    packet_run: PacketRunClock, common: Skew | None, reported: Skew | None, nominal_error: float
) -> tuple[ClockPiece, ...]:
    """Returns one piece for each line of a packet run, on the least delay of its plateaus.

    Args:
      packet_run: that is laid.
      common: skew of all packet runs; None where it cannot be known.
      reported: the same by sender reports.
      nominal_error: by how much the nominal rate may be off.
    """
    skews = _skews(packet_run.plateaus, common, reported)
    pieces = []
    for line in find_lines(packet_run.plateaus, [skew.rate if skew else 0.0 for skew, _ in skews]):
        plateaus = packet_run.plateaus[line.first : line.last + 1]
        skew, strange_rate = skews[line.first]
        rate = skew.rate if skew else 0.0
        start_sample = plateaus[0].media_start_sample
        start_ns = samples_to_ns(start_sample)
        pieces.append(
            ClockPiece(
                media_start_sample=start_sample,
                server_start_unix_ns=packet_run.base_unix_ns
                + start_ns
                + round(line.level_ns + rate * start_ns),
                skew_ppm=(1 / (1 + rate) - 1) * 1e6,
                is_fitted=skew is not None,
                sync_error_ns=round(
                    _doubt_ns(
                        line,
                        plateaus,
                        skew,
                        strange_rate,
                        packet_run.method,
                        nominal_error,
                        packet_run.plateaus[-1].media_stop_sample,
                    )
                ),
            )
        )
    return tuple(pieces)


def _doubt_ns(
    line: Line,
    plateaus: Sequence[Plateau],
    skew: Skew | None,
    strange_rate: float,
    method: ClockMethod,
    nominal_error: float,
    run_samples: int,
) -> float:
    """Returns how far server times on a line may be off.

    Args:
      line: that is asked about.
      plateaus: those on it.
      skew: their skew; None for the nominal rate.
      strange_rate: by how much their own skew seems to be another one.
      method: how the arrivals are known.
      nominal_error: by how much the nominal rate may be off.
      run_samples: length of the packet run.
    """
    rate = skew.rate if skew else 0.0
    length_ns = samples_to_ns(plateaus[-1].media_stop_sample - plateaus[0].media_start_sample)
    # How far the usual delay lies above the least one says how well the least one is known.
    points = sum(plateau.point_count for plateau in plateaus)
    usual = sum(plateau.point_count * plateau.usual_excess_ns(rate) for plateau in plateaus)
    doubt_ns = _DUMP_RESOLUTION_NS + max(0.0, usual / points) / math.sqrt(points) * 3
    doubt_ns += strange_rate * length_ns
    # The lines of a packet run have one least delay: of what its rate is off by, that is known
    # where it was seen only.
    doubt_ns += skew.error * length_ns if skew else nominal_error * samples_to_ns(run_samples)
    doubt_ns += line.doubt_ns
    # Lines are drawn through what is nearly straight.
    doubt_ns += 2e9 * BEND_S * min(1.0, length_ns / (2 * OWN_FIT_NS))
    if method == ClockMethod.METADATA:
        by_line = abs(rate) if plateaus[0].point_count <= 2 else WALL_CLOCK_RATE
        doubt_ns += METADATA_NOISE_NS + by_line * length_ns
    return doubt_ns


def _skews(
    plateaus: Sequence[Plateau], common: Skew | None, reported: Skew | None
) -> list[tuple[Skew | None, float]]:
    """Returns each plateau's skew (None for the nominal rate), and how far its own seems from it.

    What plateaus without a confirmed step between them have of their own is applied only where
    there is enough of it.
    """
    starts = [
        number
        for number, plateau in enumerate(plateaus)
        if number == 0 or plateau.evidence == StepEvidence.CONFIRMED
    ]
    found: list[tuple[Skew | None, float]] = []
    for start, stop in itertools.pairwise([*starts, len(plateaus)]):
        length = plateaus[stop - 1].media_stop_sample - plateaus[start].media_start_sample
        own = fit_rate(plateaus[start:stop], reported) if length >= _LEAST_FIT_SAMPLES else None
        strange_rate = max(0.0, abs(own.rate - common.rate) - own.error) if own and common else 0.0
        if (
            own
            and length >= _OWN_FIT_SAMPLES
            and (common is None or strange_rate * samples_to_ns(length) > _OWN_FIT_GAIN_NS)
        ):
            found += [(own, 0.0)] * (stop - start)
        else:
            found += [(common, strange_rate)] * (stop - start)
    return found
