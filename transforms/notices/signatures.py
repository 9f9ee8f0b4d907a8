"""What a receiver tells by that a notice is ours and whole: the headers that the vendor sends, and
those of Standard Webhooks (https://www.standardwebhooks.com), side by side.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

_WEBHOOK_KEY = "whsec_"
_KEY_BYTES = range(24, 65)
"""As the specification has it: 192 to 512 bits."""
EXPECTED_KEY = "whsec_ and base64 of 24 to 64 bytes"


def webhook_key(text: str) -> bytes:
    """Returns a key of Standard Webhooks as it signs. Args: text: `whsec_...`. Raises: ValueError:
    it is none; the message does not repeat it.
    """
    try:
        key = base64.b64decode(text.removeprefix(_WEBHOOK_KEY), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(_WEBHOOK_KEY) or len(key) not in _KEY_BYTES:
        raise ValueError(f"is no key of Standard Webhooks, expected {EXPECTED_KEY}")
    return key


def headers(
    notice_body: bytes,
    event_id: str,
    attempt: int,
    now_unix_s: int,
    *,
    secret: str,
    api_key: str,
    webhook_keys: Sequence[bytes],
) -> dict[str, str]:
    """Returns the headers of one try to send a notice.

    Args:
      notice_body: as it is sent; it is signed as it is, not compressed.
      event_id: the same over all tries.
      attempt: from 1.
      now_unix_s: when it is sent; receivers refuse what was signed long ago.
      secret: the vendor's API secret, for `X-SIGNATURE`; empty for none.
      api_key: for `X-API-KEY`; empty for none.
      webhook_keys: those of Standard Webhooks; a signature by each, so that keys can be changed.
    """
    found = {
        "Content-Type": "application/json",
        "X-WEBHOOK-ID": event_id,
        "X-WEBHOOK-ATTEMPT": str(attempt),
        "webhook-id": event_id,
        "webhook-timestamp": str(now_unix_s),
    }
    if api_key:
        found["X-API-KEY"] = api_key
    if secret:
        found["X-SIGNATURE"] = hmac.new(secret.encode(), notice_body, hashlib.sha256).hexdigest()
    if webhook_keys:
        signed = f"{event_id}.{now_unix_s}.".encode() + notice_body
        found["webhook-signature"] = " ".join(_signature(key, signed) for key in webhook_keys)
    return found


def _signature(key: bytes, signed: bytes) -> str:
    found = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(found).decode('ascii')}"
