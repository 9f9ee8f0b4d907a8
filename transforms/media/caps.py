"""Every fixed bound on what a hostile archive may cost: memory, work, silence, text in tables.

An operator can set the bounds of `LimitSettings`; these nobody needs to set, because no honest
recording comes near them. Numbers that only describe a format stay with the reader of that format.
"""

from __future__ import annotations

# --- the archive and its members ------------------------------------------------------------------

UNQUESTIONED_EXPANDED_BYTES = 64 << 20
"""Expanded bytes below which `max_expansion_ratio` is not looked at: zeros alone, or text, may well
compress a thousandfold.
"""
ZIP_DIRECTORY_BYTES_PER_MEMBER = 256
"""A zip's directory is read whole, and each entry of it costs an object: so many bytes for each
member that `max_members` allows. An entry is 46 bytes and a name.
"""
MIN_ZIP_DIRECTORY_BYTES = 1 << 20
"""A directory of this size is read however small `max_members` is."""
MAX_TAR_EXTENDED_BYTES = 1 << 20
"""A long name or a PAX header of a tar. One that is larger is not read, and the member it belongs
to has no known name.
"""
MAX_SDP_BYTES = 1 << 16
"""One session description, which is read whole; real ones have a few hundred bytes."""
MAX_NAME_WINDOWS = 5_000_000
"""Places in the names of dumps that no segment names exactly at which the names of other segments
are looked for: some 15,000 of both, about a second.
"""
MAX_COMBINING_MARKS = 64
"""Accents of one member's name that is compared without regard to case and Unicode normalisation:
sorting them takes time by their square. Stream-safe text has 30 in a row (UAX #15 s13).
"""

# --- what is told ---------------------------------------------------------------------------------

MAX_MESSAGE_CHARACTERS = 2_000
"""One message: a hostile value in it may be as long as a file. Its two ends are kept."""
MAX_NAME_CHARACTERS_SHOWN = 200
"""A member's name in a message about that name; it may be as long as a PAX header."""
MAX_VALUE_CHARACTERS_SHOWN = 100
"""A codec or track type of the metadata in a message about it."""
MAX_FINDINGS_OF_A_KIND = 200
"""Findings of one error type in one archive that are told one by one; a hostile archive has a
hundred thousand.
"""
MAX_METADATA_FINDINGS = 1_000
"""Entries of one timing metadata file of which it is told that they are no segments; a hostile file
has a million.
"""
MAX_DAMAGED_PLACES = 100
"""Places of one dump where bytes were passed over that are told one by one."""

# --- timing metadata ------------------------------------------------------------------------------

MAX_TEXT_CHARACTERS = 4_096
"""One id or name. Ids become keys of tables and of shuffles; the vendor's own are UUIDs, an
application's may be long, but not books.
"""

# --- dumps: random bytes in the right framing cost no hours, of work or of silence ----------------

MAX_SOURCES = 256
"""SSRCs of one dump, the ones with the most packets; one track has one, and a new one when it is
published again.
"""
MAX_PACKET_RUNS = 2_000
"""Packet runs of one dump, the longest ones; each has a clock of its own to be fitted."""
MAX_BREAKS = 100_000
"""Breaks in the numbers or time stamps of one source that are looked at one by one."""
MAX_SEQUELS_TRIED = 4
"""Rows of packets that count on from one origin, the latest ones, that packets behind a break are
compared with.
"""
MAX_SEQUELS = 8
"""Times that a source may count from the same numbers again, one after the other or at once."""
MAX_REPORTS = 250_000
"""Sender reports of one dump: 24 h at three a second."""
PACKETS_PER_UNSEEN_STALL = 200
MIN_UNSEEN_STALLS = 20
"""How often sender reports may tell of stalls that no packet shows, each of which is looked for: on
average once in 4 s, and a few more. Beyond, such reports are noise.
"""
MAX_PACKET_RUNS_TRIED_PER_REPORT = 64
"""Packet runs of its source that one sender report is compared with."""
MAX_COMPOUND_PACKETS = 64
"""RTCP packets of one record: reports of up to 31 sources and what goes with them (RFC 3550
s6.1).
"""
MAX_RED_BYTES = 4 * 1_275
"""One RED payload: four of the longest Opus frames. A longer one counts as broken."""
MAX_RED_BLOCKS = 16
"""Redundant blocks of one packet. Senders put in one to three, libwebrtc at most nine."""
MAX_RED_COPIES = 3_000_000
"""Redundant copies of one dump that are looked at and kept: 120 MB; two for each packet of 8 h, if
all were lost.
"""
LONGEST_JUMP_SAMPLES = 60 * 48_000
"""How far time stamps may jump ahead, at 48 kHz, where nothing else tells the time; beyond, it is a
new origin and no silence. DTX sends a packet every 400 ms.
"""
LONGEST_PAUSE_NS = 24 * 3_600 * 1_000_000_000
"""How long a pause may be that only a sender report tells of."""

# --- the clocks of servers: what travels with each part of a track is small -----------------------

MAX_STEP_SIGHTINGS = 32
"""Steps of the least delay that one part of a track tells of, the largest ones; 40 bytes each."""
MAX_WATCHED_SPANS = 64
"""Packet runs of one part of a track, the longest ones, that are witnesses of their server's
clock.
"""
MAX_WALL_SPANS = 32
"""Rows of sender reports of one part of a track that tell its server's clock, the first ones and
the last ones.
"""
MAX_SERVER_STEPS = 32
"""Steps of a server's clock in one archive of a call, the largest ones; an honest one has one."""
MAX_STEP_SEEDS = 4_096
"""Steps of the least delay in one archive of a call, the largest ones, of which it is asked whether
others show them, too.
"""
