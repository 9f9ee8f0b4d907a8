"""Simulates senders, clocks and networks of which the truth is known to the sample, and measures
where their sound ended up.

A `Sender` is one segment of a participant: what is said when, how its clocks run, and what the
network does. `simulate` makes its dump and keeps the truth: content sample n, fed to the encoder as
media time n, was captured at a known moment of the server's clock, and belongs `LEAST_DELAY_S`
later in the mix (with a shorter path, that much less). Nobody can know that constant, so it is the
same for everyone here.

What is said are *markers*: chirps of 200 ms, no two alike, with silence between them that costs
next to nothing to encode. `measure` finds each in decoded audio to a fraction of a sample. An hour
of 20 ms packets takes about a second to build.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.builders import (
    APPLICATION_AUDIO,
    CALL_START_UNIX_MS,
    NTP_UNIX_SECONDS,
    OPUS_PAYLOAD_TYPE,
    RED_PAYLOAD_TYPE,
    SAMPLE_RATE_HZ,
    Pcm,
    encode_opus,
    make_archive,
    make_red_payload,
    make_rtcp_sender_report,
    make_rtp_packet,
    make_rtpdump,
    make_sdp,
    make_timing_metadata,
)

CALL_START_NS = CALL_START_UNIX_MS * 1_000_000
LEAST_DELAY_S = 0.030
"""From the microphone to the server when nothing adds to it."""
MARKER_S = 0.2
_LEAD_S = 0.08
"""Silence encoded around each marker, for the codec to settle."""
_FOREIGN_EVERY = 40

Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Wave = npt.NDArray[np.float32]
Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Sender:
    """One segment. Moments are seconds of its media time, lengths are seconds, unless a name says
    otherwise.
    """

    seconds: float
    """Length of its media."""
    start_s: float = 0.0
    """When its first sample is captured, counted from the start of the call on the server's
    clock.
    """
    seed: int = 1
    """Of all that is drawn, and of the waveforms of its markers."""
    base_filename: str | None = None

    # What is said.
    markers_s: Sequence[float] = ()
    """Where markers begin."""
    first_marker: int = 0
    """Number of the first one: segments of one seed say the same where their numbers agree."""
    sound: Spans = ()
    """(begin, length) of unbroken noise; each is a marker too."""
    packet_ms: float = 20
    bitrate_bps: int = 64_000

    # The sender's clocks.
    skew_ppm: float | Spans = 0.0
    """How much faster its media clock runs than the server's; or (from, ppm) in order, for another
    device from there on.
    """
    stalls: Spans = ()
    """(at, length): the capture stands still, media time does not count."""
    wall_error_s: float = 0.0
    wall_rate: float = 1.0
    """Seconds its wall clock counts in a second."""
    report_every_s: float | None = 5.0
    """None: no sender reports."""
    first_report_s: float = 1.3
    """After the start, on the server's clock."""
    reports_until_s: float = float("inf")
    report_noise_ms: float = 0.5

    # Numbers.
    first_sequence_number: int = 1_000
    first_rtp_timestamp: int = 10_000
    ssrc: int = 0x1234_5678
    ssrc_changes: Spans = ()
    """(at, SSRC): another source, with its own numbers, from there on."""
    jumps: Sequence[tuple[float, int]] = ()
    """(at, ticks): RTP timestamps jump, packets keep coming."""
    sequence_jumps: Sequence[tuple[float, int]] = ()
    """(at, numbers): sequence numbers jump, packets keep coming."""

    # What is not sent.
    dtx: Spans = ()
    """(begin, length): timestamps go on, sequence numbers run on, but for a packet every
    `dtx_refresh_s`.
    """
    dtx_refresh_s: float | None = 0.4
    foreign: bool = False
    """Telephone events, comfort noise, an unknown type, padding only and empty payloads among the
    audio.
    """
    red_copies: int = 0

    # The network.
    jitter_ms: float = 0.0
    """Added delay, uniform from 0; packets do not overtake each other by it."""
    paths: Spans = ()
    """(at, seconds): delay changes for good."""
    crowds: Sequence[tuple[float, float, float, float, float]] = ()
    """(at, rises for, holds for, falls for, seconds): a queue fills and empties."""
    loss_ratio: float = 0.0
    lost: Spans = ()
    """(begin, length) of bursts and outages."""
    reorder_every: int = 0
    """Every so many packets one comes behind `reorder_by` others."""
    reorder_by: int = 50
    twice_ratio: float = 0.0
    """Packets that come again at once."""
    twice_late_s: float | None = None
    """Every 20th packet comes again that much later."""
    first_late: tuple[int, float] = (0, 0.0)
    """(packets, seconds): the first few are overtaken."""
    first_together_s: float = 0.0
    """Packets of the first seconds come together at their end."""

    # The recorder.
    zero_offsets: bool = False
    with_last_rtp: bool = True
    """Whether the metadata states the last packet."""
    with_sdp: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Marker:
    """A sound whose place is known."""

    waveform: Wave
    media_sample: int
    unix_ns: float
    """Where it belongs on the server's clock."""
    arrived_ratio: float
    """The part of its packets that arrived."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulated:
    """A sender's segment as an archive holds it, and the truth about it."""

    sender: Sender
    dump: bytes
    sdp: bytes
    timing: Mapping[str, Any]
    """What the metadata states of it, but for the name."""
    markers: tuple[Marker, ...]
    packets_sent: int
    media_sample: Ints
    """Of every audio packet sent, arrived or not."""

    def server_unix_ns(self, media_sample: npt.ArrayLike) -> Reals:
        """Returns where content samples belong on the server's clock."""
        return server_unix_ns(self.sender, media_sample)


