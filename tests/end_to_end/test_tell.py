"""`callpress tell`: sends what is pending, under the catalog's lock, and says what became of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import locks
from tests.support.command import Finished, callpress
from tests.support.made_files import NAMES, make_catalog, notices
from tests.support.receiver import Receiver
from tests.support.tls_site import Site
from transforms.locking import lock


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
        (["--notify", "CATALOG/../recordings/told"], "/recordings, which has nothing else in it"),
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


def _tell(catalog: Path, *flags: object) -> Finished:
    return callpress("tell", "--catalog", catalog, *flags)


def _lines(folder: Path) -> list[str]:
    found = "".join(path.read_text() for path in sorted(folder.iterdir()))
    return [json.loads(line)["call_recording"]["filename"] for line in found.splitlines()]


def test_what_is_pending_is_sent_once_and_marked(catalog: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    done = _tell(catalog, "--notify", told)
    assert (done.status, done.out) == (0, f"callpress: notices for {told}: none\n")

    done = _tell(catalog, "--notify", told, "--since", "2026-01-07T02:00:00Z")
    assert (done.status, done.out) == (0, f"callpress: notices for {told}: 3 delivered\n"), done.err
    assert sorted(_lines(told)) == sorted(NAMES)
    assert {(row["state"], row["attempts"]) for row in notices(catalog)} == {("delivered", 1)}

    assert _tell(catalog, "--notify", told, "--since", "9999d").status == 0
    assert len(_lines(told)) == 3
    assert lock.look(str(catalog)) is None


def test_switching_a_target_on_tells_nothing_of_older_files(catalog: Path, tmp_path: Path) -> None:
    (one, two) = (tmp_path / "one", tmp_path / "two")
    _tell(catalog, "--notify", one, "--since", "9999d")
    assert _tell(catalog, "--notify", one, "--notify", two).status == 0
    assert list(two.iterdir()) == []
    _tell(catalog, "--notify", two, "--since", "2026-01-08", "--url-base", "https://cdn.test")
    assert _lines(two) == ["bob0.mkv"]
    (old,) = (row for row in notices(catalog) if row["target"] == str(two))
    assert old["body"] in "".join(path.read_text() for path in one.iterdir())


def test_what_stays_pending_or_fails_is_told_and_exits_with_1(
    catalog: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    (tmp_path / "recordings" / "a" / "b" / "c" / NAMES[1]).unlink()
    done = _tell(catalog, "--notify", told, "--since", "9999d")
    assert done.status == 1
    assert f"notices for {told}: 2 delivered, 1 pending (" in done.out
    assert f"{NAMES[1]} is not there" in done.out
    assert done.out.count("\n") == 1


@pytest.mark.parametrize("table", ["recordings", "notices"])
def test_what_cannot_be_read_is_one_line_and_exits_with_1(
    table: str, catalog: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    _tell(catalog, "--notify", told, "--since", "9999d")
    (path,) = (catalog / table).rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:100])
    done = _tell(catalog, "--notify", told, *(["--since", "9999d"] * (table == "recordings")))
    assert (done.status, f"{done.out}{done.err}".count("\n")) == (1, 1)
    assert f"{path}: not a Parquet file" in done.out + done.err
    assert len(_lines(told)) == 3


def test_profile_says_who_is_told(catalog: Path, tmp_path: Path) -> None:
    profile = tmp_path / "job.toml"
    profile.write_text(
        f'[notify]\nurl_base = "https://cdn.test"\nbudget = "0s"  # of runs: all is left to tell\n'
        f'[notify.targets.lake]\nto = "{tmp_path}/lake"\n'
    )
    done = _tell(catalog, "--config", profile, "--since", "9999d", "--notify", tmp_path / "two")
    assert done.status == 0, done.err
    assert done.out.splitlines() == [
        "callpress: notices for lake: 3 delivered",
        f"callpress: notices for {tmp_path}/two: 3 delivered",
    ]
    assert "https://cdn.test/recordings/" in next((tmp_path / "lake").iterdir()).read_text()


def test_endpoint_is_told_and_what_is_planted_in_its_url_comes_out_nowhere(
    catalog: Path, tmp_path: Path, tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver(tls_site)
    monkeypatch.setenv("TEST_SECRET", "s3cret")
    profile = tmp_path / "job.toml"
    profile.write_text('[notify]\nsecret = "env:TEST_SECRET"\n')
    url = f"{receiver.url}?token=planted"
    done = _tell(catalog, "--config", profile, "--notify", url, "--since", "9999d")

    assert done.status == 0, done.err + done.out
    assert done.out == f"callpress: notices for {receiver.url}: 3 delivered\n"
    assert {request.query for request in tls_site.requests} == {"token=planted"}
    assert all("x-signature" in request.headers for request in tls_site.requests)
    assert {row["target"] for row in notices(catalog)} == {receiver.url}
    assert "planted" not in f"{done.out}{done.err}{notices(catalog)}"


def test_endpoint_that_cannot_be_reached_now_leaves_all_pending(
    catalog: Path, tmp_path: Path, tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver(tls_site)
    monkeypatch.delenv("SSL_CERT_FILE")
    done = _tell(catalog, "--notify", receiver.url, "--since", "9999d")
    assert (done.status, done.err) == (1, "")
    assert done.out.startswith(f"callpress: notices for {receiver.url}: 3 pending (")
    assert "its certificate is not accepted" in done.out
    assert {(row["state"], row["attempts"]) for row in notices(catalog)} <= {
        ("pending", 0),
        ("pending", 1),
    }
    assert not tls_site.requests
