"""`callpress tell`: sends what is pending, under the catalog's lock, and says what became of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import locks
from tests.support.command import callpress
from tests.support.made_files import make_catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """The catalog of a run that told nobody."""
    return make_catalog(tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nobody is to be told, expected --notify TARGET, or --config with a profile"),
        (["--notify", "sqs:queue"], "--notify sqs:queue: is no target"),
        (["--notify", "CATALOG/notices"], "lies in CATALOG/notices, which has nothing else in it"),
        (["--notify", "env:TEST_NO_HOOK"], "env:TEST_NO_HOOK: the environment of this process"),
        (["--notify", "./a", "--since", "soon"], "--since soon: expected a date such as"),
        (["--notify", "./a", "--url-base", "cdn"], "--url-base cdn: expected https://HOST"),
        (["--notify", ""], "--notify '' names nothing"),
        (["--notify", "./a", "--catalog", "https://h/c"], "--catalog: given twice"),
    ],
)
def test_wrong_usage_is_one_line(flags: list[str], message: str, catalog: Path) -> None:
    flags = [flag.replace("CATALOG", str(catalog)) for flag in flags]
    done = callpress("tell", "--catalog", catalog, *flags)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert message.replace("CATALOG", str(catalog)) in done.err


def test_a_catalog_is_needed_and_to_be_there(tmp_path: Path) -> None:
    assert callpress("tell", "--notify", tmp_path).err.startswith(
        "callpress: --catalog is required"
    )
    done = callpress("tell", "--catalog", tmp_path / "none", "--notify", tmp_path / "told")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "there is no catalog" in done.err
    assert not (tmp_path / "told").exists()


def test_nobody_is_told_while_a_run_is_at_work(catalog: Path, tmp_path: Path) -> None:
    locks.acquire(catalog, "run-1")
    done = callpress(
        "tell", "--catalog", catalog, "--notify", tmp_path / "told", "--since", "9999d"
    )
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "run-1" in done.err
    assert not list((tmp_path / "told").iterdir())
