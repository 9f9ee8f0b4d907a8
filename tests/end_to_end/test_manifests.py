"""Runs over manifests: what signed links lead to is pressed once and found again without a request,
and no signature stays anywhere.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
from tests.support.command import Finished, callpress, query
from tests.support.processes import free_port
from tests.support.stream_sdk import importable_sdk
from tests.support.tls_site import Exchange, Page, Site, running_site, signed
from transforms.catalog.schema import TABLES
from transforms.sources.manifests import stream_api

PLANTED = "PLANTEDSIGNATURE"
END_NS = 1_767_607_200_000_000_000
"""2026-01-05T10:00:00Z."""
LONG_AGO, TODAY = "20200101T000000Z", "29990101T000000Z"


@pytest.fixture(scope="module")
def _site() -> Iterator[Site]:
    with running_site(None) as site:
        yield site


@pytest.fixture
def site(_site: Site) -> Site:
    _site.clear()
    return _site


def archive(call_id: str, name: str = "alice", start_ms: int = 0) -> bytes:
    """Returns the archive of a call in which one participant speaks for a fifth of a second."""
    segment = Segment(
        packets=encode_opus(tone(300, 0.2)), ssrc=300, base_filename=name, start_ms=start_ms
    )
    return make_call_archive(
        [Participant(participant_id=name, segments=[segment])],
        call_id=call_id,
        call_session_id=f"session-{call_id}",
    )


def sign(link: str, signed_at: str = TODAY, signature: str = PLANTED) -> str:
    return signed(link, signature, signed_at, 3_600)


def listing(*recordings: dict[str, Any]) -> str:
    """Returns the vendor's answer."""
    return json.dumps({"duration": "1ms", "recordings": recordings})


def recording(url: str, kind: str = "raw", **fields: Any) -> dict[str, Any]:
    return {
        "filename": url.rsplit("/", 1)[-1].partition("?")[0],
        "url": url,
        "start_time": END_NS - 10**9,
        "end_time": END_NS,
        "session_id": "session",
        "recording_type": kind,
        **fields,
    }


def run(output: Path, *flags: object) -> Finished:
    return callpress("run", "--output", output, "--allow-private-addresses", *flags)


def requests(site: Site) -> dict[str, int]:
    """Returns how often each path was asked for since the last call."""
    found: dict[str, int] = {}
    for request in site.requests:
        found[request.path] = found.get(request.path, 0) + 1
    site.requests.clear()
    return found


def statuses(output: Path) -> dict[str, str]:
    return {
        row["archive_uri"].rsplit("/", 1)[-1]: row["status"]
        for row in query(output / "catalog", "archives")
    }


def everything(output: Path, done: Sequence[Finished]) -> str:
    """Returns all that runs left: rows, files and their names, and what they said."""
    rows = [str(query(output / "catalog", table)) for table in TABLES]
    files = [path for path in output.rglob("*") if path.is_file()]
    texts = [path.read_bytes().decode("latin-1") for path in files]
    said = [each.out + each.err for each in done]
    return "\n".join([*rows, *map(str, files), *texts, *said])


