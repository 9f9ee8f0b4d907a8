"""What sender reports say of the steps of a packet run's least delay.

A step between arrivals and media time has two causes that look alike: the sender's capture stood
still, or the network took another path. The pair of times in each sender report (RFC 3550 s6.4.1)
tells them apart, as no network is in it: between two reports media time falls behind the sender's
wall clock by the sum of the stalls there, and by nothing else but their two rates. So the steps
between two reports are judged as a set: those whose sum it is are confirmed together, the others
are the network's. Where several sets make the sum, what lies between their steps is in doubt.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.clock.model import LEAST_STEP_NS, ReportPoint, Step, StepEvidence
from transforms.media.clock.report_series import BESIDE_NS, ReportSeries, read_reports
from transforms.media.clock.step_sets import Candidate, explain
from transforms.media.clock.steps import WINDOW_NS
from transforms.media.units import NS_PER_MS, Ints

_SIZE_NOISE_NS = 3 * NS_PER_MS
"""What the sum of steps in whole ms, between least delays, is off by."""
_MOST_PATH_NS = 250 * NS_PER_MS
"""A path does not change by more while the capture stands still."""
_MOST_TOGETHER = 3
_MOST_CANDIDATES = 12
_TELLING_NS = 8 * NS_PER_MS
_AROUND = 50
_MOST_NOISE_NS = 8 * NS_PER_MS
_LEAST_SHARE = 0.4
"""A step of which its neighbours show less came little by little."""
_ALIKE = 0.2
_BETTER = 0.25
_NEIGHBOURS = 10
"""Packets on either side that show a step which windows of 2 s do not."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What sender reports say of a packet run."""

    steps: tuple[Step, ...]
    """In order; also those that only reports show."""
    rate: tuple[float, float] | None
    """As `PacketRunClock.report_rate`."""
    reported_until: int
    """First packet behind the last report that says anything; 0 where none does."""


def judge_steps(
    steps: Sequence[tuple[int, int]],
    ramps: Sequence[bool],
    media_sample: Ints,
    arrival_ns: Ints,
    delay_ns: Ints,
    duration_samples: npt.NDArray[np.integer[Any]],
    points: Sequence[ReportPoint],
) -> Judgement:
    """Returns what the sender reports that came before and after each step say of it.

    Args:
      steps: (index of the first packet after it, size in ns) of each, in order.
      ramps: of each step, whether it came little by little.
      media_sample: where each packet begins in media time.
      arrival_ns: when each packet arrived, in order.
      delay_ns: of each packet.
      duration_samples: of each packet.
      points: the sender reports.
    """
    # Of a queue that fills, windows of 2 s may see one step, where it is full.
    ramps = [
        is_ramp or _at_once_ns(index, size_ns, delay_ns) < _LEAST_SHARE * abs(size_ns)
        for (index, size_ns), is_ramp in zip(steps, ramps, strict=True)
    ]
    unjudged = tuple(
        Step(index, size_ns, StepEvidence.GRADUAL if is_ramp else StepEvidence.UNKNOWN)
        for (index, size_ns), is_ramp in zip(steps, ramps, strict=True)
    )
    indices = [index for index, _ in steps]
    sharp = [
        (step.index, 0 if is_ramp else step.size_ns)
        for step, is_ramp in zip(unjudged, ramps, strict=True)
    ]
    reports = read_reports(sharp, media_sample, arrival_ns, duration_samples, points)
    if reports is None:
        return Judgement(unjudged, None, 0)
    judge = _Judge(unjudged, ramps, arrival_ns[indices], arrival_ns, delay_ns, reports)
    judge.judge_all()
    return Judgement(
        tuple(judge.result()),
        None if reports.said is None else (reports.said.rate, reports.said.error),
        int(np.searchsorted(arrival_ns, reports.arrival_ns[-1], side="right")),
    )


