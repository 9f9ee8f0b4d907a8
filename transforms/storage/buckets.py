"""Places in buckets of Google Cloud Storage: what a URI spells, and whether uploads are taken.

Imports Google's library only to ask: a command line is looked at without it.
"""

from __future__ import annotations

import re

from transforms.storage.retry import retried

# A bucket as Beam takes it, which needs the slash behind it, too.
_PLACE = re.compile(r"gs://(?P<bucket>[^/]+)(?P<rest>/[^\r\n]*)?")
_BUCKET = re.compile(r"[a-z0-9][-_a-z0-9.]+[a-z0-9]")


def why_no_place(uri: str) -> str | None:
    """Returns why a URI is no place in a bucket, by its spelling; None for one that is."""
    found = _PLACE.fullmatch(uri)
    if found is None:
        return "is not in a bucket, expected gs://BUCKET/NAME"
    if not _BUCKET.fullmatch(found["bucket"]):
        return f"{found['bucket']!r} is no name of a bucket"
    if not found["rest"]:
        return f"is a bucket, expected a place in it, such as {uri}/tmp"
    return None


@retried
def check_uploads(uri: str) -> None:
    """Asks for the bucket, and for an upload of an object, which is not begun.

    Whoever may not ask for the bucket is not told of another object in it by Beam, either.

    Raises:
      StorageError: it would not be taken.
    """
    from transforms.storage import credentials

    bucket, _, name = uri.removeprefix("gs://").partition("/")
    found = credentials.storage_client().get_bucket(bucket, retry=None)
    found.blob(name).create_resumable_upload_session(size=0, retry=None)
