"""Sends what a sender says through its network, to the recorder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.builders import (
    NTP_UNIX_SECONDS,
    OPUS_PAYLOAD_TYPE,
    RED_PAYLOAD_TYPE,
    SAMPLE_RATE_HZ,
    make_red_payload,
    make_rtcp_sender_report,
    make_rtp_packet,
    make_sdp,
)
from tests.support.simulation.content import encode_content, make_content
from tests.support.simulation.dump import Records, whole_packets, write_dump, write_numbers
from tests.support.simulation.sender import (
    CALL_START_NS,
    LEAST_DELAY_S,
    Ints,
    Reals,
    Sender,
    Spans,
    Wave,
    captured_s,
    media_at,
    server_unix_ns,
)

_FOREIGN_EVERY = 40


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


def simulate(sender: Sender) -> Simulated:
    """Returns what a sender's segment looks like to the recorder."""
    rng = np.random.default_rng([sender.seed, 1])
    size = round(sender.packet_ms * 48)
    count = round(sender.seconds * SAMPLE_RATE_HZ) // size
    media = np.arange(count, dtype=np.int64) * size
    media_s = media / SAMPLE_RATE_HZ
    said = make_content(sender)
    pool, which = encode_content(sender, said, count)

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
    sent_s = captured_s(sender, last_sample_s) + 1 / SAMPLE_RATE_HZ
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
    write_numbers(head, 2, 2, numbers)
    write_numbers(head, 4, 4, media + added)
    write_numbers(head, 8, 4, ssrc)
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
    parts = [Records(times, head[order], body[order], np.zeros(len(order), dtype=bool))]
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
    dump, timing = write_dump(sender, parts, bodies)

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


def _foreign_packets(
    sender: Sender,
    places: Ints,
    numbers: Ints,
    withheld: npt.NDArray[np.bool_],
    timestamps: Ints,
    ssrc: Ints,
    arrival_s: Reals,
    bodies: list[bytes],
) -> Records:
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
    return whole_packets((arrival_s[places] + 1e-4).tolist(), packets, bodies, is_rtcp=False)


def _reports(sender: Sender, bodies: list[bytes]) -> Records:
    if sender.report_every_s is None:
        return whole_packets([], [], bodies, is_rtcp=True)
    rng = np.random.default_rng([sender.seed, 2])
    end = float(captured_s(sender, np.array([sender.seconds]))[0])
    times = np.arange(
        sender.first_report_s, min(end, sender.reports_until_s), sender.report_every_s
    )
    media_s = media_at(sender, times)
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
    return whole_packets((times + delay).tolist(), packets, bodies, is_rtcp=True)
