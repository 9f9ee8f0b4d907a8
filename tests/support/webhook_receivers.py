"""Three receivers of webhooks that know nothing of what sends them: the vendor's SDK, that of
Standard Webhooks, and `examples/webhook_receiver.py`.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.pip_folders import STANDARD_WEBHOOKS, STREAM_SDK, pip_folder
from tests.support.processes import HOST, free_port, running_server

EXAMPLE = Path(__file__).parents[2] / "examples" / "webhook_receiver.py"
_VERIFY = """
import json, sys
from getstream.webhook import verify_and_parse_webhook
from standardwebhooks.webhooks import Webhook

given = json.load(sys.stdin)
for body, headers in given["deliveries"]:
    body = bytes.fromhex(body)
    parsed, told = None, []
    try:
        parsed = verify_and_parse_webhook(body, headers["X-SIGNATURE"], given["secret"])
        told.append(type(parsed).__name__)
    except Exception as error:
        told.append(str(error))
    for key in given["keys"]:
        try:
            Webhook(key).verify(body, headers)
            told.append("verified")
        except Exception as error:
            told.append(str(error))
    print(json.dumps(told))
"""


@dataclass(frozen=True)
class Delivery:
    """A webhook as it comes to a receiver."""

    body: bytes
    headers: Mapping[str, str]


def verified(
    deliveries: Sequence[Delivery], secret: str, keys: Sequence[str]
) -> list[tuple[str, ...]]:
    """Returns what others make of each delivery: the class that the vendor's SDK parses it as, and
    for each key `verified`; or else what is wrong.

    Args:
      keys: as receivers have them, `whsec_...`.
    """
    given = {
        "deliveries": [[each.body.hex(), dict(each.headers)] for each in deliveries],
        "secret": secret,
        "keys": list(keys),
    }
    folders = [str(pip_folder(STREAM_SDK)), str(pip_folder(STANDARD_WEBHOOKS))]
    done = subprocess.run(
        [sys.executable, "-c", _VERIFY],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@contextmanager
def running_example(file: Path, *, secret: str = "", keys: Sequence[str] = ()) -> Iterator[int]:
    """Runs the example until the end of the block. Yields: its port."""
    port = free_port()
    env = {"STREAM_API_SECRET": secret, "WEBHOOK_KEYS": " ".join(keys)}
    with running_server([sys.executable, EXAMPLE, file, f"{HOST}:{port}"], port, env=env):
        yield port


def deliver(port: int, delivery: Delivery) -> int:
    """Returns the status that a receiver on this machine answers a delivery with."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("POST", "/", delivery.body, dict(delivery.headers))
        return connection.getresponse().status
    finally:
        connection.close()
