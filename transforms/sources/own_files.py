"""What runs of ours leave behind, told by its name: it is never taken for an archive, wherever it
lies and whichever run made it.
"""

from __future__ import annotations

import re

_OWN = re.compile(
    "/(?:"
    # Recordings: as `catalog.output_names` names them, and half of one as `storage.local` does.
    r"recordings/[^/]+/[^/]+/[^/]+/(?:"
    r"(?:composite|individual)_[^/]*\.(?:mp3|mkv|webm|ogg)"
    r"|\.(?:composite|individual)_[^/]*\.\d+\.partial)"
    # Tables: as `catalog.partitions` names them. The lock, and notes beside the tables.
    r"|[a-z]+/call_date=\d{4}-\d\d-\d\d/(?:part-[0-9-]+\.parquet|\.part-[^/]*\.\d+\.partial)"
    # Events as lines, as `notices.json_lines` names them.
    r"|(?:tell-)?\d{8}T\d{6}Z-[0-9a-f]{6}_\d{4}-\d\d-\d\d_part-[0-9-]+(?:_\d+)?\.jsonl"
    r"|\.(?:tell-)?\d{8}T\d{6}Z-[0-9a-f]{6}_[^/]*\.jsonl\.\d+\.partial"
    # Drawings of `inspect --clock-output`, in any folder.
    r"|clock_[^/]*_audio_only_-?\d+[^/]*\.svg|\.clock_[^/]*\.\d+\.partial"
    r"|callpress\.lock|\.callpress\.lock\.[^/]*\.partial"
    # Results: as `catalog.results` names them.
    r"|results/(?:\d{8}T\d{6}Z-[0-9a-f]{6}\.json|\.\d{8}T\d{6}Z-[^/]*\.\d+\.partial)"
    r"|callpress\.[a-z]+/[^/]+\.(?:json|\d+\.partial)"
    # Staging: `pipelines.places` names its root, `begin_run` the folder of a run.
    r"|callpress-[0-9a-f]{12}/\d{8}T\d{6}Z-[0-9a-f]{6}/.*"
    # Half of a copy, as `storage.local` makes one of what `raw_copies` names.
    r"|\d{4}-\d\d-\d\d/\.[0-9a-f]{12}-[^/]*\.\d+\.partial"
    # `recovery.manifests` names those of the launcher.
    r"|callpress-[0-9a-f]{12}/manifests/[0-9a-f]{32}(?:/.*)?"
    r")\Z",
    re.DOTALL,
)


def is_our_own(uri: str) -> bool:
    """Whether a run of ours made a file: media, a table, the lock, a note, or something staged."""
    return _OWN.search(uri) is not None
