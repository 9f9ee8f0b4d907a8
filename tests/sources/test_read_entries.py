"""Manifests of every shape that is read; what is left out, bad, hostile, or no manifest at all."""

from __future__ import annotations

import gzip
import io
import json
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pytest

from tests.support.vendor import (
    CREATED_UNIX_NS,
    ENDED_UNIX_NS,
    SIGNATURE,
    event,
    link_to,
    listing,
    notification,
    other_event,
    packed,
    received,
    recording,
    uri_of,
)
from transforms.media import caps
from transforms.media.errors import ConfigError, UnreadableManifestError
from transforms.sources.manifests import bounds
from transforms.sources.manifests.entry import BadEntry, LeftOut, ManifestEntry
from transforms.sources.manifests.read_entries import read_entries, tell_shape

NAME = "/data/manifest"
Found = ManifestEntry | LeftOut | BadEntry


def read(content: str | bytes) -> list[Found]:
    data = content.encode() if isinstance(content, str) else content
    tell_shape(NAME, data[: bounds.BEGINNING_BYTES])
    return list(read_entries(NAME, io.BytesIO(data)))


def named(found: list[Found]) -> list[str]:
    """Returns entries by the names of their archives, what is left out by why, and `bad`."""
    return [
        f.uri.rsplit("/", 1)[-1].removesuffix(".tar.gz")
        if isinstance(f, ManifestEntry)
        else "bad"
        if isinstance(f, BadEntry)
        else str(f)
        for f in found
    ]


def bad(found: list[Found]) -> list[str]:
    return [f"{f.position}: {f.why}" for f in found if isinstance(f, BadEntry)]


