"""The `callpress` command: run, inspect. Imports what a command needs only once the command line is known to be right."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipelines.options import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, InspectArguments, UsageError, parse_arguments
from transforms.media.errors import CallpressError, ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit status. Errors are one line on standard error."""
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        if isinstance(arguments, InspectArguments):
            from pipelines.inspect_archives import inspect

            return inspect(arguments)
        from pipelines.launch import run

        return run(arguments)
    except UsageError as error:
        print(f"callpress: {error}; see callpress --help", file=sys.stderr)
        return EXIT_USAGE
    except ConfigError as error:
        print(f"callpress: {error}", file=sys.stderr)
        return EXIT_USAGE
    except CallpressError as error:
        print(f"callpress: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
