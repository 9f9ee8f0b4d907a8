"""S3 and Azure by real servers (moto, Azurite), through a proxy that counts and fails."""

from __future__ import annotations

import itertools
import tracemalloc
import urllib.request
from pathlib import Path

import pytest

from tests.storage.test_objects import ODD_NAMES
from tests.support.cloud_servers import CloudServer, forget_clients
from tests.support.storage_proxy import Faults
from transforms.media.errors import StorageError
from transforms.sources import archive_files
from transforms.storage import cloud as cloud_module
from transforms.storage import objects
from transforms.storage.cloud import CloudStore
from transforms.storage.globs import quote
from transforms.storage.registry import store_of

BIG = bytes(range(256)) * (11 << 12)
"""11 MB: more than goes up or comes down in one request here."""
pytestmark = pytest.mark.usefixtures("cloud_faults", "_small_parts")


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_module, "_PART_BYTES", 5 << 20)  # S3 takes none below
    monkeypatch.setattr(CloudStore, "read_buffer_bytes", 6 << 20)


def _requests(faults: Faults) -> list[str]:
    """Returns the list that requests are noted in from now on, without what is in every path."""
    found: list[str] = []
    faults.before = lambda request: found.append(request.replace("/devstoreaccount1", "").strip())
    return found


# --- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100_000, len(BIG)])
def test_what_was_written_is_read(cloud_place: str, tmp_path: Path, size: int) -> None:
    source = tmp_path / "work"
    source.write_bytes(BIG[:size])
    objects.publish(f"{cloud_place}/file", source)
    objects.write_bytes(f"{cloud_place}/data", BIG[:size])

    for name in ("file", "data"):
        assert objects.read_bytes(f"{cloud_place}/{name}") == BIG[:size]
        with objects.open_input(f"{cloud_place}/{name}") as file:
            assert file.read() == BIG[:size]
            if size > 1000:
                file.seek(777)
                assert file.read(5) == BIG[777:782]
    assert not source.exists()
    assert [found.size_bytes for found in objects.list_below(cloud_place)] == [size, size]


def test_requests_are_few(cloud_place: str, cloud_faults: Faults, tmp_path: Path) -> None:
    """What each operation costs in requests, which are paid for and waited for."""
    (tmp_path / "big").write_bytes(BIG)
    requests = _requests(cloud_faults)
    is_s3 = cloud_place.startswith("s3:")

    def counted(expected: int) -> None:
        assert len(requests) == expected, requests
        requests.clear()

    objects.write_bytes(f"{cloud_place}/x", b"abc")
    counted(2)  # and its size is looked at
    objects.publish(f"{cloud_place}/big", tmp_path / "big")
    counted((1 + 3 + 1 if is_s3 else 3 + 1) + 1)
    objects.read_bytes(f"{cloud_place}/x")
    counted(1)
    objects.read_range(f"{cloud_place}/x", 1, 2)
    counted(1)
    with objects.open_input(f"{cloud_place}/x") as file:
        file.read()
    counted(1)
    with objects.open_input(f"{cloud_place}/big") as file:
        while file.read(1 << 20):
            pass
    counted(1 + 2)
    objects.match(f"{cloud_place}/x")
    counted(1)
    objects.list_below(cloud_place)
    counted(1)
    token = objects.compare_and_swap(f"{cloud_place}/lock", None, b"one")
    counted(2)
    objects.read_for_swap(f"{cloud_place}/lock")
    counted(2)
    objects.compare_and_swap(f"{cloud_place}/lock", token, b"two")
    counted(3)
    objects.delete_below(cloud_place)
    counted(2)


# --- names ----------------------------------------------------------------------------------------


