"""Storage: listing, reading and publishing whole objects, on disks and in an object store."""

from __future__ import annotations

import errno
import glob
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from apache_beam.io.filesystem import BeamIOError
from google.api_core import exceptions as google_errors

from tests.support.beam import list_files
from tests.support.builders import make_timing_metadata
from transforms.media.errors import StorageError
from transforms.sources import archive_files
from transforms.storage import objects, registry, uris, work_folders

ODD_NAMES = [
    "take [1].tar.gz",
    "take [a-z].tar.gz",
    "what*.tar.gz",
    "who?.tar.gz",
    "{a,b}.tar.gz",
    "with space .tar.gz",
    "ünï ✓.tar.gz",
    "100%25#x+y&z.tar.gz",
    "]odd[.tar.gz",
    "[!x].tar.gz",
    "line\nbreak.tar.gz",
]


def _make_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def _uris(found: Iterable[archive_files.ListedArchive]) -> list[str]:
    return [listed.uri for listed in found]


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    for root in ("/dev/shm", "/run", str(Path.home())):
        if os.access(root, os.W_OK) and os.stat(root).st_dev != os.stat(tmp_path).st_dev:
            with tempfile.TemporaryDirectory(dir=root) as folder:
                yield Path(folder)
            return
    pytest.skip("one file system only")


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("/a/b", ""),
        ("a:b/c", ""),
        ("gs://bucket/a", "gs"),
        ("s3://bucket/a", "s3"),
        ("../x", ""),
    ],
)
def test_path_has_no_scheme(uri: str, scheme: str) -> None:
    assert uris.scheme_of(uri) == scheme
    assert (registry.store_of(uri).local_path(uri) == uri) is (not scheme)


def test_absolute_is_the_same_however_a_path_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    spellings = [
        "raw/a.tar.gz",
        "./raw/a.tar.gz",
        "raw//x/../a.tar.gz",
        "~/raw/a.tar.gz",
        str(tmp_path / "raw/a.tar.gz"),
    ]

    assert {uris.absolute(spelling) for spelling in spellings} == {str(tmp_path / "raw/a.tar.gz")}


def test_absolute_keeps_a_slash_at_the_end_and_full_uris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert uris.absolute("raw/") == f"{tmp_path}/raw/"
    assert uris.absolute("/") == "/"
    assert uris.absolute("gs://bucket/a/../b") == "gs://bucket/a/../b"


def test_join_has_one_slash_between() -> None:
    assert uris.join("gs://bucket/", "a", "b.mp3") == "gs://bucket/a/b.mp3"


# --- listing --------------------------------------------------------------------------------------


def test_file_is_listed_with_size_and_modification(tmp_path: Path) -> None:
    _make_files(tmp_path, "a.tar.gz", "b.tar.gz")
    os.utime(tmp_path / "a.tar.gz", (0, 1_767_607_200.25))

    (found,) = archive_files.find_archives(str(tmp_path / "a.tar.gz")).archives

    assert (found.uri, found.size_bytes) == (str(tmp_path / "a.tar.gz"), len("a.tar.gz"))
    assert found.modified_unix_ns == 1_767_607_200_250_000_000


def test_relative_pattern_lists_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_files(tmp_path, "raw/a.tar.gz")
    monkeypatch.chdir(tmp_path)

    assert _uris(archive_files.find_archives("raw/*.tar.gz").archives) == [
        str(tmp_path / "raw/a.tar.gz")
    ]


def test_star_stays_in_its_folder(tmp_path: Path) -> None:
    _make_files(tmp_path, "b.tar.gz", "a.tar.gz", "c.zip", "deep/d.tar.gz")

    assert _uris(archive_files.find_archives(f"{tmp_path}/*.tar.gz").archives) == [
        f"{tmp_path}/a.tar.gz",
        f"{tmp_path}/b.tar.gz",
    ]