class _Judge:
    """Says of the steps between two reports what these say of them, from pair to pair."""

    def __init__(
        self,
        steps: Sequence[Step],
        ramps: Sequence[bool],
        step_arrival_ns: Ints,
        arrival_ns: Ints,
        delay_ns: Ints,
        reports: ReportSeries,
    ) -> None:
        # In a pause a clock that runs fast falls back as well.
        self._rate = reports.used.rate
        self._pause_ns = np.diff(arrival_ns, prepend=arrival_ns[0])
        self._steps = [
            replace(step, size_ns=step.size_ns - self._drift_ns(step.index)) for step in steps
        ]
        self._step_arrival_ns = step_arrival_ns
        """Of each step, when the first packet after it arrived."""
        self._arrival_ns = arrival_ns
        self._delay_ns = delay_ns
        self._reports = reports
        self._ramps = ramps
        """Of each step, whether it came little by little."""
        self._slack_ns = [
            max(0, abs(step.size_ns) - max(0, _at_once_ns(step.index, step.size_ns, delay_ns)))
            for step in self._steps
        ]
        """Of each step, how much of it a queue may have added."""
        self._step_noise_ns = [_noise_ns(step.index, arrival_ns, delay_ns) for step in self._steps]
        """Of each step, what its size is off by where packets are few and jitter is much."""
        self._open_until_ns = int(arrival_ns[0])
        """What came until then is not denied by later reports."""
        self._lags_ns: dict[tuple[int, int], tuple[float, float]] = {}
        self._found: list[Step] = []
        """Steps that only reports show, and where what is in doubt between two reports ends."""

    def _lag_ns(self, first: int, last: int) -> tuple[float, float]:
        """Returns what `ReportSeries.lag_ns` does; two reports are asked for several times."""
        if (first, last) not in self._lags_ns:
            self._lags_ns[first, last] = self._reports.lag_ns(first, last)
        return self._lags_ns[first, last]

    def _drift_ns(self, index: int) -> int:
        """Returns what the sender's rate adds to the delay in the pause before a packet."""
        return round(self._rate * int(self._pause_ns[index]))

    def result(self) -> list[Step]:
        """Returns all steps in order, at each packet one: those that arrivals show first."""
        by_index: dict[int, Step] = {}
        for step in [*self._found, *self._steps]:
            there = by_index.get(step.index)
            if there is not None and not step.size_ns:
                step, there = there, step
            if there is not None:
                step = replace(step, doubt_ns=max(step.doubt_ns, there.doubt_ns))
            by_index[step.index] = step
        return [by_index[index] for index in sorted(by_index)]

    def judge_all(self) -> None:
        """Judges the steps between each two reports.

        A report that was sent while the capture stood knows part of the stall, the one after it the
        rest: what no set of steps explains is looked at together with what is beside it.
        """
        last = len(self._reports.arrival_ns) - 1
        eventful = self._eventful()
        before = number = 0
        is_open = False  # what the reports before show has no place yet
        while number < last:
            if not is_open:
                at = bisect_left(eventful, number)
                if at == len(eventful):
                    break
                if eventful[at] > number:
                    before, number = eventful[at] - 1, eventful[at]
            self._lags_ns.clear()
            stops = list(range(number + 1, min(number + _MOST_TOGETHER, last) + 1))
            alone = [(number, stop) for stop in stops]
            together = [(before, stop) for stop in stops] if before < number else []
            tries = together if is_open else alone + together
            found = next((pair for pair in tries if self._explain(*pair)), None)
            if found is None and is_open:
                nearest = min(together, key=lambda pair: self._rest_ns(*pair))
                if self._rest_ns(*nearest) < _BETTER * abs(self._lag_ns(*nearest)[0]):
                    self._settle_for_less(*nearest)
                    found = nearest
                else:
                    self._leave_open(before, number)
                    found = next((pair for pair in alone if self._explain(*pair)), None)
            is_open = False
            if found is None:
                found = min(alone + together, key=lambda pair: self._rest_ns(*pair))
                if self._rest_ns(*found) > _BETTER * self._rest_ns(number, number + 1):
                    found = (number, number + 1)
                is_open = not self._settle_for_less(*found)
            before, number = found

    def _eventful(self) -> list[int]:
        """Returns the numbers of the reports between which and the next ones there are steps, or
        media time falls behind: in a long call nothing happens behind nearly all of them.

        Where media time seems to fall behind all the time, and no step shows it, it does not.
        """
        lags_ns, noise_ns = self._reports.lags_ns()
        edges_ns = self._reports.arrival_ns.copy()
        edges_ns[0] -= BESIDE_NS
        edges_ns[-1] += BESIDE_NS
        has_steps = np.diff(np.searchsorted(self._step_arrival_ns, edges_ns, side="right")) > 0
        is_behind = np.abs(lags_ns) > np.maximum(noise_ns, LEAST_STEP_NS)
        most = caps.MIN_UNSEEN_STALLS + len(self._arrival_ns) // caps.PACKETS_PER_UNSEEN_STALL
        if np.count_nonzero(is_behind & ~has_steps) > most:
            is_behind = has_steps
        found: list[int] = np.flatnonzero(has_steps | is_behind).tolist()
        return found

    def _between(self, first: int, last: int) -> list[int]:
        """Returns the steps between two reports, the largest of too many, in order; the others are
        taken for the network's. None of those that reports so far apart tell nothing of.

        Beside the first report of all and the last one also those just outside.
        """
        begin_ns = int(self._reports.arrival_ns[first])
        end_ns = int(self._reports.arrival_ns[last])
        if first == 0:
            begin_ns -= BESIDE_NS
        if last == len(self._reports.arrival_ns) - 1:
            end_ns += BESIDE_NS
        start, stop = np.searchsorted(
            self._step_arrival_ns, [begin_ns, end_ns], side="right"
        ).tolist()
        inside = sorted(
            range(start, stop), key=lambda at: (self._ramps[at], -abs(self._steps[at].size_ns))
        )
        if len(inside) > _MOST_CANDIDATES and self._lag_ns(first, last)[1] > _TELLING_NS:
            return []  # nothing is told of so many by reports that are so far apart
        for place in inside[_MOST_CANDIDATES:]:
            self._settle(place, StepEvidence.DENIED)
        return sorted(inside[:_MOST_CANDIDATES])

    def _is_outside(self, place: int) -> bool:
        """Whether a step lies before the first report of all, or behind the last one.

        Also one in which the first report was sent: it knows a part of it.
        """
        at_ns = int(self._step_arrival_ns[place])
        begin_ns = at_ns - max(0, self._steps[place].size_ns)
        return not self._reports.arrival_ns[0] < begin_ns <= at_ns <= self._reports.arrival_ns[-1]

    def _explain(self, first: int, last: int) -> bool:
        """Confirms the set of steps that makes the sum of what two reports show, if there is one;
        tells whether.
        """
        (lag_ns, noise_ns), places = self._lag_ns(first, last), self._between(first, last)
        if not places:
            return abs(lag_ns) <= max(noise_ns, LEAST_STEP_NS)
        candidates = [
            Candidate(
                self._steps[place].size_ns,
                slack_ns=self._slack_ns[place],
                noise_ns=self._step_noise_ns[place],
                is_gradual=self._ramps[place],
                is_outside=self._is_outside(place),
            )
            for place in places
        ]
        tolerance_ns = max(noise_ns, _SIZE_NOISE_NS)
        if abs(lag_ns) <= tolerance_ns:
            # Nothing happened, or too little to be told.
            largest = max(
                places, key=lambda place: self._size_if_little(place, lag_ns, tolerance_ns)
            )
            for place, candidate in zip(places, candidates, strict=True):
                is_told = not self._size_if_little(place, lag_ns, tolerance_ns)
                is_open = self._step_arrival_ns[place] <= self._open_until_ns
                if not (candidate.is_outside or is_open) and (is_told or place != largest):
                    self._settle(place, StepEvidence.DENIED)
            return True
        choice = explain(candidates, lag_ns, tolerance_ns)
        if choice is None:
            return False
        chosen = [place for place, is_in in zip(places, choice.is_in, strict=True) if is_in]
        if len({self._ramps[place] for place in chosen}) > 1:
            return False  # a stall while a queue fills or empties
        # Where a queue filled or emptied meanwhile, reports know the sum better.
        more_ns = 0.0
        # A report that was sent while the capture stood knows a part of it only.
        is_whole = not any(self._is_outside(place) for place in chosen)
        if is_whole and max(self._slack_ns[place] for place in chosen) > _SIZE_NOISE_NS:
            more_ns = (lag_ns - sum(self._steps[place].size_ns for place in chosen)) / len(chosen)
        for place, is_in, doubt_ns in zip(places, choice.is_in, choice.doubt_ns, strict=True):
            if is_in:
                stall_ns = self._steps[place].size_ns + round(more_ns)
                self._settle(place, StepEvidence.CONFIRMED, stall_ns, doubt_ns=doubt_ns)
            elif not self._is_outside(place):
                self._settle(place, StepEvidence.DENIED, doubt_ns=doubt_ns)
        return True

    def _size_if_little(self, place: int, lag_ns: float, tolerance_ns: float) -> int:
        """Returns the size of a step that may still be a stall where reports show next to none, 0
        of one that is none.
        """
        size_ns = self._steps[place].size_ns
        is_little = abs(size_ns - lag_ns) <= tolerance_ns and not self._ramps[place]
        return abs(size_ns) if is_little else 0

    def _settle(
        self,
        place: int,
        evidence: StepEvidence,
        stall_ns: int | None = None,
        other_stall_ns: int | None = None,
        doubt_ns: int = 0,
    ) -> None:
        step = self._steps[place]
        drift_ns, pause_ns = self._drift_ns(step.index), int(self._pause_ns[step.index])
        self._steps[place] = Step(
            step.index,
            step.size_ns,
            evidence,
            None if stall_ns is None else stall_ns + drift_ns,
            None if other_stall_ns is None else other_stall_ns + drift_ns,
            pause_ns,
            doubt_ns,
        )

    def _rest_ns(self, first: int, last: int) -> float:
        """Returns what the nearest set of steps leaves of what two reports show."""
        lag_ns, _ = self._lag_ns(first, last)
        alike = self._alike(self._between(first, last), lag_ns)
        best = _nearest_set(self._steps, alike, lag_ns) if alike else []
        return abs(lag_ns - sum(self._steps[place].size_ns for place in best))

    def _alike(self, places: Sequence[int], lag_ns: float) -> list[int]:
        """Returns the steps that may be part of what reports show: those of its sign, and no ramps
        where others are.
        """
        alike = [place for place in places if self._steps[place].size_ns * lag_ns > 0]
        sharp = [place for place in alike if not self._ramps[place]]
        return sharp or alike

    def _settle_for_less(self, first: int, last: int) -> bool:
        """Judges steps of which no set makes the sum; tells whether that has a place now.

        The path changed while the capture stood still, or a queue hid it: then the whole sum is put
        where it fits best. Or the sender's wall clock was set, which no arrival shows.
        """
        (lag_ns, noise_ns), places = self._lag_ns(first, last), self._between(first, last)
        sizes_ns = [self._steps[place].size_ns for place in places]
        alike = self._alike(places, lag_ns)
        missing_ns = lag_ns - sum(sizes_ns)
        if not alike:
            is_little = abs(lag_ns) <= max(LEAST_STEP_NS, 1.5 * noise_ns)
            return is_little or self._place_unseen(first, last, lag_ns, noise_ns, places)
        if abs(missing_ns) > _MOST_PATH_NS and abs(lag_ns) > _MOST_PATH_NS:
            return False  # the wall clock was set, or a queue hides it
        best = _nearest_set(self._steps, alike, lag_ns)
        rest_ns = round(lag_ns - sum(self._steps[place].size_ns for place in best))
        largest = max(best, key=lambda place: abs(self._steps[place].size_ns))
        for place in places:
            size_ns = self._steps[place].size_ns
            if place == largest:
                # Where reports show more than twice as much, the wall clock may have been set, and
                # the step may be the network's.
                other_ns = size_ns if abs(rest_ns) <= abs(size_ns) else 0
                self._settle(
                    place, StepEvidence.CONFIRMED, size_ns + rest_ns, other_ns, abs(rest_ns)
                )
            elif place in best:
                self._settle(place, StepEvidence.CONFIRMED, size_ns, doubt_ns=abs(rest_ns))
            elif not self._is_outside(place):
                self._settle(place, StepEvidence.DENIED, doubt_ns=abs(rest_ns))
        self._end_doubt(last)
        return True

    def _place_unseen(
        self, first: int, last: int, lag_ns: float, noise_ns: float, places: Sequence[int]
    ) -> bool:
        """Puts a stall that no step of the arrivals shows where packets come latest after others;
        tells whether that has a place now.

        A queue that empties hides it, or jitter. What no packet shows is none: the wall clock was
        set.
        """
        # A packet that was sent before a report may come behind it.
        begin, end = np.searchsorted(
            self._arrival_ns,
            self._reports.arrival_ns[[first, last]] + np.array([-BESIDE_NS, BESIDE_NS]) // 2,
            side="right",
        ).tolist()
        end = min(end + 1, len(self._arrival_ns))
        if end - begin < 2:
            return False
        rises_ns = _rises_at_once(self._delay_ns[begin:end] * (1 if lag_ns > 0 else -1))
        at = int(rises_ns.argmax())
        doubt_ns = 0
        is_seen = lag_ns > 0 and abs(rises_ns[at] - lag_ns) <= max(
            noise_ns, LEAST_STEP_NS, _ALIKE * lag_ns
        )
        if not is_seen:
            before = self._delay_ns[max(0, begin - 100) : begin + 1]
            after = self._delay_ns[end - 1 : end + 99]
            chance_ns = _SIZE_NOISE_NS + 2 * float(
                np.quantile(before, 0.1) - before.min() + np.quantile(after, 0.1) - after.min()
            )
            seen_ns = float(after.min() - before.min())
            if abs(lag_ns - seen_ns) > chance_ns:
                # The wall clock was set, or a queue hides it.
                return abs(seen_ns) <= chance_ns
            doubt_ns = round(abs(lag_ns))
        for place in places:
            if not self._is_outside(place):
                self._settle(place, StepEvidence.DENIED, doubt_ns=doubt_ns)
        index = begin + 1 + at
        self._found.append(
            Step(index, round(lag_ns), StepEvidence.CONFIRMED, round(lag_ns), doubt_ns=doubt_ns)
        )
        if doubt_ns:
            self._found.append(Step(begin, 0, StepEvidence.DENIED, doubt_ns=doubt_ns))
            self._end_doubt(last)
        return True

    def _leave_open(self, first: int, last: int) -> None:
        """What two reports show, and nothing explains, may be a stall that a queue hides."""
        index = int(np.searchsorted(self._arrival_ns, self._reports.arrival_ns[last], "right"))
        lag_ns = round(self._reports.lag_ns(first, last)[0])
        self._found.append(Step(index, 0, StepEvidence.CONFIRMED, 0, lag_ns))
        # Packets that were sent before a report may come behind it.
        self._open_until_ns = int(self._reports.arrival_ns[last]) + BESIDE_NS

    def _end_doubt(self, report: int) -> None:
        """What is in doubt between two reports is known behind the second one."""
        index = int(
            np.searchsorted(self._arrival_ns, self._reports.arrival_ns[report], side="right")
        )
        if index < len(self._arrival_ns):
            self._found.append(Step(index, 0, StepEvidence.DENIED))


