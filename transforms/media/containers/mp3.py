"""Writes PCM into MP3 through LAME, with ID3 tags and a header that says the exact length.

LAME's encoder delay and what it pads at the end stand in the first frame (the Xing or Info frame
with LAME's extension, as its `VbrTag.c` lays it out); ffmpeg, mpg123 and others drop both and give
back exactly the samples put in.
"""

from __future__ import annotations

import io
import struct
from array import array
from pathlib import Path
from types import TracebackType

import lameenc
import numpy as np
import numpy.typing as npt
from fastcrc import crc16

from transforms.media.settings import MP3_BITRATES_KBPS, Mp3Mode, Mp3Settings
from transforms.media.units import SAMPLE_RATE_HZ
from transforms.media.values import Tags

FRAME_SAMPLES = 1_152
ENCODER_DELAY_SAMPLES = 576
_MPEG1_48K = 0xFFFB0400
"""Sync, MPEG-1, layer III, no CRC, 48 kHz (ISO/IEC 11172-3 s2.4.1.3)."""
_INFO_BITRATE_KBPS = 64
"""The lowest at which a frame (192 bytes) holds the header."""
_LAME_VBR_MTRH = 4
_TOC_ENTRIES = 100
_RESTING_FRAMES = 256
"""6 s of digital silence, behind which LAME is at rest: then all its frames are the same, and the
sound that follows is encoded to the same bytes however long the silence was. Seen to take 128
frames at most, over all modes and levels; the last to settle is its masking threshold.
"""
_COPIED_AT_ONCE = 4_096


def write_id3(tags: Tags) -> bytes:
    """Returns an ID3v2.4 tag, written by FFmpeg's muxer from its generic tag names."""
    import av  # late, as in `containers.matroska`

    out = io.BytesIO()
    with av.open(
        out,
        "w",
        format="mp3",
        options={"write_xing": "0", "fflags": "+bitexact", "id3v2_version": "4"},
    ) as container:
        container.add_stream("mp3", rate=SAMPLE_RATE_HZ)
        container.metadata.update(tags)
        container.start_encoding()
    return out.getvalue()


