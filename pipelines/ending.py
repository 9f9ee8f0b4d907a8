"""How a command ended, for programs: `--summary-json` is written in every case, with the reason.
Imports what it needs only once there is something to write.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines import telling
from pipelines.options import value_in
from transforms.media.errors import CallpressError, ConfigError
from transforms.media.text import printable, without_secrets
from transforms.reason import Reason


class Ending:
    """What `--summary-json` is to hold at the end of a command, however that comes."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._uri = value_in(argv, "--summary-json")
        self._started_at = datetime.now(UTC)
        self._lock = threading.Lock()
        self.run_id: str | None = None
        """Known once the run has one."""
        self.reason: Reason | None = None
        """Known once something has ended the run."""

    def began(self, run_id: str, started_unix_ns: int) -> None:
        """Takes the run's name and its start, in whole microseconds."""
        self.run_id = run_id
        if lines := telling.json_lines():
            lines.run_id = run_id
        self._started_at = datetime.fromtimestamp(started_unix_ns // 1_000 / 1e6, UTC)

    def write(self, summary: Mapping[str, Any]) -> None:
        """Writes what there is to tell of a run that came to its end; nothing is written after it.

        Raises:
          StorageError: it cannot be written.
        """
        if self._uri is not None:
            _write(self._uri, summary)
            self._uri = None

    def close(self, exit_status: int, otherwise: Reason) -> None:
        """Writes, unless something was written, that the run has no more to tell than why it ended.

        What cannot be written is a line on standard error: the exit status stays.

        Args:
          exit_status: of the command.
          otherwise: the reason, if none is known by now.
        """
        with self._lock:
            uri, self._uri = self._uri, None
        if uri is None:
            return
        from transforms.catalog.results import summarise

        result: dict[str, Any] = {
            "run_id": self.run_id,
            "started_at": self._started_at.isoformat(),
            "finished_at": datetime.now(UTC).isoformat(),
            "counts": {},
            "repress": None,
            "reconcile": None,
            "notices": None,
            "unmatched": [],
            "failures": [],
        }
        summary = summarise(result, exit_status, self.reason or otherwise, [])
        try:
            check_summary_json(uri)
            _write(uri, summary)
        except ConfigError:
            return  # that is what ended the command, or will end the next
        except (CallpressError, OSError, ValueError) as error:
            line = printable(without_secrets(f"--summary-json {uri}: cannot be written: {error}"))
            telling.tell(line, "ERROR")


def check_summary_json(uri: str | None) -> None:
    """Raises: ConfigError: that is no name of a file."""
    if uri is not None:
        check_file("--summary-json", uri)


def check_file(flag: str, uri: str) -> None:
    """Finds out whether what a flag names can be a file to write. Raises: ConfigError."""
    from transforms.storage import objects, uris

    if uris.is_link(uri):
        shown = printable(uris.shown(uri))
        raise ConfigError(f"{flag} {shown}: https:// is read only")
    is_bucket = uri.rpartition("/")[0].endswith(":/")
    if uri.endswith("/") or is_bucket or objects.is_folder(uris.absolute(uri)):
        raise ConfigError(f"{flag} {uri}: is a folder, expected the name of a file in it")


def _write(uri: str, summary: Mapping[str, Any]) -> None:
    from transforms.storage import objects, uris

    uri = uris.absolute(uri)
    objects.find_credentials((uri,))
    objects.write_bytes(uri, json.dumps(summary, indent=2).encode() + b"\n")


def reason_of(error: BaseException) -> Reason:
    """Returns why a run ended with an error that this program raises on purpose; `bug` for any
    other. To be asked only once the modules of the run are imported.
    """
    from pipelines.places import NothingToDoError, UnwritableError
    from pipelines.runners.engine import EngineDownError
    from transforms.codec.slot_files import SlotFolderError
    from transforms.locking.lock import LockHeldError, LockLostError
    from transforms.media.errors import StorageError, StoreDownError

    kinds: tuple[tuple[type[Exception], Reason], ...] = (
        (NothingToDoError, Reason.NOTHING_MATCHED),
        (LockHeldError, Reason.LOCK_HELD),
        (LockLostError, Reason.LOCK_LOST),
        (StorageError, Reason.STORAGE_DOWN),
        (UnwritableError, Reason.STORAGE_DOWN),
        (StoreDownError, Reason.STORAGE_DOWN),
        (SlotFolderError, Reason.STORAGE_DOWN),
        (EngineDownError, Reason.ENGINE_DOWN),
        (ConfigError, Reason.USAGE),
    )
    return next((reason for kind, reason in kinds if isinstance(error, kind)), Reason.BUG)
