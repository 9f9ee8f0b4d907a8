"""Whether there can be credentials for Google's services, found out soon and without its libraries.

They are looked for where google-auth does (Application Default Credentials). It waits up to 10 s
for the metadata server of a machine that is not Google's, and Beam has it do so four times.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

_NAMED = "GOOGLE_APPLICATION_CREDENTIALS"
_PRODUCT_NAME = Path("/sys/class/dmi/id/product_name")
"""What the firmware says that this machine is."""
_METADATA_SERVER = "169.254.169.254"
_METADATA_SECONDS = 0.75
_METADATA_TRIES = 2


def has_emulator() -> bool:
    """Whether an emulator stands in for Cloud Storage: it asks for no credentials."""
    return bool(os.environ.get("STORAGE_EMULATOR_HOST"))


def why_no_credentials() -> str | None:
    """Returns why there are no credentials; None where there may be some."""
    named = os.environ.get(_NAMED)
    if named:
        return _why_no_file(named)
    if _gcloud_file().is_file() or _is_on_google():
        return None
    return (
        "no Google credentials: run gcloud auth application-default login, or have "
        f"{_NAMED} name the key file of a service account"
    )


def _why_no_file(path: str) -> str | None:
    what = f"{_NAMED} {path}"
    try:
        found = json.loads(Path(path).read_bytes())
    except OSError as error:
        return f"{what}: {error.strerror}"
    except ValueError:
        found = None
    if isinstance(found, dict) and "type" in found:
        return None
    return f"{what}: holds no credentials, expected the JSON that Google Cloud gave"


def _gcloud_file() -> Path:
    """Returns where `gcloud auth application-default login` leaves credentials."""
    # Not Path.expanduser: that raises where there is no home, as for a container's nameless user.
    folder = os.environ.get("CLOUDSDK_CONFIG") or os.path.expanduser("~/.config/gcloud")
    return Path(folder) / "application_default_credentials.json"


def _is_on_google() -> bool:
    """Whether this machine is Google's, and so may have a service account of its own."""
    if os.environ.get("NO_GCE_CHECK") == "true":
        return False
    try:
        if _PRODUCT_NAME.read_text().startswith("Google"):
            return True
    except (OSError, UnicodeDecodeError):
        pass  # a container without it
    return any(_has_metadata_server() for _ in range(_METADATA_TRIES))


def _has_metadata_server() -> bool:
    server = os.environ.get("GCE_METADATA_IP") or _METADATA_SERVER
    import http.client  # late, as most who ask whose account it is never come here

    connection = http.client.HTTPConnection(server, timeout=_METADATA_SECONDS)
    try:
        connection.request("GET", "/", headers={"Metadata-Flavor": "Google"})
        return connection.getresponse().getheader("Metadata-Flavor") == "Google"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