def test_odd_names_are_written_listed_read_and_deleted(cloud_place: str) -> None:
    names = [name for name in ODD_NAMES if "\n" not in name]
    names += ["plus+and%2Fand%20", "q?a=b&c", "tilde~'\"", "semi;colon:", "e\u0301"]
    uris = sorted(f"{cloud_place}/sub folder/{name}" for name in names)
    for uri in uris:
        objects.write_bytes(uri, uri.encode())

    assert [found.path for found in objects.list_below(cloud_place)] == uris
    for uri in uris:
        assert objects.read_bytes(uri) == uri.encode()
        with objects.open_input(uri) as file:
            assert file.read() == uri.encode()
    for name in names:
        found = archive_files.find_archives(quote(f"{cloud_place}/sub folder/{name}")).archives
        assert [listed.uri for listed in found][:1] == [f"{cloud_place}/sub folder/{name}"]

    objects.delete_many(cloud_place, uris)
    assert objects.list_below(cloud_place) == []


@pytest.mark.parametrize(
    "name",
    ["a//b", "/a", "a/", "a/./b", "a/../b", "..", ".", "", "line\nbreak", "latin-\udce9"],
)
def test_name_that_the_client_would_change_is_one_clear_line(cloud: CloudServer, name: str) -> None:
    """`obstore` makes `a` of `/a` and of `a/`: another object than was meant."""
    uri = f"{cloud.base}calls/{name}"
    operations = (
        objects.read_bytes,
        objects.open_input,
        objects.delete,
        objects.change_token,
        objects.read_for_swap,
        lambda uri: objects.write_bytes(uri, b"x"),
    )
    for operation in operations:
        with pytest.raises(
            StorageError, match=r": the name '.*' (names no object|has a |is not )"
        ) as told:
            operation(uri)
        assert "\n" not in str(told.value)


def test_pattern_that_is_not_utf8_is_one_clear_line(cloud_place: str) -> None:
    """As a shell gives it of a name in another encoding."""
    with pytest.raises(StorageError, match="is not UTF-8"):
        objects.match(f"{cloud_place}/\udce9*")


def test_backslash_is_one_character_of_a_name_or_refused(cloud_place: str) -> None:
    """Azure makes a slash of it: that would be another object."""
    uri = f"{cloud_place}/a\\b"
    if cloud_place.startswith("s3:"):
        objects.write_bytes(uri, b"x")
        assert [listed.path for listed in objects.list_below(cloud_place)] == [uri]
    else:
        with pytest.raises(StorageError, match="backslash"):
            objects.write_bytes(uri, b"x")


def _put_raw(cloud: CloudServer, name: str, data: bytes) -> None:
    """Puts an object with a name as it stands, as other clients do; moto asks for no signature."""
    request = urllib.request.Request(f"{cloud.url}/odd/{name}", data, method="PUT")
    urllib.request.urlopen(request).close()


@pytest.mark.parametrize("cloud", ["moto"], indirect=True)
class TestNamesOfOthers:
    """Names that only other clients can make, in a bucket of their own. By moto: what Azurite lists
    goes the same way through the same library.
    """

    def test_marker_of_a_folder_is_no_object(self, cloud: CloudServer) -> None:
        cloud.make_bucket("odd")
        for name, data in (
            ("m/", b""), ("m/x", b"1"), ("m/sub/", b""), ("m/sub/y", b"2"), ("m/empty", b"")
        ):  # fmt: skip
            _put_raw(cloud, name, data)

        found = [listed.path for listed in objects.list_below("s3://odd/m")]

        assert found == ["s3://odd/m/empty", "s3://odd/m/sub/y", "s3://odd/m/x"]
        assert [listed.path for listed in objects.match("s3://odd/m/*")] == found[::2]

    @pytest.mark.parametrize(
        ("names", "pattern", "message"),
        [
            (("e//x", "e/y"), "s3://odd/e/**", "invalid path: .*e//x"),
            (("f/x", "f/x/"), "s3://odd/f/**", "has two objects that this client names 'f/x'"),
        ],
    )
    def test_object_that_cannot_be_named_is_told(
        self, cloud: CloudServer, names: tuple[str, ...], pattern: str, message: str
    ) -> None:
        cloud.make_bucket("odd")
        for name in names:
            _put_raw(cloud, name, name.encode())

        with pytest.raises(StorageError, match=message) as told:
            objects.match(pattern)

        assert "\n" not in str(told.value)

    def test_slash_before_a_name_is_told(self, cloud: CloudServer) -> None:
        """It is listed far from the name that it is taken for."""
        cloud.make_bucket("lead")
        for name in ("/lead", "a", "b", "lead"):
            request = urllib.request.Request(f"{cloud.url}/lead/{name}", b"x", method="PUT")
            urllib.request.urlopen(request).close()

        with pytest.raises(StorageError, match=r"s3://lead has two objects .* names 'lead'"):
            objects.match("s3://lead/**")