# --- truth ----------------------------------------------------------------------------------------


def _rates(sender: Sender) -> list[tuple[float, float]]:
    if isinstance(sender.skew_ppm, int | float):
        return [(0.0, float(sender.skew_ppm))]
    return [(at, ppm) for at, ppm in sender.skew_ppm]


def _captured_s(sender: Sender, media_s: Reals) -> Reals:
    """Returns when media time was captured, from the sender's start; what comes at a stall comes
    after it.
    """
    rates = _rates(sender)
    time = np.zeros(media_s.shape, dtype=np.float64)
    for number, (at, ppm) in enumerate(rates):
        until = rates[number + 1][0] if number + 1 < len(rates) else np.inf
        time += (np.clip(media_s, at, until) - at) / (1 + ppm * 1e-6)
    for at, size in sender.stalls:
        time += np.where(media_s >= at - 1e-9, size, 0.0)
    return time


def server_unix_ns(sender: Sender, media_sample: npt.ArrayLike) -> Reals:
    """Returns where content samples belong on the server's clock: when they were captured plus the
    segment's least delay.
    """
    media_s = np.asarray(media_sample, dtype=np.float64) / SAMPLE_RATE_HZ
    least_s = LEAST_DELAY_S + min(
        itertools.accumulate((size for _, size in sender.paths), initial=0.0)
    )
    return CALL_START_NS + (sender.start_s + least_s + _captured_s(sender, media_s)) * 1e9


def _media_at(sender: Sender, server_s: Reals) -> Reals:
    """Returns the media time that stands at a moment of the server's clock, from the sender's
    start.
    """
    edges = sorted(
        {
            0.0,
            sender.seconds * 2 + 60,
            *(at for at, _ in _rates(sender)),
            *(at for at, _ in sender.stalls),
        }
    )
    media = np.repeat(edges, 2)
    before = _captured_s(sender, np.array(edges) - 1e-6) + 1e-6
    after = _captured_s(sender, np.array(edges))
    times = np.stack([np.minimum(before, after), after], axis=1).ravel()
    times[0] = 0.0
    return np.interp(server_s, np.maximum.accumulate(times), media)


# --- content --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4_096)
def chirp(seed: int) -> Wave:
    """Returns a marker's waveform: five sweeps in a row, bands and slopes its own, so that no two
    markers are alike.
    """
    rng = np.random.default_rng([seed, 7])
    count = round(MARKER_S / 5 * SAMPLE_RATE_HZ)
    low, high = rng.uniform(300, 4_000, 5), rng.uniform(4_000, 10_000, 5)
    swap = rng.random(5) < 0.5
    begin, stop = np.where(swap, high, low), np.where(swap, low, high)
    place = np.arange(count) / count
    hz = (begin[:, None] + (stop - begin)[:, None] * place).ravel()
    wave = np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ + rng.uniform(0, 6))
    time = np.arange(len(wave)) / SAMPLE_RATE_HZ
    edge = np.clip(np.minimum(time, MARKER_S - time) / 0.01, 0, 1)
    return (0.3 * wave * np.sin(edge * np.pi / 2)).astype(np.float32)