def test_two_stars_go_into_folders(tmp_path: Path) -> None:
    _make_files(tmp_path, "b.tar.gz", "x/y/d.tar.gz", "x/e.zip")

    found = _uris(archive_files.find_archives(f"{tmp_path}/**.tar.gz").archives)

    assert found == [f"{tmp_path}/b.tar.gz", f"{tmp_path}/x/y/d.tar.gz"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("call-?.tar", ["call-1.tar", "call-2.tar"]), ("call-[13]*", ["call-1.tar", "call-10.tar"])],
)
def test_other_wildcards(tmp_path: Path, pattern: str, names: list[str]) -> None:
    _make_files(tmp_path, "call-1.tar", "call-2.tar", "call-10.tar")

    assert _uris(archive_files.find_archives(f"{tmp_path}/{pattern}").archives) == [
        f"{tmp_path}/{name}" for name in names
    ]


def test_unpacked_folder_is_one_archive(tmp_path: Path) -> None:
    _make_files(tmp_path, "call/audio/a.rtpdump", "call/p_Timing_Metadata.JSON")
    os.utime(tmp_path / "call/audio/a.rtpdump", (0, 2_000_000_000))
    os.utime(tmp_path / "call/p_Timing_Metadata.JSON", (0, 1_000_000_000))

    for pattern in (f"{tmp_path}/call", f"{tmp_path}/call/"):
        (found,) = archive_files.find_archives(pattern).archives
        assert found.uri == f"{tmp_path}/call/"
        assert found.size_bytes == len("call/audio/a.rtpdump") + len("call/p_Timing_Metadata.JSON")
        assert found.modified_unix_ns == 2_000_000_000 * 10**9


def test_folder_of_archives_stands_for_nothing(tmp_path: Path) -> None:
    _make_files(tmp_path, "raw/a.tar.gz", "raw/b.tar.gz")

    assert archive_files.find_archives(f"{tmp_path}/raw").archives == ()


def test_glob_finds_files_and_unpacked_folders_but_no_others(tmp_path: Path) -> None:
    _make_files(
        tmp_path,
        "call-1.zip",
        "call-2/deep/p_timing_metadata.json",
        "call-3/x.rtpdump",
        "call-4/readme.txt",
        "other/p_timing_metadata.json",
    )

    found = _uris(archive_files.find_archives(f"{tmp_path}/call-*").archives)

    assert found == [f"{tmp_path}/{name}" for name in ("call-1.zip", "call-2/", "call-3/")]


def test_glob_with_a_slash_at_the_end_finds_folders_only(tmp_path: Path) -> None:
    _make_files(tmp_path, "call-1.zip", "call-2/p_timing_metadata.json")

    assert _uris(archive_files.find_archives(f"{tmp_path}/call-*/").archives) == [
        f"{tmp_path}/call-2/"
    ]


def test_file_with_a_slash_at_the_end_is_nothing(tmp_path: Path) -> None:
    _make_files(tmp_path, "a.tar.gz")

    assert archive_files.find_archives(f"{tmp_path}/a.tar.gz/").archives == ()


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert archive_files.find_archives(f"{tmp_path}/none/a.tar.gz").archives == ()
    assert archive_files.find_archives(f"{tmp_path}/none/*.tar.gz").archives == ()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_name_in_a_glob_is_found_read_and_fingerprinted(tmp_path: Path, name: str) -> None:
    _make_files(
        tmp_path,
        name,
        "take 1.tar.gz",
        "takea.tar.gz",
        "whatever.tar.gz",
        "whom.tar.gz",
        "a.tar.gz",
    )

    uris = _uris(archive_files.find_archives(f"{tmp_path}/*.tar.gz").archives)

    assert f"{tmp_path}/{name}" in uris
    assert len(uris) == 6
    assert archive_files.stat_archive(f"{tmp_path}/{name}") is not None
    assert objects.read_bytes(f"{tmp_path}/{name}") == name.encode()
    status = os.stat(tmp_path / name)
    assert (
        archive_files.fingerprint(f"{tmp_path}/{name}") == f"{status.st_size}-{status.st_mtime_ns}"
    )


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_name_spelled_out_is_that_file(tmp_path: Path, name: str) -> None:
    _make_files(tmp_path, name)

    assert _uris(archive_files.find_archives(f"{tmp_path}/{name}").archives) == [
        f"{tmp_path}/{name}"
    ]
    assert archive_files.why_nothing_matches(f"{tmp_path}/{name}") is None


