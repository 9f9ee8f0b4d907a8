#!/usr/bin/env python
"""Writes docs/catalog.md and the schema of receipts from the code. A test holds both to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transforms.catalog import schema
from transforms.media import errors
from transforms.proof.receipt import Receipt

_ATHENA = {
    "string": "string",
    "int64": "bigint",
    "double": "double",
    "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamp",
}
_BIGQUERY_URI = "gs://BUCKET/catalog"


def make_catalog_page() -> str:
    """Returns the page."""
    lines = [
        "# The catalog",
        "",
        "Made by `scripts/make_docs.py` from the schemas in `transforms/catalog/schema.py`; do not",
        "edit.",
        "",
        "Each table is a folder of Parquet objects:",
        "`<catalog>/<table>/call_date=YYYY-MM-DD/*.parquet`. `call_date` is the UTC date of the",
        "call's `timeline_start_time` (of the archive's modification for `archives` and for",
        "failures without a call; of `started_at` for `runs`). Every table has at least one",
        "object, also with no rows.",
        "",
        "Call time is in ms from a call's `timeline_start_time`, by the server's clock.",
        "`offset_ms` of a file is the call time of its first sample: for the mix, call time = file",
        "time + `offset_ms`. Individual files keep their sender's clock; the `segments` table maps",
        "their file time to call time, linear within a row.",
        "",
        "A run replaces all rows of the calls that it presses. Rows of `notices` are only added:",
        "they stay when their files are replaced, and when their call is gone.",
        "",
        "`ok`: all of it; `partial`: something usable was made and something is missing; `failed`:",
        "nothing was made; `empty`: nothing was sent.",
        "",
    ]
    for table in schema.TABLES:
        lines += [
            f"## {table}",
            "",
            f"Key: `{' '.join(schema.KEYS[table])}`",
            "",
            "| column | type | meaning |",
            "|---|---|---|",
        ]
        lines += [f"| `{name}` | {kind} | {text} |" for name, kind, text in schema.describe(table)]
        lines.append("")
    lines += ["## Values of `error_type`", "", "| value | meaning | tried again |", "|---|---|---|"]
    for kind in sorted(_kinds_of(errors.RecordingError), key=lambda k: k.__name__):
        text = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        lines.append(f"| `{kind.__name__}` | {text} | {'yes' if kind.retryable else 'no'} |")
    lines += ["", "## Table definitions", "", "### DuckDB", "", "```sql"]
    lines += [
        f"CREATE VIEW {table} AS SELECT * FROM read_parquet('CATALOG/{table}/*/*.parquet', "
        "hive_partitioning = true, union_by_name = true);"
        for table in schema.TABLES
    ]
    lines += [
        "```",
        "",
        "A catalog on gs://, s3:// or Azure is copied to disk first (`gcloud storage cp -r`",
        "or its like), or read through DuckDB's `httpfs` and `azure`.",
        "",
    ]
    lines += ["### BigQuery external tables", "", "```sql"]
    for table in schema.TABLES:
        lines += [
            f"CREATE EXTERNAL TABLE dataset.{table}",
            "WITH PARTITION COLUMNS (call_date DATE)",
            f"OPTIONS (format = 'PARQUET', uris = ['{_BIGQUERY_URI}/{table}/*.parquet'],",
            f"  hive_partition_uri_prefix = '{_BIGQUERY_URI}/{table}', "
            "enable_list_inference = true);",
        ]
    lines += ["```", "", "### Athena", "", "```sql"]
    for table in schema.TABLES:
        lines += _hive(
            table, "EXTERNAL TABLE", "STORED AS PARQUET LOCATION 's3://BUCKET/catalog/{table}/';"
        )
        lines.append(f"MSCK REPAIR TABLE {table};")
    lines += ["```", "", "### Spark", "", "```sql"]
    lines += [
        f"CREATE TABLE {table} USING parquet OPTIONS (path 'CATALOG/{table}', mergeSchema 'true');"
        for table in schema.TABLES
    ]
    lines += ["```", ""]
    return "\n".join(lines)


def _kinds_of(kind: type[errors.RecordingError]) -> set[type[errors.RecordingError]]:
    """Returns the kinds of an error, of all depths."""
    return {each for below in kind.__subclasses__() for each in (below, *_kinds_of(below))}


def _hive(table: str, what: str, end: str) -> list[str]:
    columns = []
    for name, kind, _ in schema.describe(table):
        inner = kind.removeprefix("list<item: ").removeprefix("list<element: ").removesuffix(">")
        hive = _ATHENA[inner]
        columns.append(f"  {name} {f'array<{hive}>' if kind.startswith('list<') else hive}")
    return [
        f"CREATE {what} {table} (",
        ",\n".join(columns),
        ")",
        "PARTITIONED BY (call_date string)",
        end.format(table=table),
    ]


def make_receipt_schema() -> str:
    """Returns the JSON Schema of receipts."""
    made = Receipt.model_json_schema()
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_titles(made),
        "title": "Receipt of Callpress",
    }
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _without_titles(found: Any) -> Any:
    """Returns a schema without the titles that are made of the names of keys."""
    if isinstance(found, list):
        return [_without_titles(each) for each in found]
    if not isinstance(found, dict):
        return found
    return {
        name: _without_titles(each)
        for name, each in found.items()
        if name != "title" or not isinstance(each, str)
    }


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/catalog.md": make_catalog_page,
    "docs/schemas/receipt.schema.json": make_receipt_schema,
}


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    made = {root / name: make() for name, make in PAGES.items()}
    if sys.argv[1:] == ["--check"]:
        wrong = [page for page, text in made.items() if page.read_text("utf-8") != text]
        names = " and ".join(str(page.relative_to(root)) for page in wrong)
        sys.exit(f"{names}: not what the code says, run scripts/make_docs.py" if wrong else 0)
    for page, text in made.items():
        page.parent.mkdir(exist_ok=True)
        page.write_text(text, encoding="utf-8")