class Mp3File:
    """An MP3 being written to a local file; a context manager.

    The same samples give the same bytes. Without an error inside the `with` the header is written
    when it ends.
    """

    def __init__(self, path: Path, settings: Mp3Settings, channels: int, tags: Tags) -> None:
        """Creates `path`. Args: channels: 1 or 2, of the samples and the file."""
        encoder = lameenc.Encoder()
        encoder.silence()
        encoder.set_channels(channels)
        encoder.set_in_sample_rate(SAMPLE_RATE_HZ)
        # LAME goes down by itself at low bit rates unless told; the header and the time line want
        # 48 kHz.
        encoder.set_out_sample_rate(SAMPLE_RATE_HZ)
        encoder.set_quality(settings.lame_level)
        if settings.mode == Mp3Mode.CBR:
            encoder.set_bit_rate(settings.bitrate_kbps)
        else:
            encoder.set_vbr(_LAME_VBR_MTRH)
            encoder.set_vbr_quality(settings.vbr_quality)
        self._encoder = encoder
        self._settings = settings
        self.channels = channels
        self._frame_bytes = array("H")
        self._left_over = b""
        """Of a frame of which LAME has not given all."""
        self._last_frame = b""
        self._same_frames = 0
        """How many frames before the last one are the same as it."""
        self._music_crc = 0
        self.samples = 0
        """Samples written so far, per channel."""
        self._file = path.open("wb")
        self._file.write(write_id3(tags))
        self._header_position = self._file.tell()
        self._header_kbps = (
            max(settings.bitrate_kbps, _INFO_BITRATE_KBPS) if settings.mode == Mp3Mode.CBR else 64
        )
        self._file.write(bytes(_frame_bytes(self._header_kbps, 0)))

    def __enter__(self) -> Mp3File:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                if not self.samples:  # LAME has nothing to flush before its first sample
                    self.write(np.zeros((1, self.channels), dtype=np.int16))
                self._append(bytes(self._encoder.flush()))
                self._file.seek(self._header_position)
                self._file.write(self._header())
        finally:
            self._file.close()

    def write(self, audio: npt.NDArray[np.int16]) -> None:
        """Appends samples, int16, (samples, channels)."""
        if len(audio):
            self.samples += len(audio)
            self._append(bytes(self._encoder.encode(audio.tobytes())))

    def write_silence(self, samples: int) -> None:
        """Appends digital silence. The bytes are those that `write` makes of zeros.

        Most of a long silence is not encoded: its frames are copies of one. Each is whole in
        itself, as there is no padding at 48 kHz, and the bit reservoir that a frame refers to
        (main_data_begin, ISO/IEC 11172-3 s2.4.2.7) lies in the frames before it, which are the same
        wherever it stands.
        """
        resting = _RESTING_FRAMES * FRAME_SAMPLES
        while samples >= 2 * resting:
            self._write_zeros(resting)
            samples -= resting
            if self._same_frames >= _RESTING_FRAMES // 2:
                copies = samples // FRAME_SAMPLES
                self._copy_last_frame(copies)
                samples -= copies * FRAME_SAMPLES
        self._write_zeros(samples)

    def _write_zeros(self, samples: int) -> None:
        self.write(np.zeros((samples, self.channels), dtype=np.int16))

    def _copy_last_frame(self, copies: int) -> None:
        """Appends copies of the last frame, before what is there of the next one."""
        frame = self._last_frame
        for first in range(0, copies, _COPIED_AT_ONCE):
            self._append_frames(frame * min(_COPIED_AT_ONCE, copies - first))
        self._frame_bytes.extend(array("H", [len(frame)]) * copies)
        self._same_frames += copies
        self.samples += copies * FRAME_SAMPLES

    @property
    def bitrate_bps(self) -> int:
        """Mean bit rate of the audio frames written so far."""
        frames = len(self._frame_bytes)
        return (
            sum(self._frame_bytes) * 8 * SAMPLE_RATE_HZ // (frames * FRAME_SAMPLES) if frames else 0
        )

    def _append(self, data: bytes) -> None:
        """Takes what the encoder gives; its whole frames go to the file."""
        data = self._left_over + data
        position = 0
        while position + 4 <= len(data):
            (header,) = struct.unpack_from(">I", data, position)
            size = _frame_bytes(MP3_BITRATES_KBPS[(header >> 12 & 15) - 1], header >> 9 & 1)
            if position + size > len(data):
                break
            frame = data[position : position + size]
            self._same_frames = self._same_frames + 1 if frame == self._last_frame else 0
            self._last_frame = frame
            self._frame_bytes.append(size)
            position += size
        self._append_frames(data[:position])
        self._left_over = data[position:]

    def _append_frames(self, frames: bytes) -> None:
        self._file.write(frames)
        self._music_crc = crc16.arc(frames, self._music_crc)

    def _header(self) -> bytes:
        """Returns the Xing (variable rate) or Info (constant) frame with LAME's extension."""
        cbr = self._settings.mode == Mp3Mode.CBR
        frames = len(self._frame_bytes)
        padding = frames * FRAME_SAMPLES - ENCODER_DELAY_SAMPLES - self.samples
        if not 0 <= padding < 4096:
            raise ValueError(
                f"{frames} frames for {self.samples} samples leave a padding of {padding}"
            )
        size = _frame_bytes(self._header_kbps, 0)
        total_bytes = size + sum(self._frame_bytes)
        mode = 0xC0 if self.channels == 1 else 0x40  # mono, or joint stereo
        header = _MPEG1_48K | (MP3_BITRATES_KBPS.index(self._header_kbps) + 1) << 12 | mode
        frame = bytearray(struct.pack(">I", header))
        frame += bytes(17 if self.channels == 1 else 32)
        frame += b"Info" if cbr else b"Xing"
        quality = 100 - 10 * self._settings.vbr_quality - self._settings.lame_level
        frame += struct.pack(">III", 0x0F, frames, total_bytes)
        frame += self._table_of_contents(size, total_bytes)
        frame += struct.pack(">I", max(quality, 0))
        frame += b"LAME3.100"
        frame += bytes(
            [0x01 if cbr else 0x04, 0]
        )  # tag revision 0 with the method: CBR, or VBR mtrh
        frame += bytes(4 + 2 + 2 + 1)  # peak, two gains, encoding flags: not stated
        frame += bytes([min(self._settings.bitrate_kbps, 255) if cbr else 0])
        frame += (ENCODER_DELAY_SAMPLES << 12 | padding).to_bytes(3, "big")
        frame += bytes(1 + 1 + 2)
        frame += struct.pack(">IH", total_bytes, self._music_crc)
        frame += struct.pack(">H", crc16.arc(bytes(frame), 0))
        return bytes(frame.ljust(size, b"\0"))

    def _table_of_contents(self, first: int, total: int) -> bytes:
        """Returns where in the file each hundredth of the time is, as a 256th of the bytes."""
        ends = np.cumsum(
            np.concatenate([[first], np.frombuffer(self._frame_bytes, dtype=np.uint16)])
        )
        at = ends[np.arange(_TOC_ENTRIES) * len(self._frame_bytes) // _TOC_ENTRIES]
        at[0] = 0
        return bytes(np.minimum(at * 256 // total, 255).astype(np.uint8))


def _frame_bytes(kbps: int, padding: int) -> int:
    return 144 * kbps * 1000 // SAMPLE_RATE_HZ + padding
