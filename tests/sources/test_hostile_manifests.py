"""Any bytes as a manifest: nothing undeclared is raised, and no signature comes out as text."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.vendor import (
    SIGNATURE,
    event,
    link_to,
    listing,
    notification,
    other_event,
    packed,
    received,
    recording,
)
from transforms.media.errors import ConfigError, UnreadableManifestError
from transforms.sources.manifests import bounds
from transforms.sources.manifests.entry import BadEntry, ManifestEntry
from transforms.sources.manifests.read_entries import read_entries, tell_shape

_NAME = f"https://host/manifest?X-Amz-Signature={SIGNATURE}"
_NAMED = f"X-Amz-Signature={SIGNATURE}"
_SEEDS = [
    json.dumps(listing(recording("a"), recording("b", recording_type="composite"))),
    json.dumps(listing(recording("a")), indent=2),
    "\n".join(map(json.dumps, [event("a"), other_event(), event("b"), recording("c")])),
    f"{packed(event('a'))}\n{packed(notification(json.dumps(event('b'))))}\n",
    json.dumps(received(json.dumps(event("a")), packed(event("b"))), indent=1),
    f'url;end_time\r\n{link_to("a")};1778202000\r\n"{link_to("b")}";\r\n',
    f"# links\n{link_to('a')}\n/data/a\ngs://bucket/a\nfile://host/a?{SIGNATURE}\n",
    f"see {link_to('a')}\nsig={SIGNATURE}\n{{'{SIGNATURE}': 1}}\n",
]
_PIECES = [
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *(b"NaN", b"-1e999", b"9" * 400, b"null", b"true", b"\\ud800", b"\\u0000", b"H4sI", b"#", b";"),
    *(
        b'"recordings": [',
        b'"Messages":[',
        b'"url": ',
        b"url,",
        b"https://",
        b"file://",
        b"?",
        b"%3F",
    ),
    *(b"\xc2\x85", "\u2028\u202e".encode(), b" " * 70, b"[" * 1_100, b"\x1f\x8b\x08", b"\t"),
    SIGNATURE.encode(),
    link_to("x").encode(),
]


@st.composite
def _manifests(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(_SEEDS)).encode()
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 0, 1, 2, 7, 60, 400])))
        data = data[:start] + draw(st.sampled_from(_PIECES) | st.binary(max_size=6)) + data[stop:]
    how = draw(st.sampled_from(["", "", "", "gzip", "cut", "base64"]))
    if how == "base64":
        return base64.b64encode(gzip.compress(data, mtime=0))
    packed_data = gzip.compress(data, mtime=0) if how else data
    return packed_data[: -draw(st.integers(1, 40))] if how == "cut" else packed_data


def _told(data: bytes) -> list[str]:
    """Returns all text that comes of a manifest."""
    told = []
    try:
        tell_shape(_NAME, data[: bounds.BEGINNING_BYTES])
    except ConfigError as error:
        told.append(str(error))
    found: list[Any] = []
    try:
        for each in read_entries(_NAME, io.BytesIO(data)):
            found.append(each)
    except UnreadableManifestError as error:
        told.append(error.message)
    assert not (found and told), "what is of no shape has entries"
    for each in found:
        if isinstance(each, ManifestEntry):
            # A name or id may be any text, also one like this; but no link is taken for one.
            told.append(each.uri.replace(SIGNATURE, "") if _NAMED not in each.uri else each.uri)
            without = dataclasses.replace(each, uri="", call_cid="", call_session_id="")
            told.append(repr(without))
        if isinstance(each, BadEntry):
            told += [each.manifest, each.position, each.why]
            assert f"{each.position}{each.why}".isprintable()
            assert len(each.why) < 400
    return told


@settings(max_examples=120, deadline=None)
@given(_manifests())
def test_damaged_manifest_raises_nothing_undeclared_and_tells_no_signature(data: bytes) -> None:
    for text in _told(data):
        assert SIGNATURE[:20] not in text


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_raise_nothing_undeclared(data: bytes) -> None:
    _told(data)
    _told(gzip.compress(b"\n" + data, mtime=0))


@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from(_SEEDS[:5]))
def test_entries_are_the_same_however_a_file_gives_its_bytes(
    data: st.DataObject, seed: str
) -> None:
    content = seed.encode()
    rest = io.BytesIO(content)

    class Pieces(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return rest.read(data.draw(st.integers(1, 200)))

    split = list(read_entries(_NAME, Pieces()))  # type: ignore[arg-type]
    assert split == list(read_entries(_NAME, io.BytesIO(content)))
    assert any(isinstance(each, ManifestEntry) for each in split)
