"""What a pattern stands for: nothing below it is passed over without a word, and nothing that a run
of ours made is taken for an archive.
"""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from transforms.catalog import output_names
from transforms.media.errors import ArchiveError, RecordingError, StorageError
from transforms.media.values import CallKey, Container, OutputType, TrackKey
from transforms.sources import archive_files
from transforms.sources.own_files import is_our_own
from transforms.storage import globs, objects


def _make_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape"))


def _found(folder: Path, pattern: str) -> dict[str, str]:
    """Returns what a pattern below a folder stands for: paths within it, and what is wrong."""
    found = archive_files.find_archives(f"{folder}/{pattern}").archives
    return {
        listed.uri.removeprefix(f"{folder}/"): _told(listed.error, listed.uri) for listed in found
    }


def _told(error: RecordingError | None, uri: str) -> str:
    return error.message.removeprefix(f"{uri}: ") if error else ""


def _deny(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Makes folders unreadable, also for root."""
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) in folders:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)


# --- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["raw/**", "raw/**.tar.gz", "raw/*/*.tar.gz", "raw/*"])
def test_unreadable_folder_is_told_and_its_neighbours_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    _make_files(tmp_path, "raw/secret/a.tar.gz", "raw/b.tar.gz", "raw/open/c.tar.gz")
    _deny(monkeypatch, tmp_path / "raw/secret")

    found = _found(tmp_path, pattern)

    assert found.pop("raw/secret/") == "Permission denied"
    assert found
    assert set(found) <= {"raw/b.tar.gz", "raw/open/c.tar.gz"}
    assert not any(found.values())


def test_unreadable_folder_of_which_nothing_is_wanted_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_files(tmp_path, "raw/secret/a.tar.gz", "raw/b.tar.gz")
    _deny(monkeypatch, tmp_path / "raw/secret")

    assert _found(tmp_path, "raw/*.tar.gz") == {"raw/b.tar.gz": ""}
    assert _found(tmp_path, "raw/b*/**.tar.gz") == {}


@pytest.mark.parametrize("pattern", ["raw", "raw/", "raw/*.tar.gz", "raw/**"])
def test_unreadable_folder_that_the_pattern_begins_in_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    _make_files(tmp_path, "raw/a.tar.gz")
    _deny(monkeypatch, tmp_path / "raw")

    assert _found(tmp_path, pattern) == {"raw/": "Permission denied"}
    assert archive_files.why_nothing_matches(f"{tmp_path}/{pattern}") is None


def test_link_that_leads_nowhere_or_to_itself_is_told(tmp_path: Path) -> None:
    _make_files(tmp_path, "raw/a.tar.gz")
    (tmp_path / "raw/gone.tar.gz").symlink_to("away/gone.tar.gz")
    (tmp_path / "raw/loop.tar.gz").symlink_to("loop.tar.gz")

    for pattern in ("raw/*.tar.gz", "raw/**", "raw/*"):
        assert _found(tmp_path, pattern) == {
            "raw/a.tar.gz": "",
            "raw/gone.tar.gz": "a link to 'away/gone.tar.gz', which is not there",
            "raw/loop.tar.gz": os.strerror(errno.ELOOP),
        }
    for name in ("gone", "loop"):
        found = _found(tmp_path, f"raw/{name}.tar.gz")
        assert list(found) == [f"raw/{name}.tar.gz"]
        assert all(found.values())


def test_link_to_a_folder_is_told_unless_the_folder_is_found_by_its_own_name(
    tmp_path: Path,
) -> None:
    _make_files(tmp_path, "raw/night/a.tar.gz", "else/b.tar.gz")
    (tmp_path / "raw/latest").symlink_to("night")
    (tmp_path / "raw/other").symlink_to(tmp_path / "else")
    (tmp_path / "raw/night/up").symlink_to("../..")
    not_followed = "which is not followed"

    found = _found(tmp_path, "raw/**")

    assert found.pop("raw/night/a.tar.gz") == ""
    assert set(found) == {"raw/other", "raw/night/up"}
    assert all(not_followed in told for told in found.values())
    assert set(_found(tmp_path, "raw/*/a.tar.gz")) == {"raw/night/a.tar.gz", "raw/other"}
    assert _found(tmp_path, "raw/other/*") == {"raw/other/b.tar.gz": ""}
    assert _found(tmp_path, "raw/*.tar.gz") == {}


def test_what_cannot_be_read_passes_and_what_is_no_file_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_files(tmp_path, "raw/secret/a")
    os.mkfifo(tmp_path / "raw/b.tar.gz")
    _deny(monkeypatch, tmp_path / "raw/secret")

    pipe, secret = archive_files.find_archives(f"{tmp_path}/raw/**").archives

    assert isinstance(pipe.error, ArchiveError)
    assert isinstance(secret.error, StorageError)
    assert secret.is_after(2**62)  # what is behind it may have come a moment ago
    assert not pipe.is_after(2**62)
    assert str(pickle.loads(pickle.dumps(pipe.error))) == str(pipe.error)


def test_glob_knows_what_it_may_match_below_a_folder() -> None:
    for pattern, below, not_below in [
        ("/raw/**.gz", ["/", "/raw", "/raw/a/b"], ["/rawer", "/other"]),
        ("/raw/*.gz", ["/raw", "/"], ["/raw/a", "/raw/a.gz"]),
        (
            "/raw/2026-*/x/*",
            ["/raw", "/raw/2026-11", "/raw/2026-11/x"],
            ["/raw/2025", "/raw/2026-1/y"],
        ),
        ("/raw/a?b/*", ["/raw/acb", "/raw/a"], ["/raw/ab"]),
    ]:
        for folder in below:
            assert globs.may_match_below(pattern, folder), (pattern, folder)
        for folder in not_below:
            assert not globs.may_match_below(pattern, folder), (pattern, folder)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["raw/*", "raw/**"])
def test_name_that_is_no_utf8_costs_its_own_archive(tmp_path: Path, pattern: str) -> None:
    _make_files(
        tmp_path, "raw/a.tar.gz", "raw/caf\udce9.tar.gz", "raw/\udcffx/p_timing_metadata.json"
    )
    told = "its name is no UTF-8, expected one that tables hold"

    found = _found(tmp_path, pattern)

    assert found == {
        "raw/a.tar.gz": "",
        "raw/caf\\xe9.tar.gz": told,
        "raw/\\xffx/": told,
    }
    spelled_out = _found(tmp_path, "raw/caf\udce9.tar.gz")
    assert spelled_out == {"raw/caf\\xe9.tar.gz": told}
    for uri in (*found, archive_files.why_nothing_matches(f"{tmp_path}/gone\udce9") or ""):
        assert uri.encode()


def test_member_whose_name_is_no_utf8_costs_no_folder(tmp_path: Path) -> None:
    _make_files(tmp_path, "call/p_timing_metadata.json", "call/caf\udce9.rtpdump")

    (listed,) = archive_files.find_archives(f"{tmp_path}/call").archives

    assert listed.error is None
    assert listed.fingerprint == archive_files.fingerprint(listed.uri)
    assert len(archive_files.folder_members(listed.uri)) == 2


@pytest.mark.parametrize(
    "name", ["a\nb.zip", "\x1b[31m.zip", "a .zip ", " ", "\u202ex.zip", f"{'x' * 250}.zip"]
)
def test_odd_but_whole_names_are_archives(tmp_path: Path, name: str) -> None:
    _make_files(tmp_path, f"raw/{name}")

    for pattern in ("raw/*", "raw/**", f"raw/{name}"):
        assert _found(tmp_path, pattern) == {f"raw/{name}": ""}


# --- unpacked folders -----------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["raw", "raw/", "ra*", "*", "*/"])
def test_archives_beside_stray_metadata_are_found(tmp_path: Path, pattern: str) -> None:
    _make_files(tmp_path, "raw/a.tar.gz", "raw/deep/b.ZIP", "raw/x_timing_metadata.json")

    found = _found(tmp_path, pattern)

    assert found.pop("raw/x_timing_metadata.json").startswith("timing metadata among archives")
    assert found == {"raw/a.tar.gz": "", "raw/deep/b.ZIP": ""}
    assert archive_files.why_nothing_matches(f"{tmp_path}/{pattern}") is None


@pytest.mark.parametrize("pattern", ["raw", "ra*", "**"])
def test_folder_that_is_a_recording_is_found_beside_the_archives_in_it(
    tmp_path: Path, pattern: str
) -> None:
    members = ("raw/p_timing_metadata.json", "raw/audio/p.rtpdump")
    _make_files(tmp_path, "raw/a.tar.gz", *members)

    assert _found(tmp_path, pattern) == {"raw/": "", "raw/a.tar.gz": ""}
    assert archive_files.folder_members(f"{tmp_path}/raw/") == (
        ("audio/p.rtpdump", len(members[1])),
        ("p_timing_metadata.json", len(members[0])),
    )


def test_new_archive_in_a_recording_does_not_change_the_recording(tmp_path: Path) -> None:
    _make_files(tmp_path, "raw/p_timing_metadata.json", "raw/p.rtpdump", "raw/a.tar.gz")
    before, _ = archive_files.find_archives(f"{tmp_path}/raw").archives
    _make_files(tmp_path, "raw/b.tar.gz")

    after, *archives = archive_files.find_archives(f"{tmp_path}/raw").archives

    assert after == before
    assert archive_files.fingerprint(after.uri) == after.fingerprint
    assert len(archives) == 2


def test_two_stars_find_unpacked_folders_by_their_metadata(tmp_path: Path) -> None:
    _make_files(
        tmp_path,
        "raw/a.tar.gz",
        "raw/x_timing_metadata.json",  # a stray: `call` is the recording
        "raw/call/p_timing_metadata.json",
        "raw/call/audio/p.rtpdump",
        "raw/call/audio/p.sdp",
        "raw/call/more/q_timing_metadata.json",
        "raw/call/more/q.rtpdump",
        "raw/quiet/p_timing_metadata.json",
        "lone/p.rtpdump",
    )

    assert _found(tmp_path, "**") == {
        "raw/a.tar.gz": "",
        "raw/x_timing_metadata.json": "",  # as a file that is no archive
        "raw/call/": "",
        "raw/quiet/": "",
        "lone/p.rtpdump": "",
    }
    assert _found(tmp_path, "raw/**/") == {"raw/call/": "", "raw/quiet/": ""}
    assert _found(tmp_path, "raw/**.gz") == {"raw/a.tar.gz": ""}


def test_folder_called_like_an_archive_is_told(tmp_path: Path) -> None:
    _make_files(tmp_path, "raw/a.tar.gz", "raw/b.tar.gz/readme", "raw/docs/readme")
    _make_files(tmp_path, "raw/c.tar.gz/p_timing_metadata.json")

    for pattern in ("raw/*", "raw/*.tar.gz"):
        found = _found(tmp_path, pattern)
        assert found.pop("raw/b.tar.gz/").startswith("a folder without *_timing_metadata.json")
        assert found == {"raw/a.tar.gz": "", "raw/c.tar.gz/": ""}


def test_what_is_no_file_in_a_recording_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_files(tmp_path, "call/p_timing_metadata.json", "call/p.rtpdump", "call/audio/q.rtpdump")
    os.mkfifo(tmp_path / "call/pipe.rtpdump")
    (tmp_path / "call/gone.rtpdump").symlink_to("nowhere")
    with monkeypatch.context() as patched:
        _deny(patched, tmp_path / "call/audio")
        (listed,) = archive_files.find_archives(f"{tmp_path}/call").archives
        members = [name for name, _ in archive_files.folder_members(listed.uri)]
        assert archive_files.fingerprint(listed.uri) == listed.fingerprint

    assert listed.error is None
    assert members == [
        "audio/",
        "gone.rtpdump",
        "p.rtpdump",
        "p_timing_metadata.json",
        "pipe.rtpdump",
    ]
    (readable,) = archive_files.find_archives(f"{tmp_path}/call").archives
    assert readable.fingerprint != listed.fingerprint


def test_placeholder_of_a_folder_in_an_object_store_is_no_archive(store: ModuleType) -> None:
    store.put("fake://bucket/raw/", b"")
    store.put("fake://bucket/raw/a.zip", b"x")

    found = archive_files.find_archives("fake://bucket/raw/**").archives

    assert [listed.uri for listed in found] == ["fake://bucket/raw/a.zip"]


def test_folders_of_archives_only_say_what_to_write(tmp_path: Path) -> None:
    _make_files(tmp_path, "raw/night/a.tar.gz")

    told = archive_files.why_nothing_matches(f"{tmp_path}/raw/*")

    assert told is not None
    assert "matches only folders without *_timing_metadata.json" in told
    assert told.endswith(f"write {tmp_path}/raw/*/**")


# --- our own --------------------------------------------------------------------------------------

_CALL = CallKey(call_type="default", call_id="A b/c", call_session_id="x" * 60)
_TRACK = TrackKey(
    call=_CALL, participant_id="p" * 60, user_session_id="s_1", output_type=OutputType.AUDIO_ONLY
)
_FOLDER = f"/out/recordings/{output_names.call_folder(_CALL)}"
_OURS = [
    f"{_FOLDER}/{output_names.composite_name(_CALL, 1)}",
    *(f"{_FOLDER}/{output_names.individual_name(_TRACK, 1, kind)}" for kind in Container),
    f"{_FOLDER}/.{output_names.individual_name(_TRACK, 1, Container.MKV)[:200]}.17.partial",
    f"/drawn/{output_names.clock_drawing_name(_TRACK, 1)}",
    f"/raw/{output_names.clock_drawing_name(_TRACK, -1, 2)}",
    f"/raw/.{output_names.clock_drawing_name(_TRACK, 1)[:200]}.17.partial",
    "/out/catalog/runs/call_date=2026-11-20/part-0.parquet",
    "/cat/calls/call_date=2026-11-20/part-2-01.parquet",
    "/cat/calls/call_date=2026-11-20/.part-0.parquet.17.partial",
    "/cat/callpress.lock",
    "/cat/callpress.unfinished/0123.json",
    "/out/.staging/callpress-0123456789ab/20261128T010203Z-0a1b2c/packets/x-1.packets",
]


@pytest.mark.parametrize("uri", _OURS)
def test_what_a_run_makes_is_told_by_its_name(uri: str) -> None:
    assert is_our_own(uri)
    assert is_our_own(f"gs://bucket{uri}")


@pytest.mark.parametrize(
    "uri",
    [
        "/out/recordings/a.tar.gz",
        "/out/recordings/default/a/b/raw.tar.gz",
        "/out/catalog/a.zip",
        "/raw/composite_call.mp3",
        "/raw/clock_audio_only.svg",
        "/cat/callpress.lock/a.zip",
        "/raw/callpress-0123456789ab/a.zip",
        f"{_OURS[0]}/a.zip",
    ],
)
def test_what_lies_among_it_is_not(uri: str) -> None:
    assert not is_our_own(uri)


@pytest.mark.parametrize("pattern", ["**", "*", "out", "out/**"])
def test_what_a_run_made_is_left_out_and_counted(tmp_path: Path, pattern: str) -> None:
    _make_files(tmp_path, "out/call/p_timing_metadata.json", *(uri[1:] for uri in _OURS))
    before = archive_files.find_archives(f"{tmp_path}/{pattern}")
    _make_files(tmp_path, "out/catalog/runs/call_date=2026-11-21/part-0.parquet")

    found = archive_files.find_archives(f"{tmp_path}/{pattern}")

    assert found.archives == before.archives
    assert [listed.uri.removeprefix(f"{tmp_path}/out/") for listed in found.archives] == (
        ["call/"] if "**" in pattern else [""]
    )
    assert found.own_count == before.own_count + 1 > 3


def test_summary_and_log_of_a_run_are_left_out_however_they_are_spelled(tmp_path: Path) -> None:
    _make_files(tmp_path, "raw/a.zip", "raw/summary.json", "other/summary.json")
    (tmp_path / "link").symlink_to("raw")

    found = archive_files.find_archives(f"{tmp_path}/**", [f"{tmp_path}/link/summary.json"])

    assert [listed.uri.removeprefix(f"{tmp_path}/") for listed in found.archives] == [
        "other/summary.json",
        "raw/a.zip",
    ]
    assert found.own_count == 1


def test_pattern_that_matches_only_what_a_run_made_says_so(tmp_path: Path) -> None:
    _make_files(tmp_path, *(uri[1:] for uri in _OURS))

    for pattern in ("out/**", "out", "cat/callpress.lock", "out/catalog/*/*/*"):
        told = archive_files.why_nothing_matches(f"{tmp_path}/{pattern}")
        assert told == f"{tmp_path}/{pattern} matches nothing but what Callpress made itself"


def test_listing_of_a_store_still_ends_at_the_first_match(tmp_path: Path) -> None:
    _make_files(tmp_path, "a", "b")

    assert objects.has_match(f"{tmp_path}/*", lambda listed: listed.path.endswith("b"))
    assert not objects.has_match(f"{tmp_path}/*", lambda listed: False)
