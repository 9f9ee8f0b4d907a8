"""What all parts of a call together tell of the clocks of the servers that recorded it, and the
parts on the clock of their call.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from transforms.elements import TrackPart
from transforms.media.clock.server_clocks import CallPart, find_server_clocks
from transforms.media.server_clock import ClockWatch, ServerClock
from transforms.media.units import NS_PER_MS
from transforms.media.values import CallKey
from transforms.media.wall_time import to_time

logger = logging.getLogger(__name__)


def put_on_call_clock(parts: list[TrackPart]) -> tuple[list[TrackPart], int]:
    """Returns parts with the clocks of their servers, on the clock of the call, in order of time,
    and without what they show of those clocks.

    Also how often one of those clocks was set.
    """
    clocks = find_server_clocks(
        [
            CallPart(
                archive_uri=part.archive_uri,
                participant_id=part.participant_id,
                user_session_id=part.user_session_id,
                output_type=str(part.output_type),
                first_unix_ns=part.first_server_unix_ns,
                watch=part.watch,
            )
            for part in parts
            if part.packets_uri
        ]
    )
    for archive_uri, clock in sorted(clocks.items()):
        if not clock.is_calls:
            _tell_clock(parts[0].call, archive_uri, clock)
    found = []
    for part in parts:
        clock = clocks.get(part.archive_uri, ServerClock())
        if part.packets_uri and not clock.is_calls:
            first, last, stop = (
                written - clock.ahead_at_ns(written)
                for written in (
                    part.first_server_unix_ns,
                    part.last_server_unix_ns,
                    part.stop_server_unix_ns,
                )
            )
            part = replace(
                part,
                server_clock=clock,
                first_server_unix_ns=first,
                last_server_unix_ns=last,
                stop_server_unix_ns=stop,
            )
        found.append(replace(part, watch=ClockWatch()))  # it has told what it shows
    found.sort(key=lambda part: (part.first_server_unix_ns, part.archive_uri))
    return found, sum(bool(step.size_ns) for clock in clocks.values() for step in clock.steps)


def _tell_clock(call: CallKey, archive_uri: str, clock: ServerClock) -> None:
    for step in clock.steps:
        if not step.size_ns:
            logger.info(
                "%s, session %s: the server of %s may have set its clock by %d ms at %s: one "
                "participant was there and shows it, which may be his own; what lies behind "
                "it states it in sync_error_ms",
                call.cid,
                call.call_session_id,
                archive_uri,
                round(step.error_ns / NS_PER_MS),
                to_time(step.at_unix_ns).isoformat(),
            )
            continue
        logger.info(
            "%s, session %s: the server of %s set its clock by %+d ms at %s; the call goes on as "
            "before it",
            call.cid,
            call.call_session_id,
            archive_uri,
            round(step.size_ns / NS_PER_MS),
            to_time(step.at_unix_ns).isoformat(),
        )
    if clock.ahead_ns or clock.doubt_ns:
        logger.info(
            "%s, session %s: the clock of the server of %s was taken to be %+d ms ahead of the "
            "call's, to within %d ms",
            call.cid,
            call.call_session_id,
            archive_uri,
            round(clock.ahead_ns / NS_PER_MS),
            round(clock.doubt_ns / NS_PER_MS),
        )
