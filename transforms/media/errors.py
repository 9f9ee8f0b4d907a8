"""The exception tree, sorted by whose fault an error is.

`ConfigError` is the operator's and is raised before any work. `RecordingError` says that one
recording is bad: it becomes a `failures` row and the run goes on. Everything else is a bug of ours
and fails the run.
"""

from __future__ import annotations

import errno

from transforms.media import caps
from transforms.media.text import one_line


class CallpressError(Exception):
    """Base of every error this program raises on purpose."""


class ConfigError(CallpressError):
    """The operator asked for something impossible; the message says which option and what to write
    instead.
    """


class RunFailedError(CallpressError):
    """More failed of a run than it is allowed, or it found nothing of what was named: all it made
    is published, and its result says so too.
    """


class StoreDownError(CallpressError):
    """A store has not answered for long: it is no recording's fault, and the run ends before it
    asks for all of them.
    """


class RecordingError(CallpressError):
    """One recording is unusable as a whole. The message says what was found, where, and what was
    expected.
    """

    retryable = False
    """Whether another run over the same bytes may succeed."""

    def __init__(
        self,
        message: str,
        *,
        member: str | None = None,
        byte_offset: int | None = None,
        lacks_segment: str | None = None,
    ) -> None:
        message = one_line(message)
        if (
            len(message) > caps.MAX_MESSAGE_CHARACTERS
        ):  # a hostile value in it: what is wrong stands at its ends
            message = f"{message[:1_500]} ... {message[-400:]}"
        super().__init__(message)
        self.message = message
        self.member = member
        """The archive member the error was met in; None when it concerns the whole."""
        self.byte_offset = byte_offset
        """Position in that member; None when no single position is to blame."""
        self.lacks_segment = lacks_segment
        """The segment, by its name without suffix, whose dump or description is not in the archive
        but may be in another one; None for all other errors.
        """


class ArchiveError(RecordingError):
    """The archive is unreadable, unsafe, over a limit, or lacks a member."""


class RtpdumpError(RecordingError):
    """A packet dump is not in rtpdump format."""


class RtpError(RecordingError):
    """A packet is not RTP or RTCP by RFC 3550, or not RED by RFC 2198."""


class SdpError(RecordingError):
    """A session description (RFC 8866) lacks what is needed."""


class TimingMetadataError(RecordingError):
    """A `*_timing_metadata.json` is not in the form that the recorder writes."""


class MissingAudioError(RecordingError):
    """Audio that the metadata claims is not in the archive, or packets that came are in no file."""


class UnsupportedCodecError(RecordingError):
    """The track is not Opus; the message names what it is."""


class EncryptedAudioError(RecordingError):
    """Packets were encrypted end to end: they are kept as they were sent, and not heard."""


class TimelineError(RecordingError):
    """Nothing usable on the time line, or clocks that cannot be reconciled."""


class AudioDecodeError(RecordingError):
    """libopus refused a stream; the message carries its error code."""


class UnreadableManifestError(RecordingError):
    """A manifest as a whole is of no shape that is read; the message tells which are, and its first
    line.
    """


class StorageError(RecordingError):
    """Storage still fails after the retries."""

    retryable = True


class LinkExpiredError(StorageError):
    """A signed link is good no longer; the message says since when. A newer one may open what it
    led to.
    """


class RetainedFileError(RecordingError):
    """A file of which no row is left stays: its store does not let it be deleted."""


class CodecProcessError(RecordingError):
    """The codec process died, or passed its time or memory limit."""

    retryable = True


_EXHAUSTED = {
    errno.EMFILE: "this process has as many files open as it may (ulimit -n)",
    errno.ENFILE: "this machine has as many files open as it can (fs.file-max)",
    errno.ENOMEM: "this machine has no memory left",
    errno.EAGAIN: "this user has as many processes and threads as may be (ulimit -u)",
}


def exhausted_resource(error: BaseException) -> str | None:
    """Returns what the machine ran out of, when that is what an error says, or one behind it; None
    for anything else. Engines wrap errors, or hand on no more than their text.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError):
            return _EXHAUSTED[errno.ENOMEM]
        if isinstance(found, OSError) and found.errno in _EXHAUSTED:
            return _EXHAUSTED[found.errno]
        text = str(found)
        if "can't start new thread" in text:
            return _EXHAUSTED[errno.EAGAIN]
        for number, what in _EXHAUSTED.items():
            if f"[Errno {number}]" in text:
                return what
        found = found.__cause__ or found.__context__
    return None
