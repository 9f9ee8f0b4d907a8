"""Secrets by reference: read once, told never."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import google_crc32c
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from transforms.storage import secrets
from transforms.storage.secrets import SecretError

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY="
VERSION = "gcp-secret:projects/lab-project/secrets/theirs/versions/3"


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_kept", {})


def test_variable_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIRS", SECRET)
    assert secrets.read("env:THEIRS") == SECRET
    monkeypatch.setenv("THEIRS", "another")
    assert secrets.read("env:THEIRS") == SECRET


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_file_is_read_less_the_end_of_its_line(end: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.write_bytes(f"{SECRET}{end}".encode())
    assert secrets.read(f"file:{path}") == SECRET
    path.unlink()
    assert secrets.read(f"file:{path}") == SECRET


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, expected a secret"),
        (b"\n", "is empty, expected a secret"),
        (f"{SECRET}\n{SECRET}".encode(), "has a blank, a line break or another character that no"),
        (f"{SECRET}\n\n".encode(), "has a blank, a line break"),
        (f" {SECRET}".encode(), "has a blank, a line break"),
        (f"{SECRET}\x00".encode(), "has a blank, a line break"),
        (f"{SECRET}\xe9".encode(), "has a blank, a line break"),
        (SECRET.encode() * 2_000, "has more than 65536 bytes"),
        (None, "No such file or directory"),
    ],
)
def test_secret_that_is_none_is_one_line_that_names_the_reference(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "theirs"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SecretError) as refused:
        secrets.check(f"file:{path}")

    assert str(refused.value).startswith(f"file:{path}: {message}")
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_reference_is_not_told() -> None:
    with pytest.raises(SecretError) as refused:
        secrets.read(SECRET)
    assert SECRET not in str(refused.value)


def test_variable_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THEIRS", raising=False)
    with pytest.raises(SecretError, match=r"^env:THEIRS: the environment of this process has no"):
        secrets.read("env:THEIRS")


# --- Secret Manager -------------------------------------------------------------------------------


@dataclass(kw_only=True)
class SecretManager:
    """A stand-in for the service, and for that which gives tokens."""

    url: str
    answers: list[tuple[int, object]] = field(default_factory=list)
    """Of the next requests for a version; the last one stays."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and authorization of each."""


@contextmanager
def running_secret_manager() -> Iterator[SecretManager]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(200, {"access_token": "of-the-stand-in", "expires_in": 3600})

        def do_GET(self) -> None:
            running.asked.append((self.path, self.headers["Authorization"]))
            more = len(running.answers) > 1
            self._answer(*(running.answers.pop(0) if more else running.answers[0]))

        def _answer(self, status: int, found: object) -> None:
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = SecretManager(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a service account whose tokens come from nowhere yet."""
    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path_factory.mktemp("keys") / "account.json"
    found = {
        "type": "service_account",
        "project_id": "lab-project",
        "private_key": pem.decode(),
        "client_email": "press@lab-project.iam.gserviceaccount.com",
    }
    path.write_text(json.dumps(found))
    return path


@pytest.fixture
def manager(
    key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SecretManager]:
    with running_secret_manager() as running:
        own = tmp_path / "account.json"
        content = {**json.loads(key_file.read_text()), "token_uri": f"{running.url}/token"}
        own.write_text(json.dumps(content))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(own))
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER", running.url + "/")
        monkeypatch.setattr(secrets, "_BACK_OFF_SECONDS", (0, 0))
        yield running


def _version(secret: bytes, crc: int | None = None) -> tuple[int, object]:
    payload = {
        "data": base64.b64encode(secret).decode(),
        "dataCrc32c": str(google_crc32c.value(secret) if crc is None else crc),
    }
    return 200, {"name": "projects/1/secrets/theirs/versions/3", "payload": payload}


def test_version_of_secret_manager_is_read_once(manager: SecretManager) -> None:
    manager.answers = [(503, {"error": {"code": 503, "message": "later"}}), _version(b"s3cr3t\n")]

    assert secrets.read(VERSION) == secrets.read(VERSION) == "s3cr3t"
    path = "/v1/projects/lab-project/secrets/theirs/versions/3:access"
    assert manager.asked == [(path, "Bearer of-the-stand-in")] * 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            (403, {"error": {"code": 403, "message": "Permission denied on resource"}}),
            "HTTP status 403: Permission denied on resource",
        ),
        ((404, {"error": {"code": 404, "message": "Secret not found"}}), "HTTP status 404: Secret"),
        ((500, b"<html>down</html>"), "HTTP status 500"),
        ((200, b"<html>a portal</html>"), "what answered is not Secret Manager"),
        ((200, []), "what answered is not Secret Manager"),
        ((200, {"payload": {"data": "%%%"}}), "what answered is not Secret Manager"),
        (_version(SECRET.encode(), crc=1), "it came damaged, by its checksum"),
        (_version(f"{SECRET} {SECRET}".encode()), "has a blank, a line break"),
    ],
)
def test_version_that_cannot_be_read_is_one_line(
    answer: tuple[int, object], message: str, manager: SecretManager
) -> None:
    manager.answers = [answer]

    with pytest.raises(SecretError) as refused:
        secrets.read(VERSION)

    assert str(refused.value).startswith(f"{VERSION}: {message}")
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


def test_version_without_credentials_says_how_to_get_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")

    with pytest.raises(SecretError, match=f"^{VERSION}: no Google credentials: run gcloud auth"):
        secrets.read(VERSION)
