"""Calls libopus, the one inside PyAV's wheel or the system's, through ctypes.

So the interpreter lock is free while it decodes, and several tracks are decoded at once.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transforms.media.errors import AudioDecodeError, ConfigError
from transforms.media.units import SAMPLE_RATE_HZ, Bytes, Ints, Pcm

_OPUS_OK = 0
_OPUS_RESET_STATE = 4028


@functools.cache
def load_libopus() -> ctypes.CDLL:
    """Returns libopus, its functions typed.

    Raises:
      ConfigError: neither PyAV's wheel nor the system has it.
    """
    for place in _places_of_libopus():
        try:
            library = ctypes.CDLL(place)
            library.opus_decoder_create.restype = ctypes.c_void_p
        except (OSError, AttributeError):
            continue
        library.opus_decoder_create.argtypes = [
            ctypes.c_int32,
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_int),
        ]
        library.opus_decoder_destroy.argtypes = [ctypes.c_void_p]
        library.opus_decoder_destroy.restype = None
        library.opus_decode_float.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int,
            ctypes.c_int,
        ]  # fmt: skip
        library.opus_decode_float.restype = ctypes.c_int
        library.opus_decoder_ctl.restype = ctypes.c_int
        return library
    raise ConfigError(
        "libopus was not found: neither in the av wheel (av.libs) nor in the system; "
        "install av from a wheel, or the system's package (Debian: libopus0)"
    )


def _places_of_libopus() -> Iterator[str]:
    spec = importlib.util.find_spec("av")
    if spec is not None and spec.origin:
        package = Path(spec.origin).parent
        for folder in (package.parent / "av.libs", package / ".dylibs"):
            yield from (str(path) for path in sorted(folder.glob("*opus*")))
    system = ctypes.util.find_library("opus")  # starts programs: only where the wheel has none
    if system:
        yield system


class OpusDecoder:
    """One libopus decoder at 48 kHz (RFC 6716)."""

    def __init__(self, channels: int) -> None:
        """Args: channels: 1 or 2; libopus mixes down or doubles as needed."""
        self._library = load_libopus()
        self.channels = channels
        error = ctypes.c_int()
        self._state = ctypes.c_void_p(
            self._library.opus_decoder_create(SAMPLE_RATE_HZ, channels, ctypes.byref(error))
        )
        if error.value != _OPUS_OK or not self._state:
            raise AudioDecodeError(f"libopus error {error.value} when creating a decoder")

    def __del__(self) -> None:
        state = getattr(self, "_state", None)
        if state:
            self._library.opus_decoder_destroy(state)

    def reset(self) -> None:
        """Begins anew, as at the start of a stream."""
        self._library.opus_decoder_ctl(self._state, ctypes.c_int(_OPUS_RESET_STATE))

    def decode(self, packet: bytes | None, samples: int, *, fec: bool = False) -> Pcm | None:
        """Returns `samples` of audio, None when libopus refuses the packet.

        Args:
          packet: an Opus packet; None conceals.
          samples: its duration, a multiple of 2.5 ms up to 120 ms; with `fec` that of the packet
            before it.
          fec: decode what `packet` carries of the packet before it (RFC 6716 s2.1.7).
        """
        pcm = np.empty((samples, self.channels), dtype=np.float32)
        size = len(packet) if packet else 0
        got = self._library.opus_decode_float(
            self._state, packet, size, pcm.ctypes.data, samples, int(fec)
        )
        return pcm if got == samples else None

    def decode_all(
        self, payload: Bytes, starts: Ints, sizes: Ints, samples: Ints
    ) -> tuple[Pcm, int]:
        """Decodes packets one behind the other, until libopus refuses one.

        Most of the time of a mix goes here: one call of libopus per packet, straight from the
        staged bytes into the block.

        Args:
          payload: holds the packets.
          starts: index of each packet's first byte; shape (packets,).
          sizes: bytes of each; a packet of none is refused.
          samples: duration of each.

        Returns:
          the audio, and how many packets it is of.
        """
        pcm = np.empty((int(samples.sum()), self.channels), dtype=np.float32)
        decode, state, at = self._library.opus_decode_float, self._state, pcm.ctypes.data
        source, sample_bytes = payload.ctypes.data, pcm.itemsize * self.channels
        decoded = total = 0
        for start, size, wanted in zip(
            starts.tolist(), sizes.tolist(), samples.tolist(), strict=True
        ):
            if not size or decode(state, source + start, size, at, wanted, 0) != wanted:
                break
            at += wanted * sample_bytes
            total += wanted
            decoded += 1
        return pcm[:total], decoded