def _noise(seed: int, samples: int) -> Wave:
    return np.random.default_rng([seed, 8]).uniform(-0.15, 0.15, samples).astype(np.float32)


def _content(sender: Sender) -> list[tuple[int, Wave]]:
    """Returns (first sample, waveform) of all that is said."""
    said = [
        (round(at * SAMPLE_RATE_HZ), chirp(sender.seed * 100_003 + number))
        for number, at in enumerate(sender.markers_s, sender.first_marker)
    ]
    said += [
        (
            round(at * SAMPLE_RATE_HZ),
            _noise(sender.seed * 100_003 + number, round(length * SAMPLE_RATE_HZ)),
        )
        for number, (at, length) in enumerate(sender.sound)
    ]
    return sorted(said, key=lambda item: item[0])


@functools.lru_cache(maxsize=64)
def _silent_packet(packet_ms: float, bitrate_bps: int) -> bytes:
    silence = np.zeros((round(packet_ms * 48) * 6, 1), dtype=np.float32)
    return encode_opus(
        silence, frame_ms=packet_ms, application=APPLICATION_AUDIO, bitrate_bps=bitrate_bps
    )[-1]


def _encode(
    sender: Sender, said: Sequence[tuple[int, Wave]], count: int
) -> tuple[list[bytes], Ints]:
    """Returns distinct Opus packets, and which of them each of `count` packets is."""
    size = round(sender.packet_ms * 48)
    pool = [_silent_packet(sender.packet_ms, sender.bitrate_bps)]
    which = np.zeros(count, dtype=np.int64)
    lead = -(-round(_LEAD_S * SAMPLE_RATE_HZ) // size)
    windows: list[list[int]] = []
    for at, wave in said:
        first, last = max(0, at // size - lead), min(count, (at + len(wave)) // size + 1 + lead)
        if windows and first <= windows[-1][1]:
            windows[-1][1] = max(last, windows[-1][1])
        else:
            windows.append([first, last])
    for first, last in windows:
        pcm = np.zeros(((last - first) * size, 1), dtype=np.float32)
        for at, wave in said:
            start = at - first * size
            if 0 <= start < len(pcm):
                part = wave[: len(pcm) - start]
                pcm[start : start + len(part), 0] += part
        packets = encode_opus(
            pcm,
            frame_ms=sender.packet_ms,
            application=APPLICATION_AUDIO,
            bitrate_bps=sender.bitrate_bps,
        )
        which[first:last] = len(pool) + np.arange(last - first)
        pool += packets
    return pool, which


# --- sending --------------------------------------------------------------------------------------


def _inside(media_s: Reals, spans: Spans) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(media_s), dtype=bool)
    for at, length in spans:
        found |= (media_s >= at - 1e-9) & (media_s < at + length - 1e-9)
    return found


def _origins(sender: Sender, media_s: Reals) -> tuple[Ints, Ints]:
    """Returns the SSRC and what is added to media time to make the RTP timestamp, at moments of
    media time.
    """
    ssrc = np.full(len(media_s), sender.ssrc, dtype=np.int64)
    added = np.full(len(media_s), sender.first_rtp_timestamp, dtype=np.int64)
    for at, ticks in sender.jumps:
        added[media_s >= at - 1e-9] += ticks
    rng = np.random.default_rng([sender.seed, 3])
    for at, number in sender.ssrc_changes:
        ssrc[media_s >= at - 1e-9] = int(number)
        added[media_s >= at - 1e-9] += int(rng.integers(1 << 32))
    return ssrc, added


@dataclass(frozen=True)
class _Records:
    """Packets as a dump holds them: the first 12 bytes of each, and which body follows."""

    arrival_s: Reals
    head: npt.NDArray[np.uint8]
    body: Ints
    is_rtcp: npt.NDArray[np.bool_]


def simulate(sender: Sender) -> Simulated:
    """Returns what a sender's segment looks like to the recorder."""
    rng = np.random.default_rng([sender.seed, 1])
    size = round(sender.packet_ms * 48)
    count = round(sender.seconds * SAMPLE_RATE_HZ) // size
    media = np.arange(count, dtype=np.int64) * size
    media_s = media / SAMPLE_RATE_HZ
    said = _content(sender)
    pool, which = _encode(sender, said, count)

    withheld = _inside(media_s, sender.dtx)
    if sender.dtx_refresh_s is not None:
        every = max(1, round(sender.dtx_refresh_s * SAMPLE_RATE_HZ / size))
        withheld &= np.arange(count) % every != 0
    ssrc, added = _origins(sender, media_s)
    foreign = np.zeros(count, dtype=np.int64)
    if sender.foreign:
        foreign[_FOREIGN_EVERY // 2 :: _FOREIGN_EVERY] = 1
        foreign[withheld] = 0
    taken = (~withheld).astype(np.int64) + foreign
    numbers = sender.first_sequence_number + np.cumsum(taken) - taken
    for at, by in sender.sequence_jumps:
        numbers[media_s >= at - 1e-9] += by
    for number, (at, _) in enumerate(sender.ssrc_changes):
        numbers[media_s >= at - 1e-9] += 7_001 * (number + 1)

    last_sample_s = (media + size - 1) / SAMPLE_RATE_HZ
    sent_s = _captured_s(sender, last_sample_s) + 1 / SAMPLE_RATE_HZ
    delay_s = (
        LEAST_DELAY_S + rng.uniform(0, sender.jitter_ms / 1000, count) + _queue_s(sender, media_s)
    )
    arrival_s = sent_s + delay_s
    if sender.first_together_s:
        arrival_s = np.maximum(arrival_s, sender.first_together_s + LEAST_DELAY_S)
    arrival_s = np.maximum.accumulate(arrival_s)
    if sender.reorder_every:
        moved = np.arange(
            sender.reorder_every // 2, count - sender.reorder_by - 1, sender.reorder_every
        )
        arrival_s[moved] = arrival_s[moved + sender.reorder_by] + 1e-4
    late, by_s = sender.first_late
    arrival_s[:late] += by_s

    lost = (rng.random(count) < sender.loss_ratio) | _inside(media_s, sender.lost)
    bodies, body = _payloads(sender, pool, which, withheld)
    head = np.zeros((count, 12), dtype=np.uint8)
    head[:, 0] = 0x80
    head[:, 1] = RED_PAYLOAD_TYPE if sender.red_copies else OPUS_PAYLOAD_TYPE
    _put(head, 2, 2, numbers)
    _put(head, 4, 4, media + added)
    _put(head, 8, 4, ssrc)
    kept = np.flatnonzero(~withheld & ~lost)
    again = kept[rng.random(len(kept)) < sender.twice_ratio]
    much_later = kept[10::20] if sender.twice_late_s is not None else kept[:0]
    order = np.concatenate([kept, again, much_later])
    times = np.concatenate(
        [
            arrival_s[kept],
            arrival_s[again] + 5e-4,
            arrival_s[much_later] + (sender.twice_late_s or 0.0),
        ]
    )
    parts = [_Records(times, head[order], body[order], np.zeros(len(order), dtype=bool))]
    parts.append(
        _foreign_packets(
            sender,
            np.flatnonzero(foreign),
            numbers,
            withheld,
            media + added,
            ssrc,
            arrival_s,
            bodies,
        )
    )
    parts.append(_reports(sender, bodies))
    dump, timing = _write_dump(sender, parts, bodies)

    markers = []
    arrived = ~withheld & ~lost
    for at, wave in said:
        span = arrived[at // size : -(-(at + len(wave)) // size)]
        (unix_ns,) = server_unix_ns(sender, [at])
        markers.append(
            Marker(
                waveform=wave,
                media_sample=at,
                unix_ns=float(unix_ns),
                arrived_ratio=float(span.mean()) if span.size else 0.0,
            )
        )
    maps = [(OPUS_PAYLOAD_TYPE, "opus/48000/2"), (126, "telephone-event/8000"), (13, "CN/8000")]
    if sender.red_copies:
        maps.insert(0, (RED_PAYLOAD_TYPE, "red/48000/2"))
    return Simulated(
        sender=sender,
        dump=dump,
        sdp=make_sdp(maps),
        timing=timing,
        markers=tuple(markers),
        packets_sent=int((~withheld).sum()),
        media_sample=media[~withheld],
    )


def _queue_s(sender: Sender, media_s: Reals) -> Reals:
    """Returns the delay that the network's paths and queues add."""
    delay = np.zeros_like(media_s)
    for at, size in sender.paths:
        delay += np.where(media_s >= at - 1e-9, size, 0.0)
    for at, rise, hold, fall, height in sender.crowds:
        delay += np.interp(
            media_s,
            [at, at + rise, at + rise + hold, at + rise + hold + fall],
            [0, height, height, 0],
        )
    return delay


def _payloads(
    sender: Sender, pool: list[bytes], which: Ints, withheld: npt.NDArray[np.bool_]
) -> tuple[list[bytes], Ints]:
    """Returns distinct RTP payloads, and which of them each packet has."""
    if not sender.red_copies:
        return list(pool), which
    size = round(sender.packet_ms * 48)
    made: dict[tuple[int, ...], int] = {}
    bodies: list[bytes] = []
    body = np.zeros(len(which), dtype=np.int64)
    for index in np.flatnonzero(~withheld).tolist():
        backs = [
            back
            for back in range(sender.red_copies, 0, -1)
            if index >= back and not withheld[index - back]
        ]
        key = (
            int(which[index]),
            *(value for back in backs for value in (back, int(which[index - back]))),
        )
        if key not in made:
            made[key] = len(bodies)
            older = [(back * size, pool[which[index - back]]) for back in backs]
            bodies.append(make_red_payload(pool[which[index]], older))
        body[index] = made[key]
    return bodies, body


def _put(head: npt.NDArray[np.uint8], first: int, width: int, values: Ints) -> None:
    """Writes big-endian numbers, cut to their field as a wrap does."""
    for place in range(width):
        head[:, first + place] = (values >> 8 * (width - 1 - place)) & 0xFF


def _whole_packets(
    times: Sequence[float], packets: Sequence[bytes], bodies: list[bytes], *, is_rtcp: bool
) -> _Records:
    head = np.array([list(packet[:12]) for packet in packets], dtype=np.uint8).reshape(-1, 12)
    body = len(bodies) + np.arange(len(packets), dtype=np.int64)
    bodies.extend(packet[12:] for packet in packets)
    return _Records(np.array(times, dtype=np.float64), head, body, np.full(len(packets), is_rtcp))


def _foreign_packets(
    sender: Sender,
    places: Ints,
    numbers: Ints,
    withheld: npt.NDArray[np.bool_],
    timestamps: Ints,
    ssrc: Ints,
    arrival_s: Reals,
    bodies: list[bytes],
) -> _Records:
    """Packets that are no audio, each right behind the packet at its place and with the number
    after its.
    """
    kinds: list[dict[str, Any]] = [
        {"payload": b"\x01\x0a\x03\x20", "payload_type": 126},
        {"payload": b"\x40", "payload_type": 13},
        {"payload": bytes(20), "payload_type": 77},
        {"padding_bytes": 200},
        {"payload": b""},
    ]
    packets = [
        make_rtp_packet(
            sequence_number=int(numbers[place]) + int(not withheld[place]),
            rtp_timestamp=int(timestamps[place]),
            ssrc=int(ssrc[place]),
            **kinds[number % len(kinds)],
        )
        for number, place in enumerate(places.tolist())
    ]
    return _whole_packets((arrival_s[places] + 1e-4).tolist(), packets, bodies, is_rtcp=False)


def _reports(sender: Sender, bodies: list[bytes]) -> _Records:
    if sender.report_every_s is None:
        return _whole_packets([], [], bodies, is_rtcp=True)
    rng = np.random.default_rng([sender.seed, 2])
    end = float(_captured_s(sender, np.array([sender.seconds]))[0])
    times = np.arange(
        sender.first_report_s, min(end, sender.reports_until_s), sender.report_every_s
    )
    media_s = _media_at(sender, times)
    ssrc, added = _origins(sender, media_s)
    noise = rng.uniform(0, sender.report_noise_ms / 1000, len(times))
    packets = []
    for number, time in enumerate(times.tolist()):
        wall_ns = CALL_START_NS + round(
            ((sender.start_s + time) * sender.wall_rate + sender.wall_error_s + noise[number]) * 1e9
        )
        packets.append(
            make_rtcp_sender_report(
                ssrc=int(ssrc[number]),
                ntp_time=((wall_ns + NTP_UNIX_SECONDS * 10**9) << 32) // 10**9,
                rtp_timestamp=round(float(media_s[number]) * SAMPLE_RATE_HZ) + int(added[number]),
                packet_count=number,
            )
        )
    delay = (
        LEAST_DELAY_S
        + _queue_s(sender, media_s)
        + rng.uniform(0, sender.jitter_ms / 1000, len(times))
    )
    return _whole_packets((times + delay).tolist(), packets, bodies, is_rtcp=True)


def _write_dump(
    sender: Sender, parts: Sequence[_Records], bodies: Sequence[bytes]
) -> tuple[bytes, dict[str, Any]]:
    """Returns the dump and what the metadata states of it."""
    arrival_s = np.concatenate([part.arrival_s for part in parts])
    order = np.argsort(arrival_s, kind="stable")
    is_rtcp = np.concatenate([part.is_rtcp for part in parts])[order]
    body = np.concatenate([part.body for part in parts])[order]
    head = np.concatenate([part.head for part in parts])[order]
    # Whole ms of the server's clock, floored, counted from when the sender began.
    unix_ms = np.floor(
        (CALL_START_UNIX_MS / 1000 + sender.start_s + arrival_s[order]) * 1000 + 1e-4
    ).astype(np.int64)
    start_ms = CALL_START_UNIX_MS + int(sender.start_s * 1000)
    offsets = np.zeros_like(unix_ms) if sender.zero_offsets else unix_ms - start_ms
    sizes = np.array([len(data) for data in bodies], dtype=np.int64)[body]
    lengths = np.concatenate([[0], np.cumsum(sizes + 20)])
    out = np.zeros(int(lengths[-1]), dtype=np.uint8)
    record = np.zeros((len(body), 20), dtype=np.uint8)
    _put(record, 0, 2, sizes + 20)
    _put(record, 2, 2, np.where(is_rtcp, 0, sizes + 12))
    _put(record, 4, 4, offsets)
    record[:, 8:] = head
    out[lengths[:-1, None] + np.arange(20)] = record
    blob = np.frombuffer(b"".join(bodies), dtype=np.uint8)
    begins = np.cumsum([0, *(len(data) for data in bodies)])[:-1][body]
    ends = np.cumsum(sizes)
    out[np.repeat(lengths[:-1] + 20 - (ends - sizes), sizes) + np.arange(int(ends[-1]))] = blob[
        np.repeat(begins - (ends - sizes), sizes) + np.arange(int(ends[-1]))
    ]
    timing: dict[str, Any] = {}
    rtp, rtcp = np.flatnonzero(~is_rtcp), np.flatnonzero(is_rtcp)
    names = (("first", 0), ("last", -1)) if sender.with_last_rtp else (("first", 0),)
    for name, place in names:
        timing[f"{name}_rtp_rtp_timestamp"] = int.from_bytes(head[rtp[place], 4:8].tobytes(), "big")
        timing[f"{name}_rtp_unix_timestamp"] = int(unix_ms[rtp[place]])
    for name, place in (("first", 0), ("last", -1)) if rtcp.size else ():
        report = head[rtcp[place]].tobytes() + bodies[body[rtcp[place]]]
        ntp_ms = (int.from_bytes(report[8:16], "big") * 1000 >> 32) - NTP_UNIX_SECONDS * 1000
        timing[f"{name}_rtcp_rtp_timestamp"] = int.from_bytes(report[16:20], "big")
        timing[f"{name}_rtcp_ntp_timestamp"] = ntp_ms
    return make_rtpdump(start_ms * 1000, []) + out.tobytes(), timing


# --- calls ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Person:
    """A participant session."""

    name: str
    senders: Sequence[Sender]
    session: str | None = None
    """None for `sess-` and the name."""
    metadata_files: int = 1
    """Over how many files its metadata is split."""
    listed_twice: bool = False
    """Whether each segment is listed twice."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedCall:
    """A call's archive, and who said what when."""

    archive: bytes
    people: Mapping[str, tuple[Simulated, ...]] = field(default_factory=dict)
    """By session."""


def simulate_call(people: Sequence[Person], *, kind: str = "tar", **metadata: Any) -> SimulatedCall:
    """Returns an archive of a call.

    Args:
      people: its participant sessions, in the order of the archive.
      kind: as `make_archive` has it.
      metadata: fields of the timing metadata that are not the defaults.
    """
    members: dict[str, bytes] = {}
    found: dict[str, tuple[Simulated, ...]] = {}
    for number, person in enumerate(people):
        session = person.session or f"sess-{person.name}"
        done = tuple(simulate(sender) for sender in person.senders)
        found[session] = (*found.get(session, ()), *done)
        listed = []
        for place, segment in enumerate(done):
            base = segment.sender.base_filename or f"{number}_{place}"
            members[f"{base}.rtpdump"] = segment.dump
            if segment.sender.with_sdp:
                members[f"{base}.sdp"] = segment.sdp
            entry = {
                "base_filename": base,
                "codec": "audio/red" if segment.sender.red_copies else "audio/opus",
                "track_id": f"{session}:audio",
                "track_type": "TRACK_TYPE_AUDIO",
                **segment.timing,
            }
            listed += [entry] * (2 if person.listed_twice else 1)
        for file in range(person.metadata_files):
            members[f"{number}_{file}_timing_metadata.json"] = make_timing_metadata(
                participant_id=person.name,
                user_session_id=session,
                segments={"audio": listed[file :: person.metadata_files], "video": []},
                **metadata,
            )
    return SimulatedCall(archive=make_archive(members, kind), people=found)


# --- measuring ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerMatch:
    """Where a marker was found."""

    error_ms: float
    """How much later than it belongs; meaningless unless found."""
    gain: float
    """Its level relative to what was sent: 1 unchanged, 2 when it sounds twice at once."""
    likeness: float
    """Correlation with what was sent, 0 to 1."""

    @property
    def is_found(self) -> bool:
        return self.likeness > 0.3


def measure(
    pcm: Pcm, first_unix_ns: float, markers: Iterable[Marker], *, reach_s: float = 0.5
) -> list[MarkerMatch]:
    """Returns where each marker is in decoded audio.

    Args:
      pcm: float32, (samples, channels); the first channel is listened to.
      first_unix_ns: server time of its first sample.
      markers: what to look for.
      reach_s: how far from its place each is looked for.
    """
    return [
        locate(
            pcm, (marker.unix_ns - first_unix_ns) * SAMPLE_RATE_HZ / 1e9, marker.waveform, reach_s
        )
        for marker in markers
    ]


def locate(pcm: Pcm, expected_sample: float, waveform: Wave, reach_s: float = 0.5) -> MarkerMatch:
    """Returns where a waveform is near a sample of decoded audio, by cross-correlation and a
    parabola through its peak.
    """
    reach = round(reach_s * SAMPLE_RATE_HZ)
    first = round(expected_sample) - reach
    window = np.zeros(len(waveform) + 2 * reach, dtype=np.float64)
    begin, stop = max(first, 0), min(first + len(window), len(pcm))
    if stop > begin:
        window[begin - first : stop - first] = pcm[begin:stop, 0]
    size = 1 << (len(window) - 1).bit_length()
    product = np.fft.rfft(window, size) * np.conj(np.fft.rfft(waveform.astype(np.float64), size))
    correlation = np.fft.irfft(product, size)[: 2 * reach + 1]
    energy = float(np.square(waveform, dtype=np.float64).sum())
    running = np.concatenate([[0.0], np.cumsum(np.square(window))])
    around = running[len(waveform) :] - running[: -len(waveform)]
    peak = int(correlation.argmax())
    likeness = float(correlation[peak] / np.sqrt(energy * max(float(around[peak]), 1e-12)))
    shift = 0.0
    if 0 < peak < len(correlation) - 1:
        left, top, right = correlation[peak - 1 : peak + 2]
        bend = left - 2 * top + right
        shift = float(0.5 * (left - right) / bend) if bend else 0.0
    at = first + peak + shift
    return MarkerMatch(
        error_ms=(at - expected_sample) * 1000 / SAMPLE_RATE_HZ,
        gain=float(correlation[peak] / energy),
        likeness=likeness,
    )
