"""Links that a store signs: they open what they name for whoever has them, by GET alone, for a time
that is in them; and who cannot sign is told so in one line.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage as google_storage
from google.oauth2 import service_account

from tests.support.cloud_servers import CloudServer, forget_clients
from tests.support.storage_proxy import Faults
from transforms.media.errors import ConfigError
from transforms.storage import credentials, objects

ACCOUNT = "presser@project.iam.gserviceaccount.com"
NAME = "pressed/recordings/default/a~20b-1f/individual_default_a~20b.x-1_audio_only_17.mkv"
ODD_NAME = "pressed/a b/100%25#x+y&z ünï ✓.mp3"


def _status(link: str, method: str = "GET") -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(link, method=method)) as answer:
            found: int = answer.status
    except urllib.error.HTTPError as error:
        found = error.code
    return found


@pytest.mark.parametrize("name", [NAME, ODD_NAME], ids=["of_ours", "odd"])
def test_signed_link_opens_the_file_for_whoever_has_it(
    cloud_place: str, cloud_faults: Faults, name: str
) -> None:
    objects.write_bytes(f"{cloud_place}/{name}", b"some sound")
    asked: list[str] = []
    cloud_faults.before = asked.append

    if name == ODD_NAME and cloud_place.startswith("azfs:"):
        with pytest.raises(ConfigError, match="as its name is spelled otherwise in a link"):
            objects.signed_link(f"{cloud_place}/{name}", 3600)
        return
    link = objects.signed_link(f"{cloud_place}/{name}", 3600)

    assert asked == []  # signed here
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"some sound"
    query = parse_qs(urlsplit(link).query)
    if cloud_place.startswith("s3:"):
        assert query["X-Amz-Expires"] == ["3600"]
    else:
        assert query["sp"] == ["r"]
        assert _status(link.split("?")[0]) in (401, 403, 404)  # Azurite: no such public container
        assert _status(link, "DELETE") == 403


def test_file_that_is_not_there_is_signed_all_the_same(
    cloud_place: str, cloud_faults: Faults
) -> None:
    asked: list[str] = []
    cloud_faults.before = asked.append

    link = objects.signed_link(f"{cloud_place}/gone.mp3", 60)

    assert asked == []
    assert _status(link) == 404


@pytest.mark.usefixtures("cloud_faults")
def test_credentials_that_cannot_sign_are_told_and_ask_no_network(
    cloud: CloudServer, cloud_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cloud.base == "s3://":
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    else:
        monkeypatch.delenv("AZURE_STORAGE_KEY")
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2021&sig=PLANTED")
    forget_clients(cloud)

    with pytest.raises(
        ConfigError, match=r"calls: no link to it can be signed without cre"
    ) as told:
        objects.signed_link(f"{cloud_place}/x", 60)

    assert "PLANTED" not in str(told.value)


@pytest.mark.parametrize(
    "uri", ["/pressed/a.mp3", "https://host/a.mp3?sig=PLANTED", "hdfs://server/a.mp3"]
)
def test_store_without_signed_links_is_told(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"a.mp3: no link to it can be signed, expected a place"):
        objects.signed_link(uri, 60)


# --- Cloud Storage --------------------------------------------------------------------------------


def _acts_as(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = google_storage.Client(project="project", credentials=AnonymousCredentials())
    client._credentials = found
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(credentials, "storage_client", lambda: client)


def test_link_of_cloud_storage_is_signed_by_the_key_of_the_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The V4 signing process of Cloud Storage, checked by the public key."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    info = {
        "private_key": pem.decode(),
        "client_email": ACCOUNT,
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    _acts_as(service_account.Credentials.from_service_account_info(info), monkeypatch)

    link = urlsplit(objects.signed_link(f"gs://bucket/{ODD_NAME}", 3600))

    assert (link.scheme, link.netloc) == ("https", "storage.googleapis.com")
    assert link.path == f"/bucket/{quote(ODD_NAME)}"
    query, _, signature = link.query.partition("&X-Goog-Signature=")
    found = {name: value for name, (value,) in parse_qs(query).items()}
    assert found["X-Goog-Expires"] == "3600"
    scope = found["X-Goog-Credential"].removeprefix(f"{ACCOUNT}/")
    canonical = f"GET\n{link.path}\n{query}\nhost:{link.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signed = f"{found['X-Goog-Algorithm']}\n{found['X-Goog-Date']}\n{scope}\n{digest}"
    key.public_key().verify(
        bytes.fromhex(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
    )


def test_account_of_a_machine_has_google_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a token and no key, and learns its own name when it gets that."""
    found = SimpleNamespace(valid=False, service_account_email="default", token=None)

    def refresh(_request: object) -> None:
        found.service_account_email, found.token, found.valid = ACCOUNT, "a token", True

    found.refresh = refresh
    _acts_as(found, monkeypatch)

    assert credentials.signer() == {"service_account_email": ACCOUNT, "access_token": "a token"}


def test_credentials_of_a_person_cannot_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    _acts_as(AnonymousCredentials(), monkeypatch)

    with pytest.raises(ConfigError, match="can sign no links, expected those of a service acc"):
        objects.signed_link("gs://bucket/a.mp3", 60)