@pytest.mark.parametrize("name", ["raw [1]", "raw*", "raw?", "{raw}", "r w", "räw", "[raw"])
def test_folder_of_odd_name_holds_members_and_archives(tmp_path: Path, name: str) -> None:
    _make_files(
        tmp_path,
        f"{name}/a/x.rtpdump",
        f"{name}/p_timing_metadata.json",
        "raw 1/y.rtpdump",
        "rawx/y.rtpdump",
    )

    members = archive_files.folder_members(f"{tmp_path}/{name}/")
    (found,) = archive_files.find_archives(glob.escape(f"{tmp_path}/{name}")).archives

    assert [path for path, _ in members] == ["a/x.rtpdump", "p_timing_metadata.json"]
    assert found.uri == f"{tmp_path}/{name}/"
    assert archive_files.stat_archive(found.uri) == found


def test_literal_brackets_are_quoted_like_in_other_globs(tmp_path: Path) -> None:
    _make_files(tmp_path, "raw [1]/a*.tar.gz", "raw 1/ab.tar.gz")

    assert _uris(archive_files.find_archives(f"{tmp_path}/raw [[]1]/a[*]*.gz").archives) == [
        f"{tmp_path}/raw [1]/a*.tar.gz"
    ]


def test_prefix_of_an_object_store_is_listed(store: ModuleType) -> None:
    for name in (
        "raw/a.tar.gz",
        "raw/deep/b.tar.gz",
        "rawer/c.tar.gz",
        "raw/call/p_timing_metadata.json",
    ):
        store.put(f"fake://bucket/{name}", b"xyz")

    assert _uris(archive_files.find_archives("fake://bucket/raw/*.gz").archives) == [
        "fake://bucket/raw/a.tar.gz"
    ]
    assert _uris(archive_files.find_archives("fake://bucket/raw/**.tar.gz").archives) == [
        "fake://bucket/raw/a.tar.gz",
        "fake://bucket/raw/deep/b.tar.gz",
    ]
    assert _uris(archive_files.find_archives("fake://bucket/raw/call").archives) == [
        "fake://bucket/raw/call/"
    ]
    assert archive_files.folder_members("fake://bucket/raw/call/") == (
        ("p_timing_metadata.json", 3),
    )


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("none.tar.gz", "none.tar.gz matches nothing"),
        ("none/*.zip", r"none/\*.zip matches nothing"),
        (
            "raw",
            r"raw is a folder without \*_timing_metadata.json; "
            r"to press the archives in it, write .*/raw/\*\*",
        ),
    ],
)
def test_why_nothing_matches_says_what_to_write(tmp_path: Path, pattern: str, reason: str) -> None:
    _make_files(tmp_path, "raw/a.tar.gz")

    found = archive_files.why_nothing_matches(f"{tmp_path}/{pattern}")

    assert found is not None
    assert re.search(reason, found)


@pytest.mark.parametrize("pattern", ["raw/a.tar.gz", "raw/*.gz", "raw/**", "call", "call/", "cal*"])
def test_why_nothing_matches_is_none_when_something_does(tmp_path: Path, pattern: str) -> None:
    _make_files(tmp_path, "raw/a.tar.gz", "call/p_timing_metadata.json")

    assert archive_files.why_nothing_matches(f"{tmp_path}/{pattern}") is None


# --- fingerprints ---------------------------------------------------------------------------------


