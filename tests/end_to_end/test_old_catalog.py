"""A catalog that an earlier version made: what it has is not pressed again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command import ROOT, SAMPLE, callpress, press, query
from transforms.catalog.schema import LATER_TABLES

KEPT = ROOT / "tests" / "data" / "catalog_3a91846"
MODIFIED_UNIX_NS = 1_795_348_800_000_000_000
"""2026-11-22T12:00:00Z, when the archive had been modified that the kept catalog was made of."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with `raw/weekly_sync.tar.gz`, and what the earlier version left of it in `out`: the
    catalog, which names the archive by where it lies here; no recordings.
    """
    archive = tmp_path / "raw" / SAMPLE.name
    archive.parent.mkdir()
    shutil.copyfile(SAMPLE, archive)
    os.utime(archive, ns=(MODIFIED_UNIX_NS, MODIFIED_UNIX_NS))
    catalog = tmp_path / "out" / "catalog"
    shutil.copytree(KEPT, catalog)
    (file,) = (catalog / "archives").rglob("*.parquet")
    rows = pq.ParquetFile(file).read()
    place = rows.schema.get_field_index("archive_uri")
    named = pa.array([str(archive)] * rows.num_rows, rows.schema.field(place).type)
    pq.write_table(rows.set_column(place, rows.schema.field(place), named), file)
    return tmp_path


def _contents(catalog: Path) -> dict[str, bytes]:
    """Returns every object of the tables that say what was pressed."""
    return {
        str(path.relative_to(catalog)): path.read_bytes()
        for path in catalog.rglob("*.parquet")
        if path.relative_to(catalog).parts[0] not in ("runs", "failures", *LATER_TABLES)
    }


def _values(settings_json: str) -> set[tuple[str, str, str]]:
    """Returns section, key and value of all settings of a run; later versions may have more."""
    found: set[tuple[str, str, str]] = set()
    for name, value in json.loads(settings_json).items():
        keys = value.items() if isinstance(value, dict) else [("", value)]
        found.update((name, key, repr(each)) for key, each in keys)
    return found


def test_dry_run_over_an_old_catalog_would_press_nothing(old: Path) -> None:
    done = press(old / "out", old / "raw" / "*", flags=("--dry_run",))
    size_bytes = SAMPLE.stat().st_size
    assert f"skip\tdone: ok\t{size_bytes}\t{old / 'raw' / SAMPLE.name}\n" in done.out
    assert "would press 0 of 1 archives" in done.out


def test_run_over_an_old_catalog_presses_nothing(old: Path) -> None:
    catalog = old / "out" / "catalog"
    before = _contents(catalog)
    done = press(old / "out", old / "raw" / "*")
    assert "1 listed, 1 skipped" in done.out
    assert not (old / "out" / "recordings").exists()
    assert _contents(catalog) == before
    first, second = sorted(query(catalog, "runs"), key=lambda row: row["started_at"])
    assert (first["archives_ok"], second["archives_skipped"], second["archives_ok"]) == (1, 1, 0)
    assert second["settings_fingerprint"] == first["settings_fingerprint"]
    assert _values(second["settings_json"]) >= _values(first["settings_json"])


def test_run_over_an_old_catalog_with_another_setting_presses_anew(old: Path) -> None:
    config = old / "other.toml"
    config.write_text("[mp3]\nbitrate_kbps = 64\n")
    done = callpress(
        *("run", "--input", old / "raw" / "*", "--output", old / "out", "--config", config),
        "--dry_run",
    )
    assert "press\tother settings\t" in done.out