def lines(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


OF_LIST = ManifestEntry(
    uri=uri_of("a"),
    link=link_to("a"),
    call_session_id="session-1",
    ended_unix_ns=ENDED_UNIX_NS,
)
OF_EVENT = ManifestEntry(
    uri=uri_of("a"),
    link=link_to("a"),
    call_cid="default:standup",
    call_session_id="session-1",
    ended_unix_ns=ENDED_UNIX_NS,
    issued_unix_ns=CREATED_UNIX_NS,
)
OF_TEXT = ManifestEntry(uri=uri_of("a"), link=link_to("a"))
A_LIST, AN_EVENT = listing(recording("a")), event("a")
SHAPES = {
    "list": (json.dumps(A_LIST), OF_LIST),
    "list, indented": (json.dumps(A_LIST, indent=2), OF_LIST),
    "list, a recording a line": (f'{{"recordings":[\n{json.dumps(recording("a"))}\n]}}', OF_LIST),
    "recordings as a list": (json.dumps([recording("a")]), OF_LIST),
    "a recording a line": (lines(recording("a")), OF_LIST),
    "event": (json.dumps(AN_EVENT), OF_EVENT),
    "event, indented": (json.dumps(AN_EVENT, indent=4), OF_EVENT),
    "events as a list": (json.dumps([AN_EVENT]), OF_EVENT),
    "events as a list, indented": (json.dumps([AN_EVENT], indent="\t"), OF_EVENT),
    "base64": (packed(AN_EVENT), OF_EVENT),
    "base64 of an event in an envelope": (packed(notification(json.dumps(AN_EVENT))), OF_EVENT),
    "envelope": (lines(notification(json.dumps(AN_EVENT))), OF_EVENT),
    "envelope around base64": (lines(notification(packed(AN_EVENT))), OF_EVENT),
    "message": (lines({"Body": json.dumps(AN_EVENT)}), OF_EVENT),
    "messages": (json.dumps(received(json.dumps(AN_EVENT)), indent=4), OF_EVENT),
    "messages, envelope, base64": (
        json.dumps(received(json.dumps(notification(packed(AN_EVENT))))),
        OF_EVENT,
    ),
    "bodies as a list of text": (json.dumps([json.dumps(AN_EVENT)], indent=4), OF_EVENT),
    "links": (link_to("a"), OF_TEXT),
    "table": (f"url\n{link_to('a')}\n", OF_TEXT),
}


@pytest.mark.parametrize(("content", "expected"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data,
        gzip.compress,
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: b"\n \r\n" + data.replace(b"\n", b"\r\n"),
    ],
    ids=["as it is", "gzipped", "with a mark", "with CRLF"],
)
def test_shape_gives_the_entry(content: str, expected: ManifestEntry, change: Any) -> None:
    assert read(change(content.encode())) == [expected]


def test_several_documents_follow_one_another() -> None:
    content = lines(listing(recording("a"), recording("b")), event("c"), [event("d")])

    assert named(read(content)) == ["a", "b", "c", "d"]
    assert named(read(gzip.compress(content.encode()) * 2)) == ["a", "b", "c", "d"] * 2
    joined = json.dumps(event("a")) + json.dumps(event("b"))  # as a stream to a bucket joins them
    assert named(read(joined)) == ["a", "b"]
    assert named(read(f"{joined}\n{joined}\n")) == ["a", "b"] * 2
    indented = json.dumps(listing(recording("a")), indent=1) + json.dumps(event("b"), indent=1)
    assert named(read(indented)) == ["a", "b"]


def test_only_raw_recordings_are_entries() -> None:
    recordings = [
        recording(kind, recording_type=kind) for kind in ("composite", "raw", "individual")
    ]
    assert named(read(json.dumps(listing(*recordings)))) == ["composite", "raw", "individual"]
    assert named(read(lines(event("a", "composite"), other_event(), event("b")))) == [
        "composite",
        "other_event",
        "b",
    ]
    table = f"recording_type,url\nraw,{link_to('a')}\ncomposite,{link_to('b')}\n,{link_to('c')}\n"
    assert named(read(table)) == ["a", "composite", "c"]


def test_recording_type_of_an_event_may_stand_in_its_recording_alone() -> None:
    old = event("a")
    del old["recording_type"]
    assert named(read(json.dumps(old))) == ["a"]
    old["call_recording"]["recording_type"] = "individual"
    assert named(read(json.dumps(old))) == ["individual"]


def test_confirmation_of_a_subscription_is_another_event() -> None:
    content = lines(notification("You have chosen ...", "SubscriptionConfirmation"), event("a"))

    assert named(read(content)) == ["other_event", "a"]


def test_archive_named_twice_comes_twice_with_each_link() -> None:
    newer = {**recording("a"), "url": f"{uri_of('a')}?sig=2"}

    first, second = read(json.dumps(listing(recording("a"), newer)))

    assert isinstance(first, ManifestEntry)
    assert isinstance(second, ManifestEntry)
    assert (first.uri, second.uri) == (uri_of("a"), uri_of("a"))
    assert (first.link, second.link) == (link_to("a"), f"{uri_of('a')}?sig=2")


@pytest.mark.parametrize(
    "content",
    [
        *("", "\n\n", "# nothing tonight\n", "\ufeff", "[]", "url,end_time\n"),
        *('{"duration":"1ms","recordings":[]}', '{"recordings":null}', '{"Messages":[]}'),
        gzip.compress(b"", mtime=0),
    ],
)
def test_manifest_without_recordings_is_a_quiet_night(content: str | bytes) -> None:
    assert read(content) == []


# --- links and URIs -------------------------------------------------------------------------------


def test_text_names_links_uris_and_absolute_paths() -> None:
    content = (
        f"# calls\n\n{link_to('a')}\n  gs://b/c d.tar.gz \ns3://b/c?d\nazfs://a/b/c\n/x/../y\n"
    )
    content += "file:///z/%41\nfile://localhost/w\n" + uri_of("b")

    entries = cast(list[ManifestEntry], read(content))

    assert [entry.uri for entry in entries] == [
        uri_of("a"),
        "gs://b/c d.tar.gz",
        "s3://b/c?d",
        "azfs://a/b/c",
        "/y",
        "/z/%41",
        "/w",
        uri_of("b"),
    ]
    assert [entry.link for entry in entries] == [link_to("a"), *[""] * 7]


@pytest.mark.parametrize(
    ("link", "uri"),
    [
        ("https://Rec.Example.COM:443/A/b.tar.gz?X=1#y", "https://rec.example.com/A/b.tar.gz"),
        ("HTTPS://h:8443/a%2Fb", "https://h:8443/a%2Fb"),
        (f"https://user:{SIGNATURE}@h/a", "https://h/a"),
        ("https://[2001:DB8::1]:443/a?b", "https://[2001:db8::1]/a"),
    ],
)
def test_link_is_known_by_host_and_path(link: str, uri: str) -> None:
    for content in (link, json.dumps(listing(recording("a", url=link)))):
        (entry,) = read(content)
        assert isinstance(entry, ManifestEntry)
        assert entry.uri == uri
        assert entry.link == link
        assert SIGNATURE not in repr(entry)


def test_azure_is_named_by_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "acme")
    (entry,) = read_entries("list", io.BytesIO(b"az://calls/a.tar.gz\n"))
    assert isinstance(entry, ManifestEntry)
    assert entry.uri == "azfs://acme/calls/a.tar.gz"

    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT")
    (bad,) = read_entries("list", io.BytesIO(b"az://calls/a.tar.gz\n"))
    assert isinstance(bad, BadEntry)
    assert "expected azfs://account/container/path" in bad.why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("recordings/a.tar.gz", "'recordings/a.tar.gz' is neither a link, a URI nor an absolute"),
        ("file://nas/a.tar.gz", "'file://nas/a.tar.gz' names a file of another host"),
        ("ftp://h/a?sig=x", "'ftp://h/a[hidden]' has the unknown scheme ftp://"),
        ("gs://bucket", "'gs://bucket' names a bucket at most"),
        ("https://h", "'https://h' is no link, expected https://host/path"),
        ("https://h/folder/", "'https://h/folder/' is no link"),
        ("https://h:x/a", "is no link"),
        ("https://h\\@evil/a", "is no link"),
        ("https://h/a b", "is no link"),
        (
            f"https://h/a%3FX-Amz-Signature%3D{SIGNATURE}",
            "'https://h/a[hidden]' has a signature in",
        ),
        (f"https://h/a&X-Goog-Signature={SIGNATURE}", "'https://h/a[hidden]' has a signature in"),
        (f"s3://b/a?X-Amz-Signature={SIGNATURE}", "'s3://b/a[hidden]' has a signature in its path"),
        (f"https://h/a%3Fsig={SIGNATURE}", "has a signature in its path"),
        (f"https://h/a%3fv=1%26Signature%3D{SIGNATURE}", "has a signature in its path"),
        (f"s3://user:{SIGNATURE}@b/a", "'s3://[hidden]@b/a' has a user in it"),
        (f"https:///a?{SIGNATURE}", "'https:///a[hidden]' is no link"),
        ("/a\0b", "has characters in it that no name has"),
        ("https://h/" + "x" * 9_000, "has 9,010 characters, expected at most 8,192"),
    ],
)
def test_line_that_names_nothing_is_one_bad_entry(text: str, why: str) -> None:
    found = read(f"{uri_of('a')}\n{text}\n{uri_of('b')}\n")

    assert named(found) == ["a", "bad", "b"]
    (told,) = bad(found)
    assert told.startswith("line 2: ")
    assert why in told
    assert found[1] == BadEntry(manifest=NAME, position="line 2", why=told[8:])
    assert len(told) < 300


