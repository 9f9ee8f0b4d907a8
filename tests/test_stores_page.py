"""docs/stores.md: its tables are those of the code, its examples are read by it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.job_profile import load_profile
from pipelines.options import RunArguments, parse_arguments
from tests.support.command import ROOT
from transforms.media import errors
from transforms.storage import secrets
from transforms.storage.storage_options import ALL_KEYS, SECRET_KEYS, StoreAccount

PAGE = (ROOT / "docs" / "stores.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def _section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def _rows(text: str) -> list[list[str]]:
    """Returns the rows of the tables in a text whose first cell is code."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]


def test_keys_of_the_table_are_those_of_the_code() -> None:
    rows = {row[0].strip("`"): row for row in _rows(_section("Two accounts, other endpoints"))}

    assert tuple(rows) == ALL_KEYS
    for key, (_, schemes, what) in rows.items():
        assert what.startswith("a reference") == (key in SECRET_KEYS), key
        for scheme in ("s3", "azfs"):
            value = "env:X" if key in SECRET_KEYS else "https://h"
            others = {"access_key_id": "env:X", "secret_access_key": "env:X"}
            beside = others if key in others or key == "session_token" else {}
            keys: dict[str, Any] = {**beside, key: True if key == "path_style" else value}
            if f"`{scheme}://`" in schemes:
                assert StoreAccount(place=f"{scheme}://a/b", **keys)
            else:
                with pytest.raises(ValueError, match=f"is none of {scheme}://"):
                    StoreAccount(place=f"{scheme}://a/b", **keys)


def test_references_of_the_page_are_references() -> None:
    rows = _rows(_section("Secrets are named, not spelled out"))

    assert [row[0].strip("`") for row in rows] == secrets.EXPECTED.replace(" or", ",").split(", ")
    for row in rows:
        assert secrets.is_reference(row[0].strip("`").replace("PROJECT", "p").replace("/N", "/1"))


def test_example_and_that_of_the_default_profile_are_read(tmp_path: Path) -> None:
    (example,) = _blocks("toml")
    default = (ROOT / "configs" / "default.toml").read_text(encoding="utf-8")
    commented = default[default.index("# [stores.") :].replace("\n# ", "\n").removeprefix("# ")
    for text in (example, commented):
        path = tmp_path / "my.toml"
        path.write_text(text)
        settings, accounts, *_ = load_profile(str(path))

        assert settings == load_profile(None).settings
        assert len(accounts) >= 2


def test_policies_name_what_is_needed_and_no_more() -> None:
    actions = []
    for policy in map(json.loads, _blocks("json")):
        on_bucket, on_objects = policy["Statement"]
        assert on_objects["Resource"] == on_bucket["Resource"] + "/*"
        assert on_bucket["Action"] == ["s3:ListBucket"]
        actions.append(set(on_objects["Action"]))

    reading, writing = actions
    assert reading == {"s3:GetObject"}
    assert writing - reading == {"s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}


def test_command_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = _blocks("sh")
    words = [word.strip("'") for word in command.replace("\\\n", " ").split()]

    arguments = parse_arguments(words[1:])

    assert isinstance(arguments, RunArguments)
    assert (arguments.output, arguments.config) == ("s3://locked-results", "my.toml")


def test_names_on_the_page_are_there() -> None:
    assert issubclass(errors.RetainedFileError, errors.RecordingError)
    assert "`RetainedFileError`" in PAGE
    for link in re.findall(r"\]\(([a-z]+\.md)?#([a-z0-9-]+)\)", PAGE):
        page = PAGE if not link[0] else (ROOT / "docs" / link[0]).read_text(encoding="utf-8")
        titles = {
            re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
        }
        assert link[1] in titles, link


def test_variables_on_the_page_are_read() -> None:
    read = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "transforms" / "storage").glob("*.py")
    )
    of_library = {"AWS_SESSION_TOKEN"}  # obstore reads it beside the key
    named = set(re.findall(r"`((?:AWS|AZURE)_[A-Z0-9_]+)`", PAGE)) - of_library

    assert len(named) > 10
    assert not [name for name in sorted(named) if f'"{name}"' not in read]
