"""Links on the command line: read where archives are, refused where something is to be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import SAMPLE, callpress
from tests.support.tls_site import Page, Site, signed
from transforms.storage import storage_options
from transforms.storage.storage_options import StorageOptions

SECRET = "Planted7Signature0f9e8d7c"


@pytest.mark.parametrize("flags", [(), ("--clock",)], ids=["plain", "clock"])
def test_archive_behind_a_signed_link_is_inspected(tls_site: Site, flags: tuple[str, ...]) -> None:
    storage_options.use(StorageOptions())  # that it is named allows the address
    link = tls_site.put("/raw/a.tar.gz", SAMPLE.read_bytes())
    opened = signed(link, SECRET, "20260105T100000Z", 3_600)

    done = callpress("inspect", "--json", *flags, opened)

    (found,) = json.loads(done.out)["archives"]
    assert done.status == 0
    assert found["uri"] == link
    assert found["error"] is None
    assert len(found["sessions"]) == len(
        json.loads(callpress("inspect", "--json", SAMPLE).out)["archives"][0]["sessions"]
    )
    assert SECRET in tls_site.requests[-1].query
    assert SECRET not in done.out + done.err
    assert tls_site.ranges() == ["bytes=0-0", "bytes=0-"]


@pytest.mark.parametrize("command", ["inspect", "list-tracks"])
def test_link_that_opens_nothing_costs_no_neighbour(command: str, tls_site: Site) -> None:
    link = tls_site.put("/raw/a.tar.gz", Page(status=403))
    opened = signed(link, SECRET, "20260105T100000Z", 3_600)
    flag = () if command == "inspect" else ("--input-file",)

    done = callpress(command, *flag, opened, *flag, SAMPLE)

    assert done.status == 1
    assert done.err.startswith(f"callpress: {link}: its link expired at ")
    assert done.err.count("\n") == 1
    assert "sess-dave-1" in done.out
    assert SECRET not in done.out + done.err


def test_link_that_has_expired_is_one_line(tls_site: Site) -> None:
    link = tls_site.put("/raw/a.tar.gz", Page(status=403))

    done = callpress("inspect", signed(link, SECRET, "20260105T100000Z", 3_600))

    assert done.status == 1
    assert done.err == (
        f"callpress: {link}: its link expired at 2026-01-05T11:00:00Z: HTTP status 403\n"
    )


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--output", "https:// is read only, expected a path or a place in a store"),
        ("--catalog", "https:// is read only, expected a path or a place in a store"),
        ("--temp_location", "https:// is read only, expected a path or a place in a store"),
        ("--summary-json", "https:// is read only"),
        ("--log-file", "expected a file of this machine"),
    ],
)
def test_nothing_is_written_behind_a_link(tmp_path: Path, flag: str, told: str) -> None:
    places = {"--output": str(tmp_path / "out"), flag: f"https://me:{SECRET}@Host/x?sig={SECRET}"}

    done = callpress("run", "--input", SAMPLE, *(part for item in places.items() for part in item))

    assert done.status == 2
    assert done.err == f"callpress: {flag} https://host/x: {told}\n"
    assert list(tmp_path.iterdir()) == []