@pytest.mark.parametrize(
    "url", ["file:///a", "file://nas/a", "/a", "a", "gs://b/a", "s3://b/a", "http://h/a", "", 5]
)
def test_url_of_the_vendors_shapes_is_a_link(url: Any) -> None:
    for content in (
        json.dumps(listing(recording("a"), recording("x", url=url), recording("b"))),
        lines(event("a"), event("x", call_recording=recording("x", url=url)), event("b")),
    ):
        found = read(content)
        assert named(found) == ["a", "bad", "b"]
        assert ": url is" in bad(found)[0]


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_table_is_read_by_its_header(delimiter: str) -> None:
    rows = [
        ["note", "URL", "Session_Id", "call_cid", "end_time", "start_time", "filename"],
        ['"a ""b"" ,;"', f'"{link_to("a")}"', "s", "default:x", "1778202000", "", "a"],
        ["", uri_of("b"), "", "", "2026-05-08T01:00:00Z"],
    ]
    content = "\ufeff" + "\r\n".join(delimiter.join(row) for row in rows)

    assert read(content) == [
        ManifestEntry(
            uri=uri_of("a"),
            link=link_to("a"),
            call_cid="default:x",
            call_session_id="s",
            ended_unix_ns=1_778_202_000_000_000_000,
        ),
        ManifestEntry(uri=uri_of("b"), ended_unix_ns=1_778_202_000_000_000_000),
    ]


