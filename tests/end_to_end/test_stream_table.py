"""How a job profile says how the vendor's API is asked: its table, and where its secrets are."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pipelines.accounts import accounts_of, check_secrets_reach_workers
from pipelines.job_profile import load_profile
from transforms.media.errors import ConfigError
from transforms.storage import storage_options
from transforms.storage.storage_options import StorageOptions, StreamAccount


def profile(folder: Path, table: str) -> StreamAccount:
    path = folder / "job.toml"
    path.write_text(table, encoding="utf-8")
    return load_profile(str(path)).stream


def test_table_names_key_secret_and_address(tmp_path: Path) -> None:
    table = '[stream]\napi_key = "env:K"\napi_secret = "file:/run/s"\nbase_url = "https://h/x"\n'

    assert profile(tmp_path, table) == StreamAccount(
        api_key="env:K", api_secret="file:/run/s", base_url="https://h/x"
    )
    assert profile(tmp_path, "") == load_profile(None).stream == StreamAccount()
    assert StreamAccount().references == ("env:STREAM_API_KEY", "env:STREAM_API_SECRET")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('stream = "planted"', "stream: expected a table, [stream]"),
        ('[stream]\nsecret = "planted"', "unknown key secret, did you mean api_secret?"),
        ('[stream]\napi_secret = "planted"', "api_secret is to be named, not spelled out"),
        ('[stream]\napi_key = ""', "stream: api_key: expected text"),
        ("[stream]\napi_key = 4", "stream: api_key: expected text"),
        ('[stream]\nbase_url = "http://planted.example"', "base_url is no address"),
        ('[stream]\nbase_url = "https://u:planted@h"', "base_url is no address"),
    ],
)
def test_table_that_cannot_be_is_told_without_its_values(
    table: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as told:
        profile(tmp_path, table)
    assert message in str(told.value)
    assert "planted" not in str(told.value)


def test_secrets_of_the_api_count_only_where_it_is_asked() -> None:
    ways = {"has_workers_here": False, "secrets_in_image": False}

    check_secrets_reach_workers(accounts_of(["gs://b/m.jsonl"]), **ways)
    with pytest.raises(ConfigError, match=r"^\[stream\]: env:STREAM_API_KEY is on this machine"):
        check_secrets_reach_workers(accounts_of(["gs://b/m", "stream:since=36h"]), **ways)


def test_secret_of_the_api_that_is_not_there_is_told_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = StreamAccount(api_key="env:TEST_NO_STREAM_KEY")
    monkeypatch.setattr(storage_options, "_options", StorageOptions(stream=account))
    ways = {"has_workers_here": True, "secrets_in_image": False}

    check_secrets_reach_workers(accounts_of(["gs://b/m"]), **ways)
    with pytest.raises(ConfigError, match="env:TEST_NO_STREAM_KEY: the environment of this"):
        check_secrets_reach_workers(accounts_of(["stream:since=36h"]), **ways)


def test_account_reaches_the_workers_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = StorageOptions(stream=StreamAccount(api_key="env:K"))
    monkeypatch.setattr(storage_options, "_options", StorageOptions())

    assert pickle.loads(pickle.dumps(sent)) == sent
    assert storage_options.current() == sent
