"""What time it is by the clock of a store: that of this machine may be wrong by hours."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

from transforms.storage.store import ShortTransferError

_TIMEOUT_SECONDS = 20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another host has another clock."""

    def redirect_request(self, *_: Any) -> None:
        return None


def now_at(endpoint: str) -> datetime:
    """Returns the time in the head of an answer (RFC 9110 s6.6.1), exact to a second. The request
    has no credentials: every answer has it, a refusal too.

    Args:
      endpoint: URL of a service, without a name of an object.

    Raises:
      OSError: nothing answered.
      ShortTransferError: the answer has no time.
    """
    request = urllib.request.Request(endpoint, method="HEAD")
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            head: Message = answer.headers
    except urllib.error.HTTPError as refusal:
        with refusal:
            head = refusal.headers
    try:
        return parsedate_to_datetime(head["Date"])
    except (TypeError, ValueError):
        raise ShortTransferError("the answer of the store does not say what time it is") from None
