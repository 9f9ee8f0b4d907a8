"""Keeps what the vendor's webhooks tell of raw recordings in a file that `--manifest` reads.

    STREAM_API_SECRET=... python webhook_receiver.py raw.jsonl 127.0.0.1:8080

A proxy before it does TLS. WEBHOOK_KEYS holds keys of Standard Webhooks, `whsec_...`, with blanks
between them: what one of them signed, as Callpress signs it, is taken as well.
"""

import hmac
import json
import os
import sys
import time
import zlib
from base64 import b64decode, b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRETS = os.getenv("STREAM_API_SECRET", "").encode().split()
KEYS = [*filter(None, map(b64decode, os.getenv("WEBHOOK_KEYS", "").replace("whsec_", "").split()))]
MOST_BYTES, MOST_SECONDS = 1 << 20, 300


class Receiver(BaseHTTPRequestHandler):
    timeout = 10  # seconds, for whatever is to come next

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        is_short = length.isdecimal() and float(length) <= MOST_BYTES
        self.send_response(self.receive(self.rfile.read(int(length))) if is_short else 413)
        self.end_headers()

    def receive(self, body: bytes) -> int:
        try:  # the vendor may compress a body, and signs what was compressed
            expand = zlib.decompressobj(wbits=31).decompress
            event = expand(body, MOST_BYTES) if body.startswith(b"\x1f\x8b") else body
            if not self.is_signed(body, event):
                return 401
            told = json.loads(event)
            if told["type"] == "call.recording_ready" and told["recording_type"] == "raw":
                with open(sys.argv[1], "ab") as file:  # one write, which no other gets into
                    file.write(b"\n%s\n" % json.dumps(told).encode())
        except (zlib.error, ValueError, TypeError, LookupError):
            return 400
        return 200

    def is_signed(self, body: bytes, event: bytes) -> bool:
        named = ("X-SIGNATURE", "webhook-id", "webhook-timestamp", "webhook-signature")
        vendors, name, sent, theirs = (self.headers.get(each, "").encode() for each in named)
        pairs = [(hmac.digest(key, event, "sha256").hex().encode(), vendors) for key in SECRETS]
        if sent.isdigit() and abs(time.time() - float(sent)) <= MOST_SECONDS:
            signed = b".".join((name, sent, body))
            ours = (b"v1," + b64encode(hmac.digest(key, signed, "sha256")) for key in KEYS)
            pairs += [(one, other) for one in ours for other in theirs.split()]
        return any(hmac.compare_digest(*pair) for pair in pairs)


if __name__ == "__main__":
    os.umask(0o077)  # links to recordings are for nobody else
    host, _, port = sys.argv[2].rpartition(":")
    ThreadingHTTPServer((host, int(port)), Receiver).serve_forever()
