"""Runs one target under atheris (libFuzzer). In an environment with the `fuzz` extra:

    python -m tests.fuzz.run TARGET CORPUS_FOLDER -max_total_time=60

Everything behind the target goes to libFuzzer. A finding is written to the current folder as
`crash-*`, `timeout-*` or `oom-*`.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(
    include=["transforms.media", "tests.fuzz.targets", "zipfile", "tarfile", "json"]
):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Starts the fuzzer; ends the process."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(
            "usage: python -m tests.fuzz.run TARGET [CORPUS] [libFuzzer options]; targets: "
            f"{', '.join(TARGETS)}"
        )
    target = TARGETS[sys.argv.pop(1)]
    # atheris itself keeps some 13 kB of each input: the limit is for a single one that takes much,
    # not for long runs.
    options = ["-timeout=10", "-rss_limit_mb=4096", "-max_len=20000", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:]], lambda data: target(bytes(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
