"""Archives behind links, read from a server with TLS on this machine."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, noise
from tests.support.tls_site import MODIFIED_UNIX_S, Exchange, Page, Site, redirect
from transforms.media.archive.read_members import ArchiveInput, read_members
from transforms.media.errors import StorageError
from transforms.media.findings import Findings
from transforms.media.settings import LimitSettings
from transforms.sources import archive_files
from transforms.storage import globs, objects
from transforms.storage.inputs import ARCHIVE_INPUTS
from transforms.storage.registry import store_of
from transforms.storage.store import SwapUnsupportedError

pytestmark = pytest.mark.usefixtures("quick_retries")
DATA = random.Random(1).randbytes(3_000_000)
SIGNATURE = "?a=1&sig=bm90aGluZyB0byBzZWU%2Bxyz/"


def read_all(link: str, buffer_bytes: int = 1 << 16) -> bytes:
    """Returns an object as a reader of archives reads it."""
    pieces = []
    with objects.open_input(link) as file:
        while piece := file.read(buffer_bytes):
            pieces.append(piece)
    return b"".join(pieces)


# --- requests -------------------------------------------------------------------------------------


def test_archive_costs_a_request_to_look_and_one_to_read(tls_site: Site) -> None:
    link = tls_site.put("/raw/a.tar.gz", DATA) + SIGNATURE

    listed = archive_files.stat_archive(link)
    data = read_all(link)

    assert data == DATA
    assert listed is not None
    assert listed.size_bytes == len(DATA)
    assert listed.modified_unix_ns == MODIFIED_UNIX_S * 1_000_000_000
    assert tls_site.ranges() == ["bytes=0-0", "bytes=0-"]
    assert {request.method for request in tls_site.requests} == {"GET"}
    assert {request.query for request in tls_site.requests} == {SIGNATURE[1:]}
    assert len({request.connection for request in tls_site.requests}) == 1


@pytest.mark.parametrize(("kind", "requests"), [("tar.gz", 1), ("tar", 1), ("zip", 2)])
def test_call_archive_is_read_with_few_requests(
    tls_site: Site, tmp_path: Path, kind: str, requests: int
) -> None:
    people = [
        Participant(
            participant_id=f"p{number}",
            segments=[Segment(packets=encode_opus(noise(2)), base_filename=f"d{number}")],
        )
        for number in range(8)
    ]
    archive = make_call_archive(people, kind=kind)
    link = tls_site.put(f"/raw/a.{kind}", archive) + SIGNATURE
    source = ArchiveInput(name=link, size_bytes=len(archive))

    found = read_members(source, ARCHIVE_INPUTS.open, tmp_path, LimitSettings(), Findings())

    assert len(found.sessions) == len(found.dumps) == 8
    assert len(tls_site.requests) == requests
    assert tls_site.ranges()[0] == "bytes=0-"


def test_jump_is_a_request_and_a_short_way_ahead_is_none(tls_site: Site) -> None:
    link = tls_site.put("/a", DATA)

    with objects.open_ranges(link) as file:
        found = [file.read_at(position, 100) for position in (0, 5_000, 2_500_000, 10, 2_999_990)]

    positions = (0, 5_000, 2_500_000, 10, 2_999_990)
    assert found == [DATA[at : at + 100] for at in positions]
    end = "bytes=2737856-2999999"
    assert tls_site.ranges() == ["bytes=0-", "bytes=2500000-", "bytes=10-", end]


def test_part_and_whole_are_a_request_each(tls_site: Site) -> None:
    link = tls_site.put("/a", DATA)

    assert objects.read_range(link, 1_000, 50) == DATA[1_000:1_050]
    assert objects.read_bytes(link) == DATA
    assert tls_site.ranges() == ["bytes=1000-1049", "bytes=0-"]


def test_empty_object_is_one(tls_site: Site) -> None:
    link = tls_site.put("/a", b"")

    assert [found.size_bytes for found in objects.match(globs.quote(link))] == [0]
    assert read_all(link) == b""


# --- what breaks ----------------------------------------------------------------------------------


def test_reading_goes_on_from_where_the_connection_broke_off(tls_site: Site) -> None:
    page = Page(data=DATA, cuts=[1_000_000, 300_000, 70_000, 700_000])
    link = tls_site.put("/a", page)

    assert read_all(link) == DATA
    assert tls_site.ranges() == [
        "bytes=0-", "bytes=1000000-", "bytes=1300000-", "bytes=1370000-", "bytes=2070000-",
    ]  # fmt: skip


def test_connection_that_breaks_off_all_along_costs_no_archive(tls_site: Site) -> None:
    """More often than one read has tries: each that came further counts anew."""
    link = tls_site.put("/a", Page(data=DATA, cuts=[70_000] * 40))

    assert read_all(link) == DATA


def test_store_is_asked_again_where_a_connection_gave_little(tls_site: Site) -> None:
    link = tls_site.put("/a", Page(data=DATA, cuts=[2_500_000, 0, 10_000, 0, 0, 100, 600_000]))

    assert read_all(link) == DATA


def test_connection_that_never_gives_more_is_given_up(tls_site: Site) -> None:
    link = tls_site.put("/a", Page(data=DATA, cuts=[100_000, *[0] * 40]))

    with pytest.raises(StorageError, match=r"a: the connection broke off$"):
        read_all(link)
    assert len(tls_site.requests) == 7


@pytest.mark.parametrize(
    "changed",
    [
        Page(data=DATA[::-1], headers={"ETag": '"two"'}),
        Page(data=DATA[::-1], headers={"Last-Modified": "Tue, 06 Jan 2026 10:00:00 GMT"}),
        Page(data=DATA + b"x"),
        Page(data=DATA[:2_000_001]),
        Page(data=DATA[:2_000_000]),
        Page(data=DATA[::-1], headers={"ETag": '"two"'}, has_ranges=False),
    ],
    ids=["tag", "modified", "longer", "shorter", "cut", "without-ranges"],
)
def test_object_replaced_while_it_is_read_is_an_error_and_no_mixture(
    tls_site: Site, changed: Page
) -> None:
    link = tls_site.put("/a", Page(data=DATA, cuts=[2_000_000]))

    with objects.open_input(link) as file:
        begun = file.read(500_000)
        tls_site.put("/a", changed)
        with pytest.raises(StorageError, match="it was replaced while it was being read"):
            file.read(2_000_000)
    assert begun == DATA[:500_000]


def test_half_a_file_that_is_said_to_be_all_is_no_archive(tls_site: Site) -> None:
    """It would be damaged, and count as done: nobody would ask for the rest of it."""
    page = Page(data=DATA, has_ranges=False)
    link = tls_site.put("/a", page)
    listed = archive_files.stat_archive(link)
    assert listed is not None
    inputs = ARCHIVE_INPUTS.opened_by("a", link, listed.size_bytes)
    with inputs.open("a") as file:
        assert file.read() == DATA

    page.data = DATA[:1_500_000]

    with pytest.raises(StorageError, match="/a: 1500000 bytes, expected 3000000 as when it was lo"):
        inputs.open("a")


# --- servers that know less -----------------------------------------------------------------------


def test_server_without_ranges_is_read_from_the_start(tls_site: Site) -> None:
    link = tls_site.put("/a", Page(data=DATA, has_ranges=False, cuts=[1_500_000, 2_800_000]))

    assert objects.match(globs.quote(link))[0].size_bytes == len(DATA)
    assert read_all(link) == DATA  # half a body with 200 and the length of the whole among them
    assert len(tls_site.requests) == 3


def test_server_without_ranges_is_not_read_from_the_start_for_ever(tls_site: Site) -> None:
    link = tls_site.put("/a", Page(data=DATA, has_ranges=False))

    with objects.open_ranges(link) as file:
        for _ in range(3):
            assert file.read_at(2_999_000, 1_000) == DATA[2_999_000:]
            assert file.read_at(7, 1_000) == DATA[7:1_007]
        with pytest.raises(StorageError, match=r"no part of it \(no ranges\).* 6 times"):
            [file.read_at(position, 1_000) for position in (2_999_000, 7) * 3]
    assert len(tls_site.requests) < 10


def test_chunks_are_read_where_the_size_is_told(tls_site: Site) -> None:
    link = tls_site.put("/a", Page(data=DATA, is_chunked=True, cuts=[40_000]))

    assert read_all(link) == DATA


def test_parts_that_a_server_gives_one_by_one_are_put_together(tls_site: Site) -> None:
    def give_a_part(exchange: Exchange) -> None:
        begin = int(exchange.headers["Range"].removeprefix("bytes=").partition("-")[0])
        stop = min(begin + 900_000, len(DATA))
        told: dict[str, str | None] = {"Content-Range": f"bytes {begin}-{stop - 1}/{len(DATA)}"}
        exchange.give(206, DATA[begin:stop], told)

    assert read_all(tls_site.put("/a", Page(answers=[give_a_part]))) == DATA


def test_object_stored_with_a_content_encoding_comes_as_it_is_stored(tls_site: Site) -> None:
    data = make_call_archive([Participant(participant_id="p")], kind="tar.gz")
    link = tls_site.put("/a.tar.gz", Page(data=data, headers={"Content-Encoding": "gzip"}))

    assert read_all(link) == data
    assert {request.headers["accept-encoding"] for request in tls_site.requests} == {"identity"}


def test_what_cloud_storage_would_expand_comes_as_it_is_stored(tls_site: Site) -> None:
    """An object with Content-Encoding: gzip goes out expanded to whoever accepts no gzip, without a
    size and without ranges.
    """
    data = make_call_archive([Participant(participant_id="p")], kind="tar.gz")
    stored: dict[str, str | None] = {"X-Goog-Stored-Content-Encoding": "gzip"}

    def answer(exchange: Exchange) -> None:
        if exchange.headers["Accept-Encoding"] == "gzip":
            exchange.page = Page(data=data, headers={**stored, "Content-Encoding": "gzip"})
            exchange.give_page()
        else:
            exchange.give(200, b"expanded", stored, is_chunked=True)

    link = tls_site.put("/a.tar.gz", Page(answers=[answer]))

    assert objects.match(globs.quote(link))[0].size_bytes == len(data)
    assert read_all(link) == data


def test_archive_is_read_whatever_a_server_calls_it(tls_site: Site) -> None:
    for kind in ("text/html; charset=utf-8", "application/json", "", "x" * 500):
        link = tls_site.put("/a", Page(data=DATA, headers={"Content-Type": kind}))
        assert objects.match(globs.quote(link))[0].size_bytes == len(DATA)
        assert read_all(link) == DATA


def test_server_that_tells_nothing_of_the_object_but_its_size(tls_site: Site) -> None:
    bare: dict[str, str | None] = {"ETag": None, "Last-Modified": None}
    now = "Wed, 07 Jan 2026 02:00:00 GMT"
    link = tls_site.put("/a", Page(data=DATA, headers={**bare, "Date": now}))

    (found,) = objects.match(globs.quote(link))

    # Now, by the server's clock: what may be new is not passed over by --since.
    assert found.modified_unix_s == 1_767_751_200
    assert found.change_token
    assert len(tls_site.requests) == 1


def test_modification_that_no_calendar_has_is_none(tls_site: Site) -> None:
    """In UTC it is in the year 10000, of which no table has a date."""
    told = {"Last-Modified": "Fri, 31 Dec 9999 23:59:59 -1200"}
    now = "Wed, 07 Jan 2026 02:00:00 GMT"
    link = tls_site.put("/a", Page(data=DATA, headers={**told, "Date": now}))

    (found,) = objects.match(globs.quote(link))

    assert found.modified_unix_s == 1_767_751_200


def test_token_changes_with_tag_modification_and_size(tls_site: Site) -> None:
    pages = [
        Page(data=DATA),
        Page(data=DATA, headers={"ETag": '"two"'}),
        Page(data=DATA, headers={"Last-Modified": "Tue, 06 Jan 2026 10:00:00 GMT"}),
        Page(data=DATA[1:]),
    ]
    tokens = [objects.change_token(tls_site.put("/a", page)) for page in pages]

    assert len(set(tokens)) == 4
    assert objects.change_token(tls_site.put("/a", Page(data=DATA))) == tokens[0]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/a.tar.gz", "/a[1].tar.gz", "/a*b/[!x]?.zip", "/**", "/a%2Fb"])
def test_link_is_never_a_pattern(tls_site: Site, path: str) -> None:
    path = path.replace("?", "%3F")
    link = tls_site.put(path, b"data") + SIGNATURE

    assert [found.uri for found in archive_files.find_archives(link).archives] == [
        tls_site.link(path)
    ]
    stated = archive_files.stat_archive(link)
    assert stated is not None
    assert stated.uri == tls_site.link(path)
    assert archive_files.fingerprint(link) == stated.fingerprint
    assert archive_files.why_nothing_matches(link) is None
    assert archive_files.archive_input(link, 4).folder_members is None
    assert store_of(link).local_path(link) is None
    assert objects.exists_literally(link)


def test_places_are_the_same_whoever_signed_the_link() -> None:
    assert objects.resolve("https://H/a?sig=1") == objects.resolve("https://h:443/a?sig=2")


def test_redirects_are_followed(tls_site: Site) -> None:
    tls_site.put("/there", DATA)
    for step in range(5):
        to = "there" if step == 4 else f"step{step + 1}"
        tls_site.put(f"/step{step}", Page(answers=[redirect(f"/{to}?x=1", 302 + step % 2 * 5)]))

    assert read_all(tls_site.link("/step0")) == DATA
    assert len(tls_site.requests) == 6


def test_user_and_password_are_sent_to_the_host_of_the_link_alone(tls_site: Site) -> None:
    tls_site.put("/a", DATA)
    tls_site.put("/moved", Page(answers=[redirect("/a")]))
    link = tls_site.link("/moved").replace("://", "://me:p%40ss@")

    assert read_all(link) == DATA
    sent = [request.headers.get("authorization") for request in tls_site.requests]
    assert sent == ["Basic bWU6cEBzcw==", None]


# --- read only ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda uri: objects.write_bytes(uri, b"x"),
        lambda uri: objects.write_staged(uri, b"x"),
        lambda uri: objects.publish(uri, Path(__file__)),
        lambda uri: objects.move(uri, Path(__file__)),
        objects.delete,
        lambda uri: objects.delete_many(uri, [uri]),
        objects.delete_below,
        objects.delete_partials,
        objects.prepare_folder,
        objects.list_below,
        lambda uri: objects.match(uri.partition("?")[0] + "/**"),
    ],
)
def test_nothing_is_written_deleted_or_listed(
    tls_site: Site, change: Callable[[str], object]
) -> None:
    link = tls_site.link("/a.tar.gz") + SIGNATURE

    with pytest.raises(StorageError, match=r"/a\.tar\.gz: https:// is read only") as told:
        change(link)
    assert "sig" not in told.value.message
    assert tls_site.requests == []
    with pytest.raises(SwapUnsupportedError):
        objects.read_for_swap(link)


def test_object_that_is_no_small_one_is_not_read_into_memory(tls_site: Site) -> None:
    def promise_much(exchange: Exchange) -> None:
        told: dict[str, str | None] = {"Content-Length": str(10**15)}
        exchange.give(200, DATA, told)

    link = tls_site.put("/a", Page(answers=[promise_much]))

    with pytest.raises(StorageError, match="1000000000000000 bytes, expected at most"):
        objects.read_bytes(link)
    with objects.open_input(link) as file:
        assert file.seek(0, io.SEEK_END) == 10**15