def test_fingerprint_of_a_file_changes_with_size_and_modification(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    seen = set()
    for data, modified in ((b"one", 1), (b"two!", 1), (b"two!", 2)):
        path.write_bytes(data)
        os.utime(path, (0, modified))
        seen.add(archive_files.fingerprint(str(path)))

    assert len(seen) == 3


def test_fingerprint_of_a_folder_changes_with_any_member(tmp_path: Path) -> None:
    _make_files(tmp_path, "call/a.rtpdump")
    (tmp_path / "call/p_timing_metadata.json").write_bytes(make_timing_metadata())
    uri = f"{tmp_path}/call/"
    first = archive_files.fingerprint(uri)
    assert archive_files.fingerprint(uri) == first
    os.utime(tmp_path / "call/a.rtpdump", (0, 5))
    second = archive_files.fingerprint(uri)
    _make_files(tmp_path, "call/b.rtpdump")
    third = archive_files.fingerprint(uri)
    os.rename(tmp_path / "call/b.rtpdump", tmp_path / "call/c.rtpdump")
    fourth = archive_files.fingerprint(uri)

    assert len({first, second, third, fourth}) == 4


def test_fingerprint_in_an_object_store_takes_its_checksum(store: ModuleType) -> None:
    uri = store.put("fake://bucket/a.tar.gz", b"\1\2")
    first = archive_files.fingerprint(uri)
    store.put(uri, b"\2\2")

    assert first == "2-crc-3"
    assert archive_files.fingerprint(uri) == "2-crc-4"


def test_fingerprint_of_what_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone\.tar\.gz: No such file"):
        archive_files.fingerprint(f"{tmp_path}/gone.tar.gz")


def test_stat_of_what_is_gone_is_none(tmp_path: Path) -> None:
    assert archive_files.stat_archive(f"{tmp_path}/gone.tar.gz") is None
    assert archive_files.stat_archive(f"{tmp_path}/gone/") is None


# --- publishing -----------------------------------------------------------------------------------


def test_publish_moves_a_file_and_makes_folders(tmp_path: Path) -> None:
    source = tmp_path / "work"
    source.write_bytes(b"media")

    objects.publish(f"{tmp_path}/out/a/b/x.mp3", source)

    assert list_files(tmp_path) == ["out/a/b/x.mp3"]
    assert (tmp_path / "out/a/b/x.mp3").read_bytes() == b"media"


def test_publish_over_file_systems_copies_and_leaves_nothing_else(
    tmp_path: Path, other_disk: Path
) -> None:
    source = other_disk / "work"
    source.write_bytes(b"media" * 100_000)

    objects.publish(f"{tmp_path}/out/x.mp3", source)

    assert (tmp_path / "out/x.mp3").read_bytes() == b"media" * 100_000
    assert list_files(tmp_path) == ["out/x.mp3"]
    assert list_files(other_disk) == []


def test_publish_over_file_systems_is_not_visible_before_it_is_complete(
    tmp_path: Path, other_disk: Path
) -> None:
    source, target = other_disk / "work", tmp_path / "x.mp3"
    size = 48 << 20
    source.write_bytes(bytes(size))
    sizes: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            sizes.update(target.stat().st_size for _ in [0] if target.exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    objects.publish(str(target), source)
    done.set()
    watcher.join()

    assert sizes <= {size}
    assert target.stat().st_size == size


@pytest.mark.parametrize("far", [False, True], ids=["same disk", "other disk"])
def test_publish_replaces_whole_files_under_their_readers(
    tmp_path: Path, other_disk: Path, far: bool
) -> None:
    target = tmp_path / "x.mp3"
    target.write_bytes(b"older")
    source = (other_disk if far else tmp_path) / "work"
    source.write_bytes(b"newer, longer")

    with target.open("rb") as reader:
        objects.publish(str(target), source)
        assert reader.read() == b"older"

    assert target.read_bytes() == b"newer, longer"


def test_failed_publish_leaves_the_old_file_and_nothing_half_made(
    tmp_path: Path, other_disk: Path
) -> None:
    target = tmp_path / "out/x.mp3"
    _make_files(tmp_path, "out/x.mp3")
    (other_disk / "work").mkdir()  # a folder cannot be copied as a file

    with pytest.raises(StorageError, match=r"x\.mp3: "):
        objects.publish(str(target), other_disk / "work")

    assert target.read_bytes() == b"out/x.mp3"
    assert list_files(tmp_path) == ["out/x.mp3"]


def test_media_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: done.append("sync"))
    rename = os.replace

    def told(source: Path | str, target: Path | str) -> None:
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "replace", told)
    (tmp_path / "out").mkdir()
    for call, name in ((objects.publish, "media"), (objects.move, "staged")):
        (tmp_path / "work").write_bytes(b"x")
        call(f"{tmp_path}/out/{name}", tmp_path / "work")
    assert done == ["sync", "rename", "rename"]