# --- listings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud", ["moto"], indirect=True)  # pages of 100
def test_pages_are_asked_for_one_by_one(cloud_place: str, cloud_faults: Faults) -> None:
    """The second page when it is needed, and not before."""
    for number in range(101):
        objects.write_bytes(f"{cloud_place}/{number:03}", b"x")
    requests = _requests(cloud_faults)

    listed = store_of(cloud_place).match(f"{cloud_place}/**")
    first = [found.path for found in itertools.islice(listed, 100)]

    assert len(requests) == 1
    assert first == [f"{cloud_place}/{number:03}" for number in range(100)]
    assert [found.path for found in listed] == [f"{cloud_place}/100"]
    assert len(requests) == 2
    requests.clear()
    assert objects.has_match(f"{cloud_place}/*")
    assert len(requests) == 1


def test_glob_asks_for_no_more_than_may_match(cloud_place: str, cloud_faults: Faults) -> None:
    for name in ("2025-12", "2026-01-a", "2026-01-b", "2026-01", "2026-02"):
        objects.write_bytes(f"{cloud_place}/{name}", b"x")
    requests = _requests(cloud_faults)

    found = [listed.path for listed in objects.match(f"{cloud_place}/2026-01-*")]

    assert found == [f"{cloud_place}/2026-01-a", f"{cloud_place}/2026-01-b"]
    (request,) = requests
    assert "start-after=" in request or "startFrom=" in request
    assert request.endswith("/2026-01")


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["short_ratio", "break_ratio", "unavailable_ratio"])
def test_read_that_fails_now_and_then_gives_all_bytes(
    cloud_place: str, cloud_faults: Faults, kind: str
) -> None:
    objects.write_bytes(f"{cloud_place}/x", BIG)
    setattr(cloud_faults, kind, 0.35)

    for _ in range(3):
        assert objects.read_bytes(f"{cloud_place}/x") == BIG
        with objects.open_input(f"{cloud_place}/x") as file:
            assert file.read() == BIG

    assert sum(cloud_faults.counts[name] for name in ("short", "broken", "unavailable")) >= 1


def test_body_that_always_comes_short_is_an_error_and_no_short_read(
    cloud_place: str, cloud_faults: Faults
) -> None:
    objects.write_bytes(f"{cloud_place}/x", b"x" * 1000)
    cloud_faults.short_ratio = 1

    with pytest.raises(StorageError, match=r"/x: 500 bytes came from byte 0, expected 1000"):
        objects.read_bytes(f"{cloud_place}/x")
    with (
        pytest.raises(StorageError, match="500 bytes came"),
        objects.open_input(f"{cloud_place}/x") as file,
    ):
        file.read()


