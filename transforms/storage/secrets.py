"""Secrets by reference: what stands in a job profile, and is pickled into a job, says where a
secret is and never what it is.

    env:NAME                                      a variable of this process's environment
    file:PATH                                     a file, less the end of its line
    gcp-secret:projects/P/secrets/S/versions/V    a version in Google's Secret Manager
    memory:N                                      what this process was given (`keep`)

Each is read once by a process that needs it, and kept in its memory. No message, log or `repr` has
the value; nor has an error that follows, since a value that no request can carry (a line break in a
header is told with the header) is refused here.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import threading
from pathlib import Path
from typing import Any

from transforms.media.errors import ConfigError
from transforms.media.text import printable, without_secrets
from transforms.storage import google_account, uris

EXPECTED = "env:NAME, file:PATH or gcp-secret:projects/PROJECT/secrets/NAME/versions/N"
_ENV = re.compile(r"env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)")
_FILE = re.compile(r"file:(?P<path>[^\r\n\0]+)")
_GCP = re.compile(
    r"gcp-secret:(?P<version>projects/[a-z0-9:.-]+/secrets/[\w-]+/versions/(?:[1-9]\d*|latest))",
    re.ASCII,
)
_MEMORY = "memory:"
_VALUE = re.compile(r"[\x21-\x7e]+")
_MOST_BYTES = 65_536
"""As Secret Manager has it."""
_ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"
"""The variable by which gcloud, too, is sent to another endpoint of the service."""
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_SECONDS = 20
_TRIES = 4
_BACK_OFF_SECONDS = (0.2, 5.0)
"""Of the first tries, and of any at most."""

_kept: dict[str, str] = {}
_lock = threading.Lock()


class SecretError(ConfigError):
    """A secret cannot be read; the message names the reference."""


def is_reference(text: str) -> bool:
    """Whether a text is spelled as a reference to a secret."""
    return any(pattern.fullmatch(text) for pattern in (_ENV, _FILE, _GCP))


def keep(value: str) -> str:
    """Returns a reference to a secret that this process was given, on its command line, say: no
    other process can read it.

    Raises:
      ValueError: it is none that a request could carry; the message has nothing of it.
    """
    if not _VALUE.fullmatch(value):
        raise ValueError("has a blank, a line break or another character that no request carries")
    with _lock:
        found = [name for name, kept in _kept.items() if name.startswith(_MEMORY) and kept == value]
        reference = found[0] if found else f"{_MEMORY}{len(_kept) + 1}"
        _kept[reference] = value
        return reference


def is_of_this_machine(reference: str) -> bool:
    """Whether a secret is in this process's environment or on this machine's disks, which workers
    elsewhere do not have.
    """
    return not reference.startswith("gcp-secret:")


def spelled(reference: str) -> str:
    """Returns a reference as all processes of this machine understand it: a path is absolute."""
    if _FILE.fullmatch(reference) is None:
        return reference
    path = uris.without_file(reference).removeprefix("file:")
    return f"file:{os.path.abspath(os.path.expanduser(path))}"


def read(reference: str) -> str:
    """Returns the secret that a reference names, as it was when this process read it first.

    Raises:
      SecretError: it cannot be read, or is none that a request could carry.
    """
    with _lock:
        if reference not in _kept:
            _kept[reference] = _checked(reference, _read(reference))
        return _kept[reference]


def read_key(flag: str, reference: str) -> bytes:
    """Returns a secret of several lines, as a key in PEM is; it is not kept.

    Args:
      flag: what names it on a command line.
      reference: where it is.

    Raises:
      SecretError: it cannot be read, or is empty.
    """
    try:
        key = _read(reference).encode("latin-1", "replace")
    except SecretError as error:
        raise SecretError(f"{flag} {error}") from None
    if not key.strip():
        raise SecretError(f"{flag} {_shown(reference)}: is empty, expected a key")
    return key


def check(reference: str) -> None:
    """Finds out whether a secret can be read. Raises: SecretError."""
    read(reference)


def _read(reference: str) -> str:
    if found := _ENV.fullmatch(reference):
        value = os.environ.get(found["name"])
        if value is None:
            raise SecretError(f"{reference}: the environment of this process has no such variable")
        return value
    if found := _FILE.fullmatch(reference):
        return _read_file(reference, found["path"])
    if found := _GCP.fullmatch(reference):
        return _read_version(reference, found["version"])
    if reference.startswith(_MEMORY):
        raise SecretError(f"{reference}: only the process that was given it has it")
    raise SecretError(f"a secret is to be named by a reference, expected {EXPECTED}")


def _checked(reference: str, value: str) -> str:
    """Returns a value without the end of its line. Raises: SecretError: it cannot be a secret."""
    value = re.sub(r"\r?\n\Z", "", value)
    if not value:
        raise SecretError(f"{_shown(reference)}: is empty, expected a secret")
    if not _VALUE.fullmatch(value):
        raise SecretError(
            f"{_shown(reference)}: has a blank, a line break or another character that no key has, "
            "expected one line of ASCII"
        )
    return value


def _shown(reference: str) -> str:
    return printable(without_secrets(reference))


def _read_file(reference: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SecretError(f"{_shown(reference)}: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise SecretError(f"{_shown(reference)}: has more than {_MOST_BYTES} bytes")
    return data.decode("latin-1")  # what is no ASCII is refused with the other characters


def _read_version(reference: str, version: str) -> str:
    """Returns what Secret Manager has under the name of a version. Raises: SecretError."""
    # Late: most commands read no secret, and are to answer at once.
    import tenacity
    from google.auth.exceptions import GoogleAuthError

    from transforms.storage import errors

    if why := google_account.why_no_credentials():
        raise SecretError(f"{reference}: {why}")
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(errors.is_passing),
        stop=tenacity.stop_after_attempt(_TRIES),
        wait=tenacity.wait_random_exponential(*_BACK_OFF_SECONDS),
        reraise=True,
    )
    try:
        answer = attempts(_ask, version)
    except (*errors.STORE_ERRORS, GoogleAuthError) as error:
        raise SecretError(f"{reference}: {errors.describe_error(error)}") from None
    return _payload(reference, answer)


def _ask(version: str) -> Any:
    """Returns the answer of Secret Manager. Raises: one of `errors.STORE_ERRORS`."""
    import google.auth
    from google.api_core.exceptions import from_http_response
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=[_SCOPE])
    endpoint = os.environ.get(_ENDPOINT) or "https://secretmanager.googleapis.com/"
    with AuthorizedSession(credentials) as session:
        answer = session.get(
            f"{endpoint.rstrip('/')}/v1/{version}:access", timeout=_TIMEOUT_SECONDS
        )
        if not answer.ok:
            raise from_http_response(answer)
        try:
            return answer.json()
        except ValueError:
            return None


def _payload(reference: str, answer: Any) -> str:
    """Returns the secret in an answer. Raises: SecretError: it is none, or damaged."""
    import google_crc32c

    try:
        data = base64.b64decode(answer["payload"]["data"], validate=True)
        crc = int(answer["payload"].get("dataCrc32c", google_crc32c.value(data)))
    except (LookupError, TypeError, ValueError, AttributeError, binascii.Error):
        raise SecretError(f"{reference}: what answered is not Secret Manager") from None
    if crc != google_crc32c.value(data):
        raise SecretError(f"{reference}: it came damaged, by its checksum")
    return data.decode("latin-1")
