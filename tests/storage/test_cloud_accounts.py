"""Where credentials of S3 and Azure come from, and that none of them are found out soon."""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.store_programs import moto_environment
from transforms.media.errors import ConfigError, StorageError
from transforms.sources import archive_files
from transforms.storage import objects, surroundings
from transforms.storage.aws_account import find_access as find_aws
from transforms.storage.azure_account import find_access as find_azure
from transforms.storage.s3 import S3Store
from transforms.storage.storage_options import StoreAccount

SECRET = "SECRET0123456789"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a machine of nobody's, without variables or files of a cloud."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "IDENTITY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(surroundings, "_SYSTEM_VENDOR", tmp_path / "sys_vendor")
    monkeypatch.setattr(surroundings, "_METADATA_SERVER", "127.0.0.1:1")


def _endpoint(place: str, account: StoreAccount | None = None) -> str:
    return S3Store().connect(place, account).endpoint


# --- AWS ------------------------------------------------------------------------------------------


def test_no_credentials_of_aws_is_one_line_soon() -> None:
    began = time.monotonic()

    with pytest.raises(ConfigError, match=r"^no AWS credentials: set AWS_ACCESS_KEY") as told:
        objects.find_credentials(("s3://bucket/raw/*",))

    assert "\n" not in str(told.value)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET},
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/x"},
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"},
        {"AWS_SKIP_SIGNATURE": "true"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_credentials_of_aws_are_found_in_the_environment(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    found = find_aws(None)

    assert found.provider is None
    assert found.skips_signature == ("AWS_SKIP_SIGNATURE" in variables)
    assert SECRET not in repr(S3Store().connect("s3://bucket", None))


@pytest.mark.parametrize("uri", ["s3://bucket/one.tar.gz", "azfs://account/box/one.tar.gz"])
def test_archive_that_a_manifest_names_without_credentials_fails_alone(uri: str) -> None:
    for read in (archive_files.look_at, objects.open_input):
        with pytest.raises(StorageError, match=rf"^{uri}: no (AWS|Azure) credentials") as told:
            read(uri)
        assert told.value.retryable


def test_role_of_an_instance_is_believed_in_on_amazon_only(tmp_path: Path) -> None:
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert find_aws(None).provider is None

    (tmp_path / "sys_vendor").write_text("Somebody\n")
    with pytest.raises(ConfigError, match="no AWS credentials"):
        find_aws(None)


def test_half_of_a_key_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")

    with pytest.raises(ConfigError, match=r"^AWS_SECRET_ACCESS_KEY is not set"):
        find_aws(None)


def test_keys_of_an_account_come_by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says of another session is none of theirs."""
    monkeypatch.setenv("THEIR_KEY", "key")
    monkeypatch.setenv("THEIR_SECRET", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-another")
    account = StoreAccount(
        place="s3://bucket", access_key_id="env:THEIR_KEY", secret_access_key="env:THEIR_SECRET"
    )

    found = find_aws(account)

    assert found.provider is not None
    assert found.provider() == {
        "access_key_id": "key", "secret_access_key": SECRET, "token": None, "expires_at": None,
    }  # fmt: skip
    assert SECRET not in repr(found) + repr(account)
    assert SECRET not in repr(S3Store().connect("s3://bucket", account))


@pytest.mark.parametrize("how", ["variable", "account", "file"])
def test_profile_needs_boto3(how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    account = StoreAccount(place="s3://b1", profile="vendor") if how == "account" else None
    if how == "variable":
        monkeypatch.setenv("AWS_PROFILE", "vendor")
    elif how == "file":
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws/credentials").write_text("[default]\n")

    with pytest.raises(ConfigError, match=r"needs boto3 to be read: pip install 'callpress\[s3\]'"):
        find_aws(account)


@pytest.fixture(scope="session")
def packages_of_moto() -> Path:
    """Where moto is kept with its boto3: `dev` has none. Found before a test has another home."""
    (site,) = moto_environment().glob("lib/python*/site-packages")
    return site


@pytest.fixture
def _boto3(packages_of_moto: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages_of_moto)])
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("boto3", "botocore", "s3transfer", "jmespath"):
            del sys.modules[name]


@pytest.mark.usefixtures("_boto3")
def test_profile_is_read_with_its_region(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        f"[vendor]\naws_access_key_id = of-vendor\naws_secret_access_key = {SECRET}\n"
    )
    (tmp_path / ".aws/config").write_text("[profile vendor]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_PROFILE", "vendor")

    found = find_aws(None)

    assert found.provider is not None
    assert found.provider()["access_key_id"] == "of-vendor"
    assert found.region == "eu-north-1"
    assert _endpoint("s3://bucket") == "https://bucket.s3.eu-north-1.amazonaws.com"
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match=r"AWS_PROFILE nobody: .*\(nobody\) could not be found"):
        find_aws(None)


@pytest.mark.parametrize(
    ("variables", "account", "endpoint"),
    [
        ({}, {}, "https://bucket.s3.us-east-1.amazonaws.com"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, {}, "https://bucket.s3.eu-west-1.amazonaws.com"),
        ({"AWS_REGION": "a-b-1", "AWS_DEFAULT_REGION": "eu-west-1"}, {"region": "eu-west-3"},
         "https://bucket.s3.eu-west-3.amazonaws.com"),
        ({}, {"path_style": True}, "https://s3.us-east-1.amazonaws.com"),
        ({"AWS_ENDPOINT_URL": "http://minio:9000/"}, {}, "http://minio:9000"),
        ({"AWS_ENDPOINT_URL": "http://minio:9000", "AWS_ENDPOINT_URL_S3": "https://of-s3"}, {},
         "https://of-s3"),
        ({"AWS_ENDPOINT_URL_S3": "https://of-s3"}, {"endpoint": "https://mine"}, "https://mine"),
        ({}, {"endpoint": "https://x.r2.cloudflarestorage.com", "path_style": False},
         "https://bucket.x.r2.cloudflarestorage.com"),
    ],
)  # fmt: skip
def test_endpoint_of_s3(
    variables: dict[str, str],
    account: dict[str, Any],
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = StoreAccount(place="s3://bucket", **account) if account else None

    assert _endpoint("s3://bucket", found) == endpoint


def test_bucket_with_dots_fits_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")

    assert _endpoint("s3://my.bucket") == "https://s3.us-east-1.amazonaws.com"


@pytest.mark.parametrize("value", ["minio:9000", "ftp://host", f"https://user:{SECRET}@host"])
def test_endpoint_that_is_none_is_told(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", value)

    with pytest.raises(ConfigError, match="is no endpoint, expected https://HOST") as told:
        _endpoint("s3://bucket")

    assert "SECRET" not in str(told.value)


# --- Azure ----------------------------------------------------------------------------------------


def test_no_credentials_of_azure_is_one_line_soon() -> None:
    began = time.monotonic()

    with pytest.raises(ConfigError, match=r"^no Azure credentials for the account mine: ") as told:
        objects.find_credentials(("azfs://mine/calls/raw/*",))

    assert "\n" not in str(told.value)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"AZURE_STORAGE_KEY": SECRET}, "access_key"),
        ({"AZURE_STORAGE_ACCOUNT": "mine", "AZURE_STORAGE_ACCOUNT_KEY": SECRET}, "access_key"),
        ({"AZURE_STORAGE_SAS_TOKEN": f"?sig={SECRET}"}, "sas_token"),
        ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=mine;AccountKey={SECRET}"},
         "access_key"),
        ({"AZURE_STORAGE_TOKEN": SECRET}, "bearer_token"),
        ({"AZURE_CLIENT_ID": "a", "AZURE_TENANT_ID": "b", "AZURE_CLIENT_SECRET": SECRET},
         "client_secret"),
        ({"AZURE_CLIENT_ID": "a", "AZURE_TENANT_ID": "b", "AZURE_FEDERATED_TOKEN_FILE": "/t"},
         "workload_identity"),
        ({"AZURE_USE_AZURE_CLI": "true"}, "azure_cli"),
        ({"IDENTITY_ENDPOINT": "http://localhost:1"}, "managed_identity"),
        # That of another account opens nothing here.
        ({"AZURE_STORAGE_ACCOUNT": "other", "AZURE_STORAGE_KEY": SECRET,
          "IDENTITY_ENDPOINT": "http://localhost:1"}, "managed_identity"),
        ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=other;AccountKey={SECRET}",
          "AZURE_STORAGE_TOKEN": SECRET}, "bearer_token"),
    ],
)  # fmt: skip
def test_credentials_of_azure_are_found_in_the_environment(
    variables: dict[str, str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    found = find_azure("mine", None)

    assert found.config["credential_type"] == kind
    assert found.endpoint == "https://mine.blob.core.windows.net"
    assert "SECRET" not in repr(found)


def test_keys_of_an_azure_account_come_by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIRS", f"?sv=1&sig={SECRET}")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "of-another")
    account = StoreAccount(
        place="azfs://mine", sas_token="env:THEIRS", endpoint="http://local:1/x/"
    )

    found = find_azure("mine", account)

    assert found.endpoint == "http://local:1/x"
    assert found.config == {
        "sas_key": f"sv=1&sig={SECRET}", "credential_type": "sas_token", "skip_signature": False,
    }  # fmt: skip
    assert SECRET not in repr(found)


def test_metadata_server_is_asked_once_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def request(connection: http.client.HTTPConnection, *_: object, **__: object) -> None:
        asked.append(cast(float, connection.timeout))
        raise TimeoutError

    monkeypatch.setattr(http.client.HTTPConnection, "request", request)

    for find in (lambda: find_aws(None), lambda: find_azure("mine", None)):
        with pytest.raises(ConfigError):
            find()

    assert len(asked) == 2
    assert max(asked) < 1
