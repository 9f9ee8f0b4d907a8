"""What each of LAME's levels costs and sounds like on speech: the evidence for the default of
`[mp3] lame_level`.

python -m benchmarks.lame_levels
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from tests.support.builders import SAMPLE_RATE_HZ, Pcm
from tests.support.quality import pesq_wide_band, speakers
from transforms.media.containers.mp3 import Mp3File
from transforms.media.settings import Mp3Mode, Mp3Settings
from transforms.media.sound.mix import to_pcm16

LEVELS = (2, 3, 5, 7, 9)
ROUNDS = 3
ENCODINGS = {
    "128 kbit/s": Mp3Settings(bitrate_kbps=128),
    "64 kbit/s": Mp3Settings(bitrate_kbps=64),
    "VBR 2": Mp3Settings(mode=Mp3Mode.VBR, vbr_quality=2),
    "VBR 5": Mp3Settings(mode=Mp3Mode.VBR, vbr_quality=5),
}


def main() -> None:
    """Prints PESQ wide-band and seconds of media per CPU second, for a mono mix of three
    speakers.
    """
    voices = list(speakers().values())
    mix: Pcm = np.asarray(np.sum(voices, axis=0) * 0.6, dtype=np.float32)
    table = Table("encoding", *(f"level {level}" for level in LEVELS))
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in ENCODINGS.items():
            row = []
            for level in LEVELS:
                path = Path(folder) / "mix.mp3"
                settings = replace(settings, lame_level=level)
                cpu_s = min(_encode(mix, path, settings) for _ in range(ROUNDS))
                score = pesq_wide_band(mix, _decode(path))
                row.append(
                    f"{score:.3f}, {len(mix) / SAMPLE_RATE_HZ / cpu_s:.0f}x, "
                    f"{path.stat().st_size // 1000} kB"
                )
            table.add_row(name, *row)
    Console(width=150).print(table)


def _encode(audio: Pcm, path: Path, settings: Mp3Settings) -> float:
    """Writes an MP3; returns the CPU seconds it took."""
    started = time.process_time()
    with Mp3File(path, settings, 1, {}) as file:
        for start in range(0, len(audio), SAMPLE_RATE_HZ):
            file.write(to_pcm16(audio[start : start + SAMPLE_RATE_HZ]))
    return time.process_time() - started


def _decode(path: Path) -> Pcm:
    with av.open(str(path)) as container:
        return np.concatenate(
            [frame.to_ndarray().T.astype(np.float32) for frame in container.decode(audio=0)]
        )


if __name__ == "__main__":
    main()