def _at_once_ns(index: int, size_ns: int, delay_ns: Ints) -> int:
    """Returns how much of a step a few packets on either side show, in its direction."""
    before = delay_ns[max(0, index - _NEIGHBOURS) : index]
    after = delay_ns[index : index + _NEIGHBOURS]
    rise_ns = int(after.min()) - int(before.min())
    return rise_ns if size_ns > 0 else -rise_ns


def _noise_ns(index: int, arrival_ns: Ints, delay_ns: Ints) -> float:
    """Returns what the least delays on both sides of a step are off by, for the packets they are
    of.
    """
    before = slice(max(0, index - _AROUND), index)
    after = slice(index, index + _AROUND)
    counts = (
        int((arrival_ns[before] >= arrival_ns[index - 1] - WINDOW_NS).sum()),
        int((arrival_ns[after] <= arrival_ns[index] + WINDOW_NS).sum()),
    )
    return sum(
        min(
            float(np.quantile(delay_ns[near], min(0.5, 1 / count)) - delay_ns[near].min()),
            _MOST_NOISE_NS,
        )
        for near, count in zip((before, after), counts, strict=True)
    )


def _rises_at_once(delay_ns: Ints) -> Ints:
    """Returns by how much each few packets but the first ones come later than the few before."""
    width = min(_NEIGHBOURS, len(delay_ns) // 2)
    padded = np.concatenate([delay_ns[:1].repeat(width - 1), delay_ns, delay_ns[-1:].repeat(width)])
    least_ns = np.lib.stride_tricks.sliding_window_view(padded, width).min(axis=1)
    rises: Ints = least_ns[width : width + len(delay_ns) - 1] - least_ns[: len(delay_ns) - 1]
    return rises


def _nearest_set(steps: Sequence[Step], places: Sequence[int], lag_ns: float) -> list[int]:
    """Returns the steps, one at least, whose sum is nearest to what reports show."""
    sizes = np.array([steps[place].size_ns for place in places], dtype=np.float64)
    is_in = (np.arange(1, 1 << len(places))[:, None] >> np.arange(len(places))) & 1
    best = is_in[int(np.abs(is_in @ sizes - lag_ns).argmin())]
    return [place for place, chosen in zip(places, best.tolist(), strict=True) if chosen]
