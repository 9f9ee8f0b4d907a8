"""A track that was encrypted end to end is written as it was sent, and heard nowhere."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from tests.support import encryption
from tests.support.builders import (
    Participant,
    Segment,
    encode_opus,
    make_archive,
    make_call_members,
    tone,
)
from tests.support.encryption import Scheme, encrypt_dump
from tests.support.media import (
    decode_with_pyav,
    hear_parts,
    level_at,
    open_in,
    part_files,
    participant_of,
    unpack,
)
from transforms.media.extract_track import extract_track
from transforms.media.job import JobHost
from transforms.media.values import Container, PartFiles

COUNT = 200


def _stage(
    folder: Path, scheme: Scheme, first: int = 0, dumps: tuple[str, ...] = ("bob_0",)
) -> tuple[list[PartFiles], dict[str, bytes]]:
    """Returns the parts of Alice, who says 300 Hz, and Bob, who says 700 Hz, and the dumps."""
    people = [
        Participant(
            participant_id=name,
            segments=[
                Segment(
                    packets=encode_opus(tone(hz, COUNT / 50)), ssrc=hz, base_filename=f"{name}_0"
                )
            ],
        )
        for name, hz in (("alice", 300), ("bob", 700))
    ]
    members = make_call_members(people)
    for name in dumps:
        members[f"{name}.rtpdump"] = encrypt_dump(members[f"{name}.rtpdump"], scheme, first)
    unpacked = unpack(make_archive(members), folder)
    told = {
        (type(found.error).__name__, found.error.member, participant_of(found))
        for found in unpacked.findings
    }
    assert told == {("EncryptedAudioError", f"{name}.rtpdump", name[:-2]) for name in dumps}
    return part_files(unpacked), members


def _sent(dump: bytes) -> list[bytes]:
    at, found = dump.index(b"\n") + 17, []
    while at < len(dump):
        size = int.from_bytes(dump[at : at + 2], "big")
        if dump[at + 2 : at + 4] != b"\0\0":
            found.append(dump[at + 20 : at + size])
        at += size
    return found


def _packets(path: Path) -> list[bytes]:
    """Returns what lies in a file; FFmpeg's parser would pass over what is no valid Opus."""
    with av.open(str(path), options={"fflags": "noparse+nofillin"}) as file:
        return [bytes(packet) for packet in file.demux(audio=0) if packet.size]


SCHEMES = {
    "sframe": encryption.sframe(1, 300),
    "livekit": encryption.trailed(),
    "whole": encryption.whole(),
}


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_encrypted_track_is_not_in_the_mix_and_has_no_figures_of_sound(
    scheme: Scheme, tmp_path: Path
) -> None:
    (alice, bob), _ = _stage(tmp_path, scheme)
    (clear, _), _ = _stage(tmp_path / "other", encryption.sframe(), dumps=("bob_0",))
    heard = hear_parts([[alice], [bob]], tmp_path, tmp_path / "mix.mp3")
    assert heard.mix is not None
    mix = decode_with_pyav(tmp_path / "mix.mp3")
    assert level_at(mix, 300) > 0.2
    alone = hear_parts([[clear]], tmp_path / "other", tmp_path / "alone.mp3").mix
    assert alone is not None
    assert heard.mix.peak_dbfs == alone.peak_dbfs
    assert heard.mix.loudness_lufs == alone.loudness_lufs
    told, silent = heard.tracks
    assert (told.is_encrypted, silent.is_encrypted) == (False, True)
    assert told.loudness_lufs is not None
    assert (silent.loudness_lufs, silent.peak_dbfs) == (None, None)
    assert len(silent.speech.file_start_sample) == 0


@pytest.mark.parametrize("container", Container)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_encrypted_track_is_in_its_file_packet_by_packet(
    scheme: Scheme, container: Container, tmp_path: Path
) -> None:
    (_, bob), members = _stage(tmp_path, scheme)
    output = tmp_path / f"bob.{container}"
    stats = extract_track(JobHost(open_input=open_in(tmp_path)), (bob,), output, container, {})
    assert stats.audio_bandwidth_hz == 0
    assert stats.media_samples == COUNT * 960
    assert stats.counts.invalid == 0
    assert _packets(output) == _sent(members["bob_0.rtpdump"])


def test_encrypted_from_mid_call_on_is_heard_up_to_there(tmp_path: Path) -> None:
    (alice, bob), members = _stage(tmp_path, encryption.sframe(4), first=100)
    heard = hear_parts([[alice], [bob]], tmp_path, tmp_path / "mix.mp3")
    mix = decode_with_pyav(tmp_path / "mix.mp3")
    before, after = mix[24_000:86_000], mix[110_000:180_000]
    assert level_at(before, 700) > 0.2
    assert level_at(after, 700) < 0.01
    assert level_at(after, 300) > 0.2
    assert not heard.tracks[1].is_encrypted
    output = tmp_path / "bob.mkv"
    extract_track(JobHost(open_input=open_in(tmp_path)), (bob,), output, Container.MKV, {})
    assert _packets(output) == _sent(members["bob_0.rtpdump"])


def test_call_of_which_all_is_encrypted_has_no_mix(tmp_path: Path) -> None:
    parts, _ = _stage(tmp_path, encryption.sframe(), dumps=("alice_0", "bob_0"))
    heard = hear_parts([[part] for part in parts], tmp_path, tmp_path / "mix.mp3")
    assert heard.mix is None
    assert not (tmp_path / "mix.mp3").exists()
    assert [track.is_encrypted for track in heard.tracks] == [True, True]
