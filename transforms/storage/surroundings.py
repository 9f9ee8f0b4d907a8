"""What the environment and the machine of this process say of clouds, found out soon: nobody waits
for the metadata server of a machine that has none.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Mapping
from pathlib import Path

_SYSTEM_VENDOR = Path("/sys/class/dmi/id/sys_vendor")
"""What the firmware says of who made this machine."""
_METADATA_SERVER = "169.254.169.254"
"""The same address in all clouds."""
_METADATA_SECONDS = 0.75


def first_set(*names: str) -> str:
    """Returns the first of these variables that is set; empty for none."""
    return next((value for name in names if (value := os.environ.get(name))), "")


def is_true(name: str) -> bool:
    """Whether a variable says yes."""
    return os.environ.get(name, "").lower() in ("true", "1", "yes", "on")


def is_made_by(vendor: str) -> bool | None:
    """Whether the firmware names this maker; None where it says nothing, as in some containers."""
    try:
        return vendor in _SYSTEM_VENDOR.read_text().lower()
    except (OSError, UnicodeDecodeError):
        return None


def has_metadata_server(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """Whether a request to the metadata server of a cloud is answered as there."""
    connection = http.client.HTTPConnection(_METADATA_SERVER, timeout=_METADATA_SECONDS)
    try:
        connection.request(method, path, headers=dict(headers))
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
