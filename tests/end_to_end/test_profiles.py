"""Each shipped profile, run once: what it makes is what its use case asks for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipelines.job_profile import JobProfile, load_profile
from pipelines.targets import NotifyTable
from tests.support.command import ROOT, SAMPLE, STEREO_STALLS, decode_with_ffmpeg, press, query
from transforms.media.errors import ConfigError
from transforms.media.settings import PressSettings
from transforms.storage.storage_options import StreamAccount

PROFILES = {
    # name: (containers of individual files, their output types, mix: (mode's header, channels of a
    # stereo call) or None)
    "default": ({"mkv"}, {"audio_only", "screenshare_audio_only"}, (b"Info", 2)),
    "meeting": (set(), set(), (b"Xing", 1)),
    "podcast": ({"mkv"}, {"audio_only"}, None),
    "transcription": ({"ogg"}, {"audio_only"}, (b"Info", 1)),
    "archive": ({"webm"}, {"audio_only", "screenshare_audio_only"}, (b"Xing", 1)),
    "custom_mp3": (set(), set(), (b"Xing", 2)),
}


@pytest.mark.parametrize("name", PROFILES)
def test_profile_makes_what_it_says(name: str, tmp_path: Path) -> None:
    containers, output_types, mix = PROFILES[name]
    press(tmp_path, SAMPLE, STEREO_STALLS, flags=("--config", ROOT / "configs" / f"{name}.toml"))
    rows = query(tmp_path / "catalog", "recordings")
    individual = [row for row in rows if row["recording_type"] == "individual"]
    assert {row["container"] for row in individual} == containers
    assert {row["output_type"] for row in individual} == output_types
    mixes = {row["call_id"]: row for row in rows if row["recording_type"] == "composite"}
    if mix is None:
        assert not mixes
    else:
        header, channels = mix
        assert header in Path(mixes["music-room"]["uri"]).read_bytes()[:2000]
        assert mixes["music-room"]["channels"] == channels
    for row in rows:
        assert len(decode_with_ffmpeg(row["uri"], row["channels"])) == row["duration_samples"]
        probe = [
            "ffprobe",
            "-v",
            "error",
            "-show_entries",
            "format=format_name:stream=codec_name",
            "-of",
            "csv=p=0",
        ]
        said = subprocess.run(
            [*probe, row["uri"]], capture_output=True, text=True, check=True
        ).stdout
        assert row["codec"] in said
        assert {"mkv": "matroska", "webm": "webm", "ogg": "ogg", "mp3": "mp3"}[
            row["container"]
        ] in said


def test_profiles_are_all_there_and_all_different() -> None:
    files = {path.stem: load_profile(str(path)) for path in (ROOT / "configs").glob("*.toml")}
    assert set(files) == set(PROFILES)
    assert len(set(map(repr, files.values()))) == len(files)


@pytest.mark.parametrize("name", PROFILES)
def test_profile_is_found_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_profile(name) == load_profile(str(ROOT / "configs" / f"{name}.toml"))


@pytest.mark.parametrize("path", ["podcast", "podcast.toml", "./podcast"])
def test_a_file_that_is_there_is_a_path(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(path).write_text("max_failed_ratio = 0.25\n")
    assert load_profile(path).settings == PressSettings(max_failed_ratio=0.25)


@pytest.mark.parametrize("path", ["default.toml", "./default", "configs/default"])
def test_a_path_is_never_a_name(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"^--config {path}: No such file or directory$"):
        load_profile(path)


def test_an_unknown_name_lists_those_there_are_and_the_nearest() -> None:
    names = (
        "There are archive, custom_mp3, default, meeting, podcast, transcription; any other is "
        "given by the path of its file"
    )
    with pytest.raises(ConfigError) as near:
        load_profile("podcats")
    assert str(near.value) == (
        f"--config podcats: no profile has this name, did you mean podcast? {names}"
    )
    with pytest.raises(ConfigError) as far:
        load_profile("quiet")
    assert str(far.value) == f"--config quiet: no profile has this name. {names}"


def test_default_profile_spells_out_the_defaults() -> None:
    assert (
        load_profile(str(ROOT / "configs" / "default.toml"))
        == JobProfile(PressSettings(), (), StreamAccount(), NotifyTable())
        == load_profile(None)
    )