@pytest.mark.parametrize("kind", ["lost_answer_ratio", "unavailable_ratio"])
def test_write_that_fails_now_and_then_arrives_whole(
    cloud_place: str, cloud_faults: Faults, tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "work"
    setattr(cloud_faults, kind, 0.2)
    for number, size in enumerate((0, 1000, len(BIG))):
        source.write_bytes(BIG[:size])
        objects.publish(f"{cloud_place}/{number}", source)
    setattr(cloud_faults, kind, 0)

    for number, size in enumerate((0, 1000, len(BIG))):
        assert objects.read_bytes(f"{cloud_place}/{number}") == BIG[:size]
    assert cloud_faults.counts["lost answer"] + cloud_faults.counts["unavailable"] >= 1


def test_listing_and_deleting_many_under_faults(cloud_place: str, cloud_faults: Faults) -> None:
    for number in range(12):
        objects.write_bytes(f"{cloud_place}/keep/{number}", b"x")
        objects.write_bytes(f"{cloud_place}/drop/{number}", b"x")
    cloud_faults.unavailable_ratio = cloud_faults.lost_answer_ratio = 0.2

    assert len(objects.list_below(f"{cloud_place}/keep")) == 12
    objects.delete(f"{cloud_place}/keep/0")
    objects.delete(f"{cloud_place}/keep/0")
    objects.delete_many(cloud_place, [f"{cloud_place}/drop/{number}" for number in range(6)])
    # Some of these are gone: the others are not passed over.
    objects.delete_many(cloud_place, [f"{cloud_place}/drop/{number}" for number in range(12)])

    cloud_faults.unavailable_ratio = cloud_faults.lost_answer_ratio = 0
    assert len(objects.list_below(f"{cloud_place}/keep")) == 11
    assert objects.list_below(f"{cloud_place}/drop") == []


@pytest.mark.parametrize("cloud", ["moto"], indirect=True)
def test_upload_that_breaks_off_leaves_no_parts(
    cloud: CloudServer, cloud_place: str, cloud_faults: Faults, tmp_path: Path
) -> None:
    """Parts of an upload that nobody ends are paid for until they are given up."""
    (tmp_path / "big").write_bytes(BIG)
    cloud_faults.only, cloud_faults.unavailable_ratio = "partNumber=3", 1.0

    with pytest.raises(StorageError, match="HTTP status 503: try later"):
        objects.publish(f"{cloud_place}/x", tmp_path / "big")

    with urllib.request.urlopen(f"{cloud.url}/calls?uploads") as answer:
        assert cloud_place.removeprefix("s3://calls/").encode() not in answer.read()
    assert objects.match(f"{cloud_place}/x") == []
    assert (tmp_path / "big").exists()


def test_large_file_is_not_held_in_memory(cloud_place: str, tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(48 << 20)

    tracemalloc.start()
    try:
        objects.publish(f"{cloud_place}/x", tmp_path / "big")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < 24 << 20
    assert [found.size_bytes for found in objects.match(f"{cloud_place}/x")] == [48 << 20]


def test_object_replaced_while_it_is_read_is_an_error_and_no_mixture(
    cloud_place: str, cloud_faults: Faults
) -> None:
    uri = f"{cloud_place}/archive"
    objects.write_bytes(uri, b"a" * 1_000_000)
    with objects.open_ranges(uri) as file:
        assert file.read(10) == b"a" * 10
        objects.write_bytes(uri, b"b" * 1_000_000)

        with pytest.raises(StorageError, match="it was replaced while it was being read"):
            file.read(900_000)


def test_change_token_is_that_of_the_listing_and_changes(cloud_place: str) -> None:
    uri = f"{cloud_place}/x"
    objects.write_bytes(uri, b"one")
    (listed,) = objects.match(f"{cloud_place}/*")
    first = objects.change_token(uri)
    objects.write_bytes(uri, b"two")

    assert listed.change_token == first
    assert '"' not in first
    assert objects.change_token(uri) != first


def test_server_that_is_gone_is_one_line_soon(
    cloud: CloudServer, cloud_place: str, cloud_faults: Faults
) -> None:
    cloud_faults.dead = True
    forget_clients(cloud)

    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:\d+ does not answer: ") as told:
        objects.read_bytes(f"{cloud_place}/x")

    assert "\n" not in str(told.value)


@pytest.mark.parametrize("cloud", ["moto"], indirect=True)  # it compares no hashes of requests
def test_store_that_keeps_other_bytes_is_found_out(cloud_place: str, cloud_faults: Faults) -> None:
    cloud_faults.uploads_end_short = 1
    objects.write_bytes(f"{cloud_place}/x", b"x" * 1000)
    assert cloud_faults.counts["short upload"] == 1
    assert objects.read_bytes(f"{cloud_place}/x") == b"x" * 1000
    cloud_faults.uploads_end_short = 100

    with pytest.raises(StorageError, match="999 bytes arrived, expected 1000"):
        objects.write_bytes(f"{cloud_place}/y", b"x" * 1000)