def test_listing_is_pressed_once_and_found_again_by_host_and_path(
    tls_site: Site, tmp_path: Path
) -> None:
    site, out, names = tls_site, tmp_path / "out", ("one", "two")
    links = {name: site.put(f"/raw/{name}.tar.gz", archive(name)) for name in names}
    links["late"] = site.put("/raw/late.tar.gz", Page(status=403, data=b"<Error/>"))
    links["bad"] = site.put("/raw/bad.tar.gz", b"no archive at all")
    manifest, log = tmp_path / "listing.json", tmp_path / "log"

    def list_all(signature: str) -> None:
        found = [recording(sign(links[name], signature=signature)) for name in (*names, "bad")]
        expired = recording(sign(links["late"], LONG_AGO, signature))
        mixes = [recording(sign(links["one"] + ".mp4"), "composite"), recording("", "individual")]
        manifest.write_text(listing(*found, expired, *mixes, {"recording_type": "raw"}))

    list_all(PLANTED)
    first = run(out, "--manifest", manifest, "--log-file", log, "--summary-json", tmp_path / "s")

    assert first.status == 1  # three of five failed
    assert "5 listed, 2 ok, 3 failed" in first.out
    assert "passed over 1 composite recording and 1 individual recording of" in first.err
    assert f"  ArchiveError: {manifest}: recordings[6]: url is missing" in first.out
    assert statuses(out) == {
        "one.tar.gz": "ok", "two.tar.gz": "ok", "late.tar.gz": "failed", "bad.tar.gz": "failed",
    }  # fmt: skip
    told = {row["error_type"]: row for row in query(out / "catalog", "failures")}
    assert told["LinkExpiredError"]["archive_uri"] == links["late"]
    assert "expired at 2020-01-01T01:00:00Z" in told["LinkExpiredError"]["message"]
    of_manifest = [
        row for row in query(out / "catalog", "failures") if row["stage"] == "ReadManifests"
    ]
    assert [(row["archive_uri"], row["member"]) for row in of_manifest] == [
        (str(manifest), "recordings[6]")
    ]
    assert requests(site) == {f"/raw/{name}.tar.gz": 2 for name in links}
    assert all(request.method == "GET" for request in site.requests)

    site.pages["/raw/late.tar.gz"] = Page(data=archive("late"))
    for name in names:  # what they lead to is known: nobody asks
        site.pages[f"/raw/{name}.tar.gz"] = Page(status=403)
    list_all(PLANTED + "AGAIN")
    second = run(out, "--manifest", manifest, "--log-file", log)

    assert "2 skipped" in second.out
    assert requests(site) == {"/raw/late.tar.gz": 2, "/raw/bad.tar.gz": 2}
    assert statuses(out)["late.tar.gz"] == "ok"
    assert PLANTED not in everything(out, [first, second])
    assert PLANTED not in log.read_text() + (tmp_path / "s").read_text()
    assert len(query(out / "catalog", "recordings")) == 6