def test_publish_of_what_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"x\.mp3: No such file"):
        objects.publish(f"{tmp_path}/x.mp3", tmp_path / "none")


def test_publish_to_an_object_store_uploads_once(store: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "work"
    data = bytes(range(256)) * 10_000
    source.write_bytes(data)

    objects.publish("fake://bucket/out/x.mp3", source)

    assert store.OBJECTS["fake://bucket/out/x.mp3"][0] == data
    assert list(store.OBJECTS) == ["fake://bucket/out/x.mp3"]
    assert store.CALLS["create"] == 1
    assert not any(store.VISIBLE_WHILE_WRITING)
    assert not source.exists()


def test_upload_that_breaks_in_the_middle_starts_anew(store: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "work"
    data = bytes(3 << 20)
    source.write_bytes(data)
    store.TROUBLE["write"].extend([ConnectionResetError("reset")])

    objects.publish("fake://bucket/x.mp3", source)

    assert store.OBJECTS["fake://bucket/x.mp3"][0] == data
    assert store.CALLS["create"] == 2


def test_upload_that_is_refused_shows_nothing_and_keeps_the_source(
    store: ModuleType, tmp_path: Path
) -> None:
    source = tmp_path / "work"
    source.write_bytes(b"media")
    store.TROUBLE["write"].append(PermissionError(errno.EACCES, "not allowed"))

    with pytest.raises(StorageError, match=r"fake://bucket/x\.mp3: not allowed"):
        objects.publish("fake://bucket/x.mp3", source)

    assert not store.OBJECTS
    assert source.read_bytes() == b"media"


def test_write_bytes_replaces_a_file_under_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "rows/part-0.parquet"
    objects.write_bytes(str(path), b"older")

    with path.open("rb") as reader:
        objects.write_bytes(str(path), b"newer, longer")
        assert reader.read() == b"older"

    assert objects.read_bytes(str(path)) == b"newer, longer"
    assert list_files(tmp_path) == ["rows/part-0.parquet"]


def test_write_bytes_under_a_long_name(tmp_path: Path) -> None:
    name = "x" * 255

    objects.write_bytes(f"{tmp_path}/{name}", b"rows")

    assert list_files(tmp_path) == [name]


def test_write_bytes_where_a_file_stands_for_the_folder_is_a_storage_error(tmp_path: Path) -> None:
    _make_files(tmp_path, "catalog")

    with pytest.raises(StorageError, match=r"part-0\.parquet: "):
        objects.write_bytes(f"{tmp_path}/catalog/part-0.parquet", b"rows")


def test_gzip_is_not_undone_by_name(tmp_path: Path, store: ModuleType) -> None:
    data = b"\x1f\x8b not really"
    (tmp_path / "a.tar.gz").write_bytes(data)
    store.put("fake://bucket/a.gz", data)

    with objects.open_input(f"{tmp_path}/a.tar.gz") as file:
        assert file.read() == data
    objects.write_bytes(f"{tmp_path}/b.gz", data)
    assert (tmp_path / "b.gz").read_bytes() == data
    assert objects.read_bytes("fake://bucket/a.gz") == data


@pytest.mark.parametrize("kind", ["disk", "object store"])
def test_delete_is_harmless_when_it_is_gone(tmp_path: Path, store: ModuleType, kind: str) -> None:
    uri = f"{tmp_path}/x" if kind == "disk" else "fake://bucket/x"
    objects.write_bytes(uri, b"x")
    assert objects.match(uri)

    objects.delete(uri)
    objects.delete(uri)

    assert not objects.match(uri)


@pytest.mark.parametrize("name", ["stage", "stage [1]", "stage*"])
def test_delete_below_takes_that_folder_only(tmp_path: Path, store: ModuleType, name: str) -> None:
    for root in (str(tmp_path), "fake://bucket"):
        for path in (f"{name}/a", f"{name}/deep/b", "stage 1/c", "stagex/d"):
            objects.write_bytes(f"{root}/{path}", b"x")

        objects.delete_below(f"{root}/{name}")

    assert list_files(tmp_path) == ["stage 1/c", "stagex/d"]
    assert sorted(store.OBJECTS) == ["fake://bucket/stage 1/c", "fake://bucket/stagex/d"]


def test_delete_below_takes_more_objects_than_one_request_holds(store: ModuleType) -> None:
    for number in range(230):
        store.put(f"fake://bucket/stage/{number}", b"x")

    objects.delete_below("fake://bucket/stage")

    assert not store.OBJECTS


def test_delete_below_what_is_not_there_is_harmless(tmp_path: Path, store: ModuleType) -> None:
    objects.delete_below(f"{tmp_path}/none")
    objects.delete_below("fake://bucket/none")


def test_work_folder_lies_on_the_staging_disk_and_goes(tmp_path: Path) -> None:
    with work_folders.work_folder(f"{tmp_path}/staging/run-1") as folder:
        (folder / "x").write_bytes(b"x")
        assert folder.is_relative_to(tmp_path / "staging/run-1")

    assert list_files(tmp_path) == []


def test_work_folder_goes_after_an_error(tmp_path: Path) -> None:
    def fail_in_the_folder() -> None:
        with work_folders.work_folder(f"{tmp_path}/staging") as folder:
            (folder / "x").write_bytes(b"x")
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_folder()

    assert list_files(tmp_path) == []


def test_work_folder_that_was_emptied_is_given_again_and_never_to_two(tmp_path: Path) -> None:
    with (
        work_folders.work_folder(str(tmp_path)) as first,
        work_folders.work_folder(str(tmp_path)) as second,
    ):
        assert first != second
        for folder in (first, second):
            (folder / "x").write_bytes(b"x")
        (first / "x").unlink()
    with (
        work_folders.work_folder(str(tmp_path)) as third,
        work_folders.work_folder(str(tmp_path)) as fourth,
    ):
        assert third == first
        assert fourth not in (first, second)
        assert list_files(tmp_path) == []


def test_work_folder_that_was_swept_is_made_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with work_folders.work_folder(f"{tmp_path}/staging") as folder:
            assert folder.is_dir()
        objects.delete_below(f"{tmp_path}/staging")
    with work_folders.work_folder(f"{tmp_path}/staging") as folder:
        objects.delete_below(f"{tmp_path}/staging")
    assert not folder.exists()


def test_staged_object_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("nobody needs it after a power cut"))
    for data in (b"older, longer", b"newer"):
        objects.write_staged(f"{tmp_path}/rows/x.json", data)
        assert (tmp_path / "rows/x.json").read_bytes() == data
    assert list_files(tmp_path) == ["rows/x.json"]


def test_work_folder_of_an_object_store_is_a_local_one() -> None:
    with work_folders.work_folder("gs://bucket/tmp") as folder:
        assert folder.is_dir()

    assert not folder.exists()


# --- trouble --------------------------------------------------------------------------------------

PASSING = [
    ConnectionResetError("reset"),
    TimeoutError("timed out"),
    OSError(errno.EIO, "Input/output error"),
    google_errors.ServiceUnavailable("try later"),
    google_errors.TooManyRequests("slow down"),
    BeamIOError("failed", {"fake://bucket/x": ConnectionError("reset")}),
]
FINAL = [
    (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
    (google_errors.Forbidden("no access to this bucket"), "no access to this bucket"),
    (google_errors.NotFound("no such bucket"), "no such bucket"),
    (
        BeamIOError(
            "failed", {"fake://bucket/x": PermissionError(errno.EACCES, "Permission denied")}
        ),
        "Permission denied",
    ),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_passing_trouble_is_tried_again(store: ModuleType, error: Exception) -> None:
    store.put("fake://bucket/x", b"data")
    store.TROUBLE["open"].append(error)

    assert objects.read_bytes("fake://bucket/x") == b"data"
    assert store.CALLS["open"] == 2


@pytest.mark.parametrize(("error", "message"), FINAL, ids=lambda value: type(value).__name__)
def test_final_error_is_a_storage_error_at_once(
    store: ModuleType, error: Exception, message: str
) -> None:
    store.put("fake://bucket/x", b"data")
    store.TROUBLE["open"].append(error)

    with pytest.raises(StorageError, match=f"fake://bucket/x: .*{message}") as caught:
        objects.read_bytes("fake://bucket/x")

    assert store.CALLS["open"] == 1
    assert caught.value.retryable


def test_trouble_that_stays_is_a_storage_error_after_some_tries(store: ModuleType) -> None:
    store.put("fake://bucket/x", b"data")
    store.TROUBLE["open"].extend(TimeoutError("timed out") for _ in range(50))

    with pytest.raises(StorageError, match="fake://bucket/x: timed out"):
        objects.read_bytes("fake://bucket/x")

    assert 3 <= store.CALLS["open"] <= 8


def test_several_troubles_in_a_row_are_overcome(store: ModuleType) -> None:
    store.put("fake://bucket/x", b"data")
    store.TROUBLE["read"].extend([TimeoutError("timed out"), ConnectionResetError("reset")])

    assert objects.read_bytes("fake://bucket/x") == b"data"
    assert store.CALLS["open"] == 3


def _listing(_: Path) -> object:
    return archive_files.find_archives("fake://bucket/*").archives


def _writing(_: Path) -> object:
    return objects.write_bytes("fake://bucket/y", b"rows")


def _deleting(_: Path) -> object:
    return objects.delete("fake://bucket/x")


def _sweeping(_: Path) -> object:
    return objects.delete_below("fake://bucket")


def _fingerprinting(_: Path) -> object:
    return archive_files.fingerprint("fake://bucket/x")


def _opening(_: Path) -> object:
    return objects.open_input("fake://bucket/x")


@pytest.mark.parametrize(
    ("operation", "act"),
    [
        ("match", _listing),
        ("create", _writing),
        ("write", _writing),
        ("delete", _deleting),
        ("delete", _sweeping),
        ("checksum", _fingerprinting),
        ("match", _fingerprinting),
        ("open", _opening),
    ],
)
def test_every_operation_is_tried_again_and_fails_as_a_storage_error(
    store: ModuleType, tmp_path: Path, operation: str, act: Callable[[Path], object]
) -> None:
    store.put("fake://bucket/x", b"data")
    store.TROUBLE[operation].append(ConnectionResetError("reset"))
    act(tmp_path)
    assert store.CALLS[operation] >= 2

    store.put("fake://bucket/x", b"data")
    store.TROUBLE[operation].append(PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(StorageError, match="Permission denied"):
        act(tmp_path)


def test_message_of_a_storage_error_is_one_line_without_a_query(store: ModuleType) -> None:
    store.put("fake://bucket/x", b"data")
    store.TROUBLE["open"].append(google_errors.Forbidden("GET https://host/o/x?token=secret\nbody"))

    with pytest.raises(StorageError) as caught:
        objects.read_bytes("fake://bucket/x")

    assert "secret" not in caught.value.message
    assert "\n" not in caught.value.message


def test_bug_in_a_file_system_is_not_taken_for_trouble(store: ModuleType) -> None:
    store.put("fake://bucket/x", b"data")
    store.TROUBLE["open"].append(KeyError("bug"))

    with pytest.raises(KeyError):
        objects.read_bytes("fake://bucket/x")
