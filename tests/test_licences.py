"""docs/licences.md tells of every library in the pinned PyAV wheel, as FFmpeg there says itself."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import av

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "licences.md").read_text("utf-8")
LIBRARIES = {
    re.sub(r"-[0-9a-f]{8}\.so.*", "", path.name): path
    for path in (Path(av.__file__).parents[1] / "av.libs").iterdir()
}


def test_page_has_each_library_of_the_wheel_and_no_other() -> None:
    table = PAGE[PAGE.index("| library in `av.libs`") : PAGE.index("The column of licences")]
    told = re.findall(r"`(lib[^`]+)`", table)
    assert sorted(told) == sorted(LIBRARIES)


def test_page_says_what_ffmpeg_says_of_itself() -> None:
    avcodec = ctypes.CDLL(str(LIBRARIES["libavcodec"]))
    avcodec.avcodec_license.restype = avcodec.avcodec_configuration.restype = ctypes.c_char_p
    text = " ".join(PAGE.split())
    assert f"`{avcodec.avcodec_license().decode()}`" in text
    built_with = avcodec.avcodec_configuration().decode()
    assert "--enable-gpl" not in built_with
    for flag in ("--enable-version3", "--enable-libx264", "--enable-libx265"):
        assert flag in built_with
    assert f"`av` {av.__version__} " in text
    assert f"FFmpeg {av.ffmpeg_version_info} " in text
