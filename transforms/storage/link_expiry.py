"""Until when a signed link is good, as the link itself shows it. Nothing is asked of anybody, and
what is in a link is anybody's text: what makes no sense tells nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from transforms.media.rfc3339 import parse_time
from transforms.storage.uris import split_link

_MAX_FIELDS = 100
_MAX_POLICY_CHARACTERS = 16_384
_MAX_SECONDS = 253_402_300_800
"""The year 10000, in Unix time: no calendar of ours has it."""
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_SIGNED_AT = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
# CloudFront's base64 has no letters that a query would need to spell out.
_POLICY_LETTERS = str.maketrans("-_~", "+=/")


def expiry_of(link: str) -> int | None:
    """Returns when a signed link expires, in Unix ns; None where it does not show it.

    Known are the signatures of S3 and its kin (versions 4 and 2), of Cloud Storage (V4 and V2),
    shared access signatures of Azure, and CloudFront's, with or without a policy.
    """
    parts = split_link(link)
    if parts is None:
        return None
    try:
        fields = parse_qsl(parts.query[1:], max_num_fields=_MAX_FIELDS)
    except ValueError:
        return None
    by_name = {name.lower(): value for name, value in fields}
    for prefix in ("x-amz-", "x-goog-"):
        if f"{prefix}signature" in by_name:
            return _signed_for(by_name.get(f"{prefix}date", ""), by_name.get(f"{prefix}expires"))
    if "sig" in by_name:
        return _in_calendar(parse_time(by_name.get("se", "")))
    if "signature" in by_name:
        if "policy" in by_name:
            return _of_policy(by_name["policy"])
        return _unix_ns(by_name.get("expires"))
    return None


def _signed_for(signed_at: str, seconds: str | None) -> int | None:
    """Returns the end of so many seconds (of text) since a link was signed."""
    if not _SIGNED_AT.fullmatch(signed_at) or not _SECONDS.fullmatch(seconds or ""):
        return None
    try:
        moment = datetime.strptime(signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return _in_calendar((int(moment.timestamp()) + int(seconds or 0)) * 1_000_000_000)


def _unix_ns(seconds: object) -> int | None:
    """Returns Unix seconds as ns, from a number or its text."""
    if isinstance(seconds, str) and _SECONDS.fullmatch(seconds):
        seconds = int(seconds)
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        return None
    return _in_calendar(seconds * 1_000_000_000)


def _in_calendar(unix_ns: int | None) -> int | None:
    return unix_ns if unix_ns is not None and 0 <= unix_ns < _MAX_SECONDS * 1_000_000_000 else None


def _of_policy(text: str) -> int | None:
    """Returns the end of the first statement of a CloudFront policy."""
    if len(text) > _MAX_POLICY_CHARACTERS:
        return None
    try:
        found = json.loads(base64.b64decode(text.translate(_POLICY_LETTERS), validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    for key in ("Statement", 0, "Condition", "DateLessThan", "AWS:EpochTime"):
        if isinstance(found, Mapping):
            found = found.get(key)
        elif isinstance(found, list) and key == 0 and found:
            found = found[0]
        else:
            return None
    return _unix_ns(found)
