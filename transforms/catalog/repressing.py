"""How much of a catalog a run would press anew, for other settings or because this is a newer
version: past a share of it that is asked for, not done. Two profiles over one catalog, or a default
that changed, would else cost the work of months without a word.
"""

from __future__ import annotations

from dataclasses import dataclass

from transforms.catalog import partitions

SMALLEST_CATALOG = 200
"""Archives. Fewer are pressed anew unasked."""
LARGEST_PERCENT = 5
"""Of the catalog's archives: what is pressed anew unasked."""
_DATES_OF_RUNS = 30
"""The newest dates with runs that the cost is estimated from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repressing:
    """The archives that are done as they are, or given up, and that a run would press anew."""

    archives: int
    size_bytes: int
    is_refused: bool
    """Whether they are so many that they were left as they are."""
    catalog_archives: int | None = None
    """Archives the catalog has; None where they were not counted."""
    cpu_seconds: float | None = None
    """What they would cost, about, by the size of the archives of earlier runs; None where no run
    tells, or nobody is to be asked.
    """


def weigh(catalog_uri: str, archives: int, size_bytes: int, *, is_wanted: bool) -> Repressing:
    """Returns what pressing anew would come to. Reads nothing where there is nothing to weigh, else
    as many footers of `archives` as it needs, and the newest of `runs`.

    Args:
      catalog_uri: of the catalog.
      archives, size_bytes: how many would be pressed anew, and their bytes.
      is_wanted: whether it was asked for.

    Raises:
      StorageError: the catalog cannot be read.
    """
    unasked = Repressing(archives=archives, size_bytes=size_bytes, is_refused=False)
    if is_wanted or not archives:
        return unasked
    enough = archives * 100 / LARGEST_PERCENT
    known = 0
    for file in sorted(
        partitions.list_files(catalog_uri, "archives"), key=lambda file: file.call_date
    ):
        known += partitions.count_rows(file)
        if known >= enough:
            return unasked
    if known < SMALLEST_CATALOG:
        return unasked
    return Repressing(
        archives=archives,
        size_bytes=size_bytes,
        is_refused=True,
        catalog_archives=known,
        cpu_seconds=_estimate_cpu_seconds(catalog_uri, size_bytes),
    )


def _estimate_cpu_seconds(catalog_uri: str, size_bytes: int) -> float | None:
    """Returns what archives of a size cost by the newest runs that read any."""
    files = partitions.list_files(catalog_uri, "runs")
    cpu_ms = bytes_read = 0
    for file in sorted(files, key=lambda file: file.call_date)[-_DATES_OF_RUNS:]:
        for row in partitions.read_table(file, "runs", ("cpu_ms", "bytes_read")).to_pylist():
            if row["cpu_ms"] and row["bytes_read"]:
                cpu_ms += row["cpu_ms"]
                bytes_read += row["bytes_read"]
    return cpu_ms / 1_000 * size_bytes / bytes_read if bytes_read else None


def tell(repressing: Repressing) -> str:
    """Returns what an operator is to know of archives that are, or were not, pressed anew."""
    count = repressing.archives
    if not repressing.is_refused:
        return f"pressed anew, for other settings or as an older version's: {count} archives"
    seconds = repressing.cpu_seconds
    cost = "at a cost that no earlier run tells" if seconds is None else _hours(seconds)
    return (
        f"{count} of the {repressing.catalog_archives} archives of the catalog would be pressed "
        f"anew, for other settings or as an older version's, {cost}: they are left as they are; "
        "--repress presses them"
    )


def _hours(seconds: float) -> str:
    hours = seconds / 3_600
    return f"about {hours:.0f} CPU hours" if hours >= 10 else f"about {hours:.2g} CPU hours"
