"""Every fixed bound on what a hostile manifest may cost."""

from __future__ import annotations

BEGINNING_BYTES = 1 << 16
"""What the shape of a manifest is told by."""
CHUNK_BYTES = 1 << 18
"""Read at a time."""
MAX_ENTRY_BYTES = 2 << 20
"""One line, one recording of a list or one event, also when it is expanded. A message of SQS has at
most 1 MiB.
"""
MAX_WRAPS = 8
"""How deep an event may be wrapped: base64, SQS and SNS around it are five."""
MAX_EXPANSION_RATIO = 200
"""Expanded by compressed bytes of a gzipped manifest, past `caps.UNQUESTIONED_EXPANDED_BYTES`.
Links differ in their signatures: lists of them compress tenfold.
"""
MAX_BAD_ENTRIES = 1_000
"""Entries of one manifest that cannot be read and are told one by one."""