def test_row_of_a_table_that_is_bad_costs_no_other() -> None:
    header = "end_time,uri,recording_type"
    rows = ["x,/a,", ',"/b,', ',"/b"c,', ",/c,raw,,", "1,/d,raw,e", ",,", ",e,", ",/f,video"]

    found = read("\n".join([header, ",/1,", *rows, ",/2,"]))

    assert named(found) == ["1", "bad", "bad", "bad", "c", "bad", "bad", "bad", "bad", "2"]
    assert bad(found) == [
        "line 3: end_time is 'x', expected a time",
        "line 4: no row of CSV: a quotation mark in it is not closed, or not doubled",
        "line 5: no row of CSV: a quotation mark in it is not closed, or not doubled",
        "line 7: 4 values, the header has 3",
        "line 8: url is empty",
        "line 9: url is neither a link, a URI nor an absolute path",
        "line 10: recording_type is 'video', expected raw, composite or individual",
    ]


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end_time", "unix_ns"),
    [
        (ENDED_UNIX_NS, ENDED_UNIX_NS),
        (str(ENDED_UNIX_NS), ENDED_UNIX_NS),
        (1_778_202_000, 1_778_202_000_000_000_000),
        (1_778_202_000.25, 1_778_202_000_250_000_000),
        ("1778202000.25", 1_778_202_000_250_000_000),
        (1_778_202_000_001, 1_778_202_000_001_000_000),
        (1_778_202_000_000_001, 1_778_202_000_000_001_000),
        (1.7782e18, 1_778_200_000_000_000_000),
        ("2026-05-08T03:00:00.5+02:00", 1_778_202_000_500_000_000),
        ("2026-05-08 01:00:00", 1_778_202_000_000_000_000),
        (None, None),
        ("", None),
        (0, None),
        ("0001-01-01T00:00:00Z", None),
        (-62_135_596_800_000_000_000, None),
    ],
)
def test_time_is_read_in_any_unit(end_time: Any, unix_ns: int | None) -> None:
    (entry,) = read(json.dumps(listing(recording("a", end_time=end_time))))

    assert isinstance(entry, ManifestEntry)
    assert entry.ended_unix_ns == unix_ns


@pytest.mark.parametrize(
    "time_text",
    [
        *("1e400", "1e300", "-Infinity", "NaN", "12345", "9" * 30, "9" * 5_000, "true", "[]"),
        *('"x"', '"2026-99-99"', '"99999-01-01"', f'"{"9" * 5_000}"'),
        *('"9999-12-31T23:59:59-12:00"', '"2300-01-01T00:00:00Z"'),
    ],
    ids=lambda text: text[:12],
)
def test_time_that_is_none_is_a_bad_entry(time_text: str) -> None:
    content = json.dumps(listing(recording("a"), recording("x", end_time="T"), recording("b")))

    found = read(content.replace('"T"', time_text))

    assert named(found) == ["a", "bad", "b"]
    assert bad(found)[0].startswith("recordings[1]: ")
    assert len(bad(found)[0]) < 200


