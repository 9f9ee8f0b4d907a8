"""Writes Opus packets, as they were sent, into Matroska, WebM or Ogg through PyAV.

Holes between packets become frames of no bytes, which decoders conceal or keep silent.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

from transforms.media.containers.track_uid import set_track_uid
from transforms.media.opus.packet import GRID_SAMPLES, filler_packets
from transforms.media.units import SAMPLE_RATE_HZ
from transforms.media.values import Container, Tags

_FORMATS = {Container.MKV: "matroska", Container.WEBM: "webm", Container.OGG: "ogg"}
_TIME_BASE = Fraction(1, SAMPLE_RATE_HZ)


class OpusFile:
    """An individual file being written; a context manager. The same packets give the same bytes.

    The muxer writes OpusHead with a pre-skip of 312 samples (RFC 7845 s5.1; CodecDelay in Matroska,
    RFC 9559), so the file decodes to all its packets less 312 samples.
    """

    def __init__(
        self, path: Path, container: Container, channels: int, tags: Tags, uid: int = 1
    ) -> None:
        """Creates a file.

        Args:
          path: must be local: cues and duration are written by seeking back.
          container: its format.
          channels: 1 or 2.
          tags: title, artist, date and so on.
          uid: 64 bits that no other file has: Matroska's TrackUID (RFC 9559 s5.1.4.1.2), never 0,
            and in 31 bits of it Ogg's serial number (RFC 3533 s6).
        """
        # Imported late, as it takes an eighth of a second: whoever only names this class goes
        # without.
        import av
        from av.audio.stream import AudioStream
        from av.stream import Disposition

        self._new_packet = av.Packet
        options = {"fflags": "+bitexact"}
        if container == Container.OGG:
            options["serial_offset"] = str(uid & 0x7FFF_FFFF)
        self._path, self._uid = path, None if container == Container.OGG else uid
        self._container = av.open(str(path), "w", format=_FORMATS[container], options=options)
        stream = self._container.add_stream(
            "opus", rate=SAMPLE_RATE_HZ, layout="stereo" if channels == 2 else "mono"
        )
        assert isinstance(stream, AudioStream)
        stream.time_base = _TIME_BASE
        stream.disposition = Disposition.default  # Matroska's FlagDefault
        self._stream = stream
        # Ogg keeps tags in the stream, the others in the file.
        (stream.metadata if container == Container.OGG else self._container.metadata).update(tags)
        self._toc_byte = (
            0xFC if channels == 2 else 0xF8
        )  # CELT, full band, 20 ms, until a packet is there
        self.duration_samples = 0
        """What has been written so far, the pre-skip included."""

    def __enter__(self) -> OpusFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()
        if kind is None and self._uid is not None and self.duration_samples:
            set_track_uid(self._path, self._uid)

    def write(self, opus_packet: bytes, duration_samples: int) -> None:
        """Appends a packet right behind what is there."""
        self._mux(opus_packet, duration_samples)
        self._toc_byte = opus_packet[0]

    def fill(self, samples: int) -> None:
        """Appends frames of no bytes for `samples`, a multiple of 2.5 ms."""
        if samples % GRID_SAMPLES:
            raise ValueError(f"a hole of {samples} samples is not whole Opus frames")
        for packet, duration in filler_packets(self._toc_byte, samples):
            self._mux(packet, duration)

    def _mux(self, data: bytes, duration_samples: int) -> None:
        packet = self._new_packet(data)
        packet.stream = self._stream
        packet.time_base = _TIME_BASE
        packet.pts = packet.dts = self.duration_samples
        packet.duration = duration_samples
        self._container.mux(packet)
        self.duration_samples += duration_samples