def test_standard_input_and_links_go_by_way_of_staging_which_is_empty_then(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    links = [site.put(f"/{name}.tar.gz", archive(name)) for name in ("one", "two")]
    _say(monkeypatch, f"{sign(links[0])}\n")

    done = run(out, "--manifest", "-", "--input", sign(links[1]))

    assert done.status == 0, done.err
    assert statuses(out) == {"one.tar.gz": "ok", "two.tar.gz": "ok"}
    assert not (out / ".staging").exists()
    assert PLANTED not in everything(out, [done])

    _say(monkeypatch, "")
    quiet = run(out, "--manifest", "-")

    assert quiet.status == 0
    assert "nothing new: the manifests name no recording that is wanted" in quiet.err
    assert not (out / ".staging").exists()


def _say(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_earlier_archive_is_recalled_by_the_newest_link(site: Site, tmp_path: Path) -> None:
    """In a later portion of its run, too, which does not read the manifest again."""
    out, manifest = tmp_path / "out", tmp_path / "links.txt"
    early = site.put("/early.tar.gz", archive("one"))
    manifest.write_text(sign(early, signature="old"))
    assert run(out, "--manifest", manifest).status == 0
    late = site.put("/late.tar.gz", archive("one", "bob", start_ms=5_000))
    site.pages["/early.tar.gz"].answers.append(_only_with("X-Amz-Signature=new"))
    newer = signed(early, "new", "29990102T000000Z", 3_600)
    before = site.put("/before.tar.gz", archive("two"))
    links = [newer, sign(early, signature="old"), sign(late), sign(before)]
    manifest.write_text("\n".join(links))
    requests(site)

    done = run(out, "--manifest", manifest, "--portion-archives", 1)

    assert done.status == 0, done.err
    assert "portion 1 of 2 is published" in done.err
    assert "1 skipped, 2 ok" in done.out
    names = ("early", "late", "before")
    assert requests(site) == {f"/{name}.tar.gz": 2 for name in names}
    (call,) = (row for row in query(out / "catalog", "calls") if row["call_id"] == "one")
    assert (call["participant_count"], sorted(call["archive_uris"])) == (2, sorted([early, late]))


def test_manifest_that_cannot_be_read_ends_each_run_with_1(
    tls_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the second night that the vendor's API is down: what it names may be lost by then."""
    named = tmp_path / "list.json"
    named.write_text(listing(recording(sign(tls_site.put("/a", archive("a"))))))
    for name, value in {
        "STREAM_API_KEY": "k",
        "STREAM_API_SECRET": "s" * 32,
        "STREAM_BASE_URL": f"http://127.0.0.1:{free_port()}",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stream_api, "_BACK_OFF", lambda _: 0)

    with importable_sdk():
        first, second = (
            run(tmp_path / "out", "--manifest", named, "--manifest", "stream:default:b")
            for _ in range(2)
        )

    assert statuses(tmp_path / "out") == {"a": "ok"}
    for done in (first, second):
        assert done.status == 1
        assert "1 manifest could not be read, or not to the end" in done.err
        assert "  StorageError: stream:default:b: the vendor's API" in done.out


def _only_with(query_part: str) -> Callable[[Exchange], None]:
    def answer(exchange: Exchange) -> None:
        if query_part in exchange.path:
            exchange.give_page()
        else:
            exchange.give(403, b"")

    return answer


def test_copy_is_read_when_the_archive_is_gone_and_is_no_archive_itself(
    site: Site, tmp_path: Path
) -> None:
    out, copies, manifest = tmp_path / "out", tmp_path / "copies", tmp_path / "links.txt"
    data = archive("one")
    early = site.put("/early.tar.gz", data)
    manifest.write_text(sign(early))
    first = run(out, "--manifest", manifest, "--copy-raw", copies)

    assert first.status == 0, first.err
    (copy,) = [path for path in copies.rglob("*") if path.is_file()]
    assert copy.read_bytes() == data
    assert copy.parent.name == "2026-01-05"
    assert copy.name.endswith("-early.tar.gz")
    (row,) = query(out / "catalog", "archives")
    assert (row["archive_uri"], row["copy_uri"]) == (early, str(copy))
    assert requests(site) == {"/early.tar.gz": 2}  # it is looked at, and read once

    del site.pages["/early.tar.gz"]
    late = site.put("/late.tar.gz", archive("one", "bob", start_ms=5_000))
    manifest.write_text("\n".join([sign(early, LONG_AGO), sign(late)]))
    second = run(out, "--manifest", manifest, "--input", copies / "**", "--overwrite")

    assert second.status == 0, second.err
    assert "2 listed, 2 ok" in second.out
    assert "left out 1 files below --input that Callpress itself made" in second.err
    assert requests(site) == {"/late.tar.gz": 2}
    (call,) = query(out / "catalog", "calls")
    assert call["participant_count"] == 2
    assert {r["archive_uri"]: r["copy_uri"] for r in query(out / "catalog", "archives")} == {
        early: str(copy),
        late: None,
    }
    assert PLANTED not in everything(tmp_path / "out", [first, second])


def test_dry_run_reads_manifests_and_asks_no_link(site: Site, tmp_path: Path) -> None:
    manifest = tmp_path / "links.txt"
    manifest.write_text(sign(site.put("/one.tar.gz", b"")))

    done = run(tmp_path / "out", "--manifest", manifest, "--dry-run")

    assert done.status == 0, done.err
    assert f"press\tnew\t0\t{site.link('/one.tar.gz')}" in done.out
    assert "no store was asked" in done.out
    assert not site.requests
    assert PLANTED not in done.out + done.err


def test_dry_run_counts_what_cannot_be_read_as_no_archive(tmp_path: Path) -> None:
    manifest = tmp_path / "list.json"
    manifest.write_text(json.dumps({"recordings": [{"recording_type": "raw"}]}))

    done = run(tmp_path / "out", "--manifest", manifest, "--dry-run")

    assert done.status == 0, done.err
    assert "fail\trecordings[0]: url is missing" in done.out
    assert f"\t{manifest}\n" in done.out
    assert "would press 0 of 0 archives, 0 bytes, and skip 0, 0 bytes" in done.out
    assert "1 entry of manifests cannot be read" in done.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--manifest", "TMP/song.mp3"], "song.mp3: a manifest of no known shape"),
        (["--manifest", "TMP/nowhere.json"], "nowhere.json: No such file or directory"),
        (["--manifest", "-", "--manifest", "-"], "--manifest -: given twice"),
        (["--input", "https://user@/x"], "--input https://"),
        (["--input", "TMP/*", "--copy-raw", "TMP/out/raw"], "--copy-raw TMP/out/raw: lies in"),
        (["--input", "TMP/raw/*", "--copy-raw", "TMP/raw"], "lie there themselves"),
        (["--input", "TMP/raw/a/*", "--copy-raw", "TMP/raw"], "lie there themselves"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(
    flags: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "song.mp3").write_bytes(b"ID3\x04\x00" + bytes(5_000))

    done = callpress(
        "run", "--output", tmp_path / "out", *(each.replace("TMP", str(tmp_path)) for each in flags)
    )

    assert done.status == 2, done.err
    assert message.replace("TMP", str(tmp_path)) in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
