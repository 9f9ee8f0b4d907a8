"""The `callpress` command: run, inspect, verify. Imports what each needs only once the command line is known to be right."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipelines.options import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    InspectArguments,
    UsageError,
    VerifyArguments,
    parse_arguments,
)
from transforms.media.errors import CallpressError, ConfigError
from transforms.plain_text import printable, without_secrets


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit status. Errors are one line on standard error."""
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        if isinstance(arguments, InspectArguments):
            from pipelines.inspect_archives import inspect

            return inspect(arguments)
        if isinstance(arguments, VerifyArguments):
            from pipelines.verify import verify

            return verify(arguments)
        if arguments.dry_run:
            from pipelines.dry_run import dry_run

            return dry_run(arguments)
        from pipelines.launch import run

        return run(arguments)
    except UsageError as error:
        _tell(f"{error}; see callpress --help")
        return EXIT_USAGE
    except ConfigError as error:
        _tell(str(error))
        return EXIT_USAGE
    except CallpressError as error:
        _tell(str(error))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILED


def _tell(line: str) -> None:
    print(f"callpress: {printable(without_secrets(line))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
