"""What the vendor lists: the raw recordings of some manifests, each once, and what of the manifests
is none.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from transforms.media.errors import RecordingError
from transforms.sources.manifests.entry import BadEntry, LeftOut, ManifestEntry
from transforms.sources.manifests.reading import ManifestSource, newness, read_source
from transforms.storage.link_expiry import expiry_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRecording:
    """One raw recording that a listing names. Nothing of it is secret."""

    uri: str
    """What it is known by: of a link scheme, host and path; else the full URI or absolute path."""
    call_cid: str = ""
    """`type:id`; empty where the listing does not say."""
    call_session_id: str = ""
    """Empty where the listing does not say."""
    ended_unix_ns: int | None = None
    """When the recording ended, else when its event was made; None where neither is said."""
    expires_unix_ns: int | None = None
    """When its link expires, by what that shows; None for one that shows nothing, and for none."""


def recording_of(entry: ManifestEntry, asked_unix_ns: int) -> ListedRecording:
    """Returns what an entry of a manifest says of a recording.

    Args:
      entry: the entry.
      asked_unix_ns: when the manifests were begun to be read. An entry that is made after that is
        an answer of the vendor's API: its time says nothing of the recording.
    """
    ended = entry.ended_unix_ns
    if ended is None and entry.issued_unix_ns is not None and entry.issued_unix_ns < asked_unix_ns:
        ended = entry.issued_unix_ns
    return ListedRecording(
        uri=entry.uri,
        call_cid=entry.call_cid,
        call_session_id=entry.call_session_id,
        ended_unix_ns=ended,
        expires_unix_ns=expiry_of(entry.link) if entry.link else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The recordings that some manifests name, in their order."""

    recordings: tuple[ListedRecording, ...]
    repeated: int = 0
    """Entries that name one of them again."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Entries of no raw recording, by the words of `LeftOut`."""
    problems: tuple[str, ...] = ()
    """A line for each entry, and each manifest, that cannot be read, or not to its end."""

    def __iter__(self) -> Iterator[ListedRecording]:
        return iter(self.recordings)

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def counts(self) -> dict[str, int]:
        """How many recordings and other entries there are."""
        return {
            "listed": len(self.recordings),
            "repeated": self.repeated,
            "not_readable": len(self.problems),
            **{f"passed_over_{why}": self.passed_over.get(why, 0) for why in LeftOut},
        }

    @property
    def sha256(self) -> str:
        """The digest of the listing: SHA-256, in hex, over a line for each recording, in order: the
        JSON array of its URI and call session, without spaces, in UTF-8. No signature is in it, so
        that the same recordings have the same digest however often they are listed.
        """
        digest = hashlib.sha256()
        for line in sorted(map(_spell, self.recordings)):
            digest.update(line)
        return digest.hexdigest()


def _spell(recording: ListedRecording) -> bytes:
    names = [recording.uri, recording.call_session_id]
    line = json.dumps(names, ensure_ascii=False, separators=(",", ":"))
    return f"{line}\n".encode("utf-8", "surrogatepass")


def read_listing(sources: Sequence[ManifestSource]) -> Listing:
    """Returns what manifests name. Of several entries of a recording that one counts whose link is
    the newest, else the last, and what it does not say the others tell. Memory is some 500 bytes a
    recording; links are not kept.

    Raises:
      ConfigError: the account of the vendor's API is not set up.
    """
    found: dict[str, tuple[tuple[int, int], ListedRecording]] = {}
    passed_over: Counter[str] = Counter()
    problems: list[str] = []
    repeated = 0
    asked_unix_ns = time.time_ns()
    for source in sources:
        try:
            for shown, each in read_source(source):
                if isinstance(each, LeftOut):
                    passed_over[each] += 1
                elif isinstance(each, BadEntry):
                    problems.append(": ".join(filter(None, (shown, each.position, each.why))))
                else:
                    recording, new = recording_of(each, asked_unix_ns), newness(each)
                    if (known := found.get(each.uri)) is not None:
                        repeated += 1
                        problems += _are_two(shown, recording, known[1])
                        older, newer = sorted((known, (new, recording)), key=lambda it: it[0])
                        new, recording = newer[0], _joined(newer[1], older[1])
                    found[each.uri] = new, recording
        except RecordingError as error:
            problems.append(str(error))
    return Listing(
        recordings=tuple(recording for _, recording in found.values()),
        repeated=repeated,
        passed_over=passed_over,
        problems=tuple(problems),
    )


def _are_two(shown: str, one: ListedRecording, other: ListedRecording) -> Iterator[str]:
    """Yields a line where entries of one location are of two recordings, as where a site tells
    them apart by the query of their links: a run has asked for one of them alone.
    """
    sessions = one.call_session_id, other.call_session_id
    if all(sessions) and sessions[0] != sessions[1]:
        yield (
            f"{shown}: {one.uri} is listed for the call sessions {sessions[1]} and {sessions[0]}, "
            "expected one: recordings are told apart by host and path, and one of them is not known"
        )


def _joined(newer: ListedRecording, older: ListedRecording) -> ListedRecording:
    ended = newer.ended_unix_ns
    return replace(
        newer,
        call_cid=newer.call_cid or older.call_cid,
        call_session_id=newer.call_session_id or older.call_session_id,
        ended_unix_ns=older.ended_unix_ns if ended is None else ended,
    )


def listing_of(recordings: Iterable[ListedRecording]) -> Listing:
    """Returns the listing that a run has read: each recording once."""
    return Listing(recordings=tuple({each.uri: each for each in recordings}.values()))