# --- what is damaged, and hostile -----------------------------------------------------------------

DAMAGED = {
    "no object": b"12",
    "null": b"null",
    "unknown object": b'{"room_id": 1}',
    "missing type": json.dumps({"url": link_to("x")}).encode(),
    "missing url": b'{"recording_type": "raw"}',
    "unknown type": json.dumps(recording("x", recording_type="video")).encode(),
    "session of another kind": json.dumps(recording("x", session_id=[])).encode(),
    "long session": json.dumps(recording("x", session_id="s" * 5_000)).encode(),
    "no call_recording": json.dumps(event("x", call_recording=None)).encode(),
    "not a number": b'{"url": NaN}',
    "number of 5000 digits": b'{"url": %s}' % (b"9" * 5_000),
    "nested": b'{"url": %s}' % (b"[" * 5_000 + b"]" * 5_000),
    "no UTF-8": b'{"url": "\xff"}',
    "NUL": b'{"url": "https://h/a\\u0000"}',
    "bare NUL": b'{"url": "https://h/a\0"}',
    "half a character": b'{"recording_type": "raw", "url": "https://h/a\\ud800"}',
    "url of a megabyte": json.dumps(recording("x", url="https://h/" + "x" * 1_000_000)).encode(),
    "entry of four megabytes": json.dumps(recording("x" * 1_400_000)).encode(),
    "bad escape": b'{"url": "\\x"}',
    "string that is not closed": b'{"url": "https://h/a\n}',
    "missing comma": b'{"url": "a" "b": 1}',
    "base64 garbage": b'"H4sI!!!!"',
    "base64 of damaged gzip": b'"%s"' % packed({})[:-12].encode(),
    "text": b'"hello"',
    "wrapped": json.dumps([[[[[[[[[[[event("x")]]]]]]]]]]]).encode(),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("indent", [None, 2])
def test_damaged_entry_costs_no_neighbour(damaged: bytes, indent: int | None) -> None:
    a, b = (json.dumps(recording(name), indent=indent).encode() for name in "ab")
    found = read(b'{"recordings": [%s, %s, %s]}' % (a, damaged, b))
    assert named(found) == ["a", "bad", "b"]
    assert bad(found)[0].startswith("recordings[1]")

    as_line = damaged.replace(b"\n", b"")
    a, b = (json.dumps(event(name)).encode() for name in "ab")
    found = read(b"\n".join([a, as_line, b]))
    assert named(found) == ["a", "bad", "b"]
    assert bad(found)[0].startswith("line 2")
    assert SIGNATURE not in repr(found)


def test_torn_line_costs_no_other_wherever_it_is() -> None:
    torn = json.dumps(event("x"))[:100]
    whole = lines(event("a"), event("b"))

    assert named(read(torn + "\n" + whole)) == ["bad", "a", "b"]
    assert named(read(whole + torn)) == ["a", "b", "bad"]
    assert named(read("}\n" + whole)) == ["bad", "a", "b"]


@pytest.mark.parametrize("cut", [-1, -2, -3, -100, 600])
def test_list_that_breaks_off_says_so(cut: int) -> None:
    content = json.dumps(listing(recording("a"), recording("b")))
    found = read(content[:cut])

    if cut == -1:  # all of the list is there
        assert named(found) == ["a", "b"]
    else:
        assert named(found)[0] == "a"
        assert named(found)[-1] == "bad"


def test_gzip_that_breaks_off_says_so_behind_what_came() -> None:
    packed_lines = gzip.compress(lines(event("a"), event("b")).encode())

    found = read(packed_lines[:-5])
    assert named(found) == ["a", "b", "bad"]
    assert bad(found) == ["after line 2: the gzip data breaks off, what comes then cannot be read"]
    found = read(packed_lines + b"garbage")
    assert named(found) == ["a", "b", "bad"]
    with pytest.raises(UnreadableManifestError, match="the gzip data is damaged"):
        list(read_entries(NAME, io.BytesIO(b"\x1f\x8b\x08garbage")))


class Endless(io.RawIOBase):
    """A file of so many chunks."""

    def __init__(self, begin: bytes, chunk: bytes, count: int) -> None:
        self._chunks: Iterator[bytes] = iter([begin, *[chunk] * count])

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return next(self._chunks, b"")


CHUNK = 1 << 18
ENDLESS = {
    "line": (b"/a\n", b"x" * CHUNK),
    "line of JSON": (lines(event("a")).encode() + b'{"a": "', b"x" * CHUNK),
    "string": (b'{"recordings": [%s, "' % json.dumps(recording("a")).encode(), b"x" * CHUNK),
    "escapes": (b'{"recordings": [%s, "' % json.dumps(recording("a")).encode(), b"\\" * CHUNK),
    "nesting": (b"[%s, " % json.dumps(recording("a")).encode(), b"[" * CHUNK),
    "space": (b"[%s, " % json.dumps(recording("a")).encode(), b" " * CHUNK),
    "number": (b"[%s, " % json.dumps(recording("a")).encode(), b"9" * CHUNK),
    "keys": (b'[%s, {"a": 1' % json.dumps(recording("a")).encode(), b', "b": 1' * (CHUNK // 8)),
    "field of a table": (b'url\n/a\n"', b"x" * CHUNK),
    "bad entries": (b"[%s" % json.dumps(recording("a")).encode(), b", 1" + b" " * CHUNK),
    "bad lines": (b"/a\n", b"b" * 1_000 + b"\n" * 9 + b"#" * CHUNK),
}


@pytest.mark.parametrize(("begin", "chunk"), ENDLESS.values(), ids=ENDLESS)
def test_endless_manifest_takes_little_memory(begin: bytes, chunk: bytes) -> None:
    tracemalloc.start()
    try:
        file = cast(BinaryIO, Endless(begin, chunk, 40))
        found = list(read_entries(NAME, file))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert named(found)[:2] == ["a", "bad"]
    assert len(found) <= bounds.MAX_BAD_ENTRIES + 2
    assert peak_bytes < 9 << 20  # of 10 MiB that were read; two entries' worth are held at times


def test_bad_entries_beyond_a_number_are_counted() -> None:
    count = bounds.MAX_BAD_ENTRIES
    found = read("/a\n" + "b\n" * (count + 12) + "/c\n")

    assert named(found) == ["a", *["bad"] * count, "c", "bad"]
    assert bad(found)[-1] == "after those: 12 more entries cannot be read"


def test_gzip_bomb_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caps, "UNQUESTIONED_EXPANDED_BYTES", 1 << 20)
    bomb = gzip.compress(b"/a\n" + b"# %s\n" % (b"x" * 999_999) * 32)

    found = read(bomb)

    assert named(found) == ["a", "bad"]
    assert "expands to more than 200 times its size" in bad(found)[0]
    body = json.dumps(event("b", filler="x" * bounds.MAX_ENTRY_BYTES))
    found = read(f"{packed(event('a'))}\n{packed(json.loads(body))}\n")
    assert named(found) == ["a", "bad"]
    assert "expands to more than 2,097,152 bytes" in bad(found)[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"[" * n,
        lambda n: b'"' * n,
        lambda n: b'{"recordings": [' + b'"\\' * n,
        lambda n: b'{"a":' * n,
        lambda n: b'{"recordings":[' * n,
        lambda n: b"[1," * n,
        lambda n: b'url\n"' + b'""' * n,
        lambda n: b"a\n" * n,
    ],
)
def test_time_is_linear_in_what_is_read(make: Any) -> None:
    def seconds(size: int) -> float:
        began = time.process_time()
        try:
            for _ in read_entries(NAME, io.BytesIO(make(size))):
                pass
        except UnreadableManifestError:
            pass
        return time.process_time() - began

    small = max(0.002, min(seconds(10_000) for _ in range(2)))
    assert seconds(100_000) < 40 * small


# --- what is no manifest --------------------------------------------------------------------------

EGRESS = {"egress_id": "EG_x", "room_id": "RM_x", "room_name": "r", "started_at": "1", "files": []}
UNKNOWN = {
    "another vendor's manifest": (json.dumps(EGRESS), "value 1: an object with the keys egress_id"),
    "the same, indented": (json.dumps(EGRESS, indent=2), "value 1: an object with the keys egress"),
    "an error of the API": (
        '{"code": 16, "message": "x"}',
        "value 1: an object with the keys code",
    ),
    "HTML": ("<!DOCTYPE html>\n<html>", "line 1: '<!DOCTYPE html>' is neither a link"),
    "another table": ("id,link\n1,https://h/a\n", "line 1: 'id,link' is neither a link"),
    "GeoJSON": ('{"type": "FeatureCollection", "features": []}', "an object with the keys type"),
    "numbers": ("[1, 2]", "[0]: a number, expected an object"),
    "an archive": (gzip.compress(bytes(512) + b"x\n" * 99, mtime=0), "line 1: "),
    "UTF-16": ("url\n".encode("utf-16"), "its text: UTF-16, expected UTF-8"),
    "garbage": (b"\xff\xfe\xfa" * 9, "UTF-16"),
    "a secret": (f"api_secret={SIGNATURE}", "line 1: 'api_secret=[hidden]' is neither"),
    "half a link": (f"see https://h/a?X-Amz-Signature={SIGNATURE}", "'see https://h/a[hidden]'"),
    "only a signature": (SIGNATURE, "line 1: '[hidden]' is neither a link"),
    "a key of a signature": (json.dumps({SIGNATURE: 1}), "an object with the keys [hidden]"),
    "long": ("word " * 90_000, "'word word"),
}


@pytest.mark.parametrize(("content", "first"), UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_shape_is_one_line_with_the_shapes_read(content: str | bytes, first: str) -> None:
    data = content.encode() if isinstance(content, str) else content

    with pytest.raises(UnreadableManifestError) as told:
        list(read_entries(NAME, io.BytesIO(data)))

    message = str(told.value)
    assert message.startswith(f"{NAME}: a manifest of no known shape, ")
    assert first in message
    for shape in ("list of recordings", "call.recording_ready", "CSV", "links and URIs one a line"):
        assert shape in message
    assert message.isprintable()
    assert len(message) < 500
    assert SIGNATURE not in message
    if len(data) < bounds.BEGINNING_BYTES:
        with pytest.raises(ConfigError) as before:
            tell_shape(NAME, data)
        assert str(before.value) == message


def test_name_of_a_manifest_is_told_without_its_signature() -> None:
    with pytest.raises(ConfigError) as told:
        tell_shape(f"https://h/m?sig={SIGNATURE}", b"nothing")
    assert str(told.value).startswith("https://h/m: ")
    with pytest.raises(ConfigError, match=r"^standard input: a manifest of no known shape"):
        tell_shape("standard input", b"nothing")
    (entry,) = read_entries(f"https://u:{SIGNATURE}@h/m", io.BytesIO(b"file://nas/a"))
    assert isinstance(entry, BadEntry)
    assert entry.manifest == "https://h/m"


def test_beginning_that_was_cut_anywhere_is_of_the_shape_of_the_whole() -> None:
    contents = [
        json.dumps(listing(*map(recording, "abc" * 60))).encode(),
        json.dumps(listing(*map(recording, "abc" * 60)), indent=2).encode(),
        lines(*map(event, "abc" * 60)).encode(),
        "".join(f"{link_to(name)}\n" for name in "abc" * 200).encode(),
        lines(*[packed(event("a"))] * 200).replace('"', "").encode(),
    ]
    for content in contents:
        assert len(content * 2) > bounds.BEGINNING_BYTES
        for mark in (b"", b"\xef\xbb\xbf"):
            tell_shape(NAME, (mark + content * 2)[: bounds.BEGINNING_BYTES])
