"""The `callpress` command: what is to begin before anything else is imported."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

PRESSING = frozenset({"extract-audio", "mix-audio", "process-all"})
"""Commands that are done in a second, half of which a codec process takes to start."""
_WINDOWS = (
    "callpress: does not run on Windows itself (it shares a machine by locked files); run it under "
    "WSL: https://learn.microsoft.com/windows/wsl/install"
)
_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit status, whatever becomes of what it prints. Errors are
    one line on standard error.
    """
    if sys.platform == "win32":
        print(_WINDOWS, file=sys.stderr)
        return _EXIT_USAGE
    argv = sys.argv[1:] if argv is None else argv
    begun = _early_codec_process() if PRESSING.intersection(argv[:1]) else contextlib.nullcontext()
    try:
        with begun:
            from pipelines.obey import obey

            return obey(argv)
    except KeyboardInterrupt:  # while all this was imported; later on others see to it
        return _EXIT_INTERRUPTED


@contextlib.contextmanager
def _early_codec_process() -> Iterator[None]:
    """Has a codec process import what it needs while this one does, and reads its flags."""
    from transforms.codec.pool import POOL
    from transforms.media.job import CODEC_MEMORY_BYTES

    POOL.restart()
    try:
        with contextlib.suppress(OSError):  # whoever needs it tries again, and tells
            # A profile that says otherwise gets another, in due time.
            POOL.warm(CODEC_MEMORY_BYTES)
        yield
    finally:
        POOL.stop()


if __name__ == "__main__":
    sys.exit(main())
