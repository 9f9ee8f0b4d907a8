"""What the vendor tells of recordings: the answer of its list, events, and what SQS and SNS put
around them. Shapes as its API description has them.
"""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

HOST = "recordings.example.com"
SIGNATURE = "c0ffee5ec2e7" * 5
"""Planted in every link: it may come out in none that is told."""
QUERY = f"X-Amz-Date=20260508T000000Z&X-Amz-Expires=1209600&X-Amz-Signature={SIGNATURE}"
STARTED_UNIX_NS = 1_778_198_400_000_000_000
ENDED_UNIX_NS = 1_778_202_000_000_000_007
CREATED_UNIX_NS = 1_778_202_060_000_000_009


def uri_of(name: str) -> str:
    """Returns what an archive is known by."""
    return f"https://{HOST}/raw/{name}.tar.gz"


def link_to(name: str) -> str:
    """Returns a signed link to an archive."""
    return f"{uri_of(name)}?{QUERY}"


def recording(name: str, **changes: Any) -> dict[str, Any]:
    """Returns an entry of the vendor's list."""
    return {
        "filename": f"{name}.tar.gz",
        "url": link_to(name),
        "start_time": STARTED_UNIX_NS,
        "end_time": ENDED_UNIX_NS,
        "session_id": "session-1",
        "recording_type": "raw",
        **changes,
    }


def listing(*recordings: Any) -> dict[str, Any]:
    """Returns the answer of the vendor's list."""
    return {"duration": "7.21ms", "recordings": list(recordings)}


def event(name: str, kind: str = "raw", **changes: Any) -> dict[str, Any]:
    """Returns the body of a `call.recording_ready`."""
    return {
        "type": "call.recording_ready",
        "created_at": CREATED_UNIX_NS,
        "call_cid": "default:standup",
        "egress_id": "egress-1",
        "recording_type": kind,
        "call_recording": recording(name, recording_type=kind),
        **changes,
    }


def other_event() -> dict[str, Any]:
    """Returns the body of another event."""
    return {"type": "call.session_ended", "created_at": CREATED_UNIX_NS, "call_cid": "default:x"}


def packed(body: Any) -> str:
    """Returns a body as SQS has it where it is large: base64 of gzip."""
    return base64.b64encode(gzip.compress(json.dumps(body).encode(), mtime=0)).decode()


def notification(message: str, kind: str = "Notification") -> dict[str, Any]:
    """Returns the envelope of SNS around a message."""
    return {
        "Type": kind,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:recordings",
        "Message": message,
        "Timestamp": "2026-05-08T01:01:00.000Z",
    }


def received(*bodies: str) -> dict[str, Any]:
    """Returns the answer of `aws sqs receive-message`."""
    return {"Messages": [{"MessageId": f"{n}", "Body": body} for n, body in enumerate(bodies)]}
