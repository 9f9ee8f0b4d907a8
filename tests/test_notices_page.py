"""docs/notices.md: its profile is read, its lines verify what is signed, its tables are true."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from pathlib import Path

import duckdb
import pytest

from pipelines import targets
from pipelines.job_profile import load_profile
from tests.support.beam import recording_row
from tests.support.command import ROOT
from transforms.notices import signatures
from transforms.notices.events import MOST_BYTES, ready_event
from transforms.notices.sender import NoticeState
from transforms.targets import TargetKind

PAGE = (ROOT / "docs" / "notices.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def _section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def _named(text: str) -> list[str]:
    """Returns what is spelled as code in the first cells of the tables of a text."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall("`([^`]*)`", cell)]


def test_profile_of_the_page_is_read(tmp_path: Path) -> None:
    (text,) = _blocks("toml")
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    table = load_profile(str(path)).notify

    assert [target.name for target in table.targets] == ["crm", "chat", "bus", "lake"]
    assert {target.kind for target in table.targets} == set(TargetKind)
    crm, chat = table.targets[:2]
    assert len(crm.webhook_keys) == 2
    assert (chat.at_a_time, chat.secret) == (2, "env:STREAM_API_SECRET")


@pytest.mark.parametrize("text", _named(_section("Targets")))
def test_targets_of_the_page_are_targets(text: str) -> None:
    targets.parse_target(text.replace("...", "bucket/told").replace("/P/", "/p/").replace(
        "projects/PROJECT", "projects/project").replace("versions/V", "versions/1"))  # fmt: skip


def test_states_and_headers_are_those_of_the_code() -> None:
    assert _named(_section("In which order, and how often")) == [str(each) for each in NoticeState]
    sent = signatures.headers(b"", "id", 1, 0, secret="s", api_key="k", webhook_keys=[b"k"])
    assert set(_named(_section("Is it really from us\\?"))) == sent.keys() - {"Content-Type"}


def test_event_of_the_page_is_as_events_are() -> None:
    shown = json.loads(_blocks("json")[0])
    beside = {
        "filename": "a.mp3",
        "sha256": "0" * 64,
        "size_bytes": 1,
        "offset_ms": 0,
        "duration_ms": 1,
    }
    row = {**recording_row(None, "/out/recordings/a/b/c/d"), **beside}
    made = json.loads(ready_event(row, {}, None, "url").body)

    assert list(shown) == list(made)
    for within in ("call_recording", "callpress"):
        assert list(shown[within]) == list(made[within])
    assert f"{MOST_BYTES:,} bytes" in PAGE


def test_lines_of_the_page_verify_what_is_signed(tmp_path: Path) -> None:
    body, key = '{"a":"ü"}\n'.encode(), bytes(range(32))
    (tmp_path / "body.json").write_bytes(body)
    sent = signatures.headers(
        body, "id-1", 1, 1_767_751_200, secret="s3cret", api_key="", webhook_keys=[key]
    )
    (lines,) = (block for block in _blocks("sh") if "openssl dgst" in block)
    done = subprocess.run(
        ["bash", "-euc", lines],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "SECRET": "s3cret",
            "WEBHOOK_KEY": f"whsec_{base64.b64encode(key).decode()}",
            "WEBHOOK_ID": sent["webhook-id"],
            "WEBHOOK_TIMESTAMP": sent["webhook-timestamp"],
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        sent["X-SIGNATURE"],
        sent["webhook-signature"].removeprefix("v1,"),
    ]


def test_query_of_the_page_reads_lines(tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.mkdir()
    event = json.dumps(json.loads(_blocks("json")[0]))
    (told / "a.jsonl").write_text(f"{event}\n{event}\n")
    (query,) = _blocks("sql")
    found = duckdb.connect().execute(query.replace("told/", f"{told}/")).fetchall()
    assert [(row[0], row[2]) for row in found] == [("default:weekly-sync", 43953)] * 2
