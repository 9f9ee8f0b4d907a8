"""Reads the table `[notify]` of a job profile. No value is told of what is wrong in it: it may be a
secret that does not belong there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pipelines import nearest
from pipelines.targets import Manner, NotifyTable, has_secret, in_manner, parse_target
from transforms.bounds import parse_duration
from transforms.media.errors import ConfigError
from transforms.media.text import printable, without_secrets
from transforms.storage import secrets
from transforms.targets import (
    LEAST_TIMEOUT_SECONDS,
    MOST_AT_A_TIME,
    MOST_BUDGET_SECONDS,
    MOST_TIMEOUT_SECONDS,
    USUAL_BUDGET_SECONDS,
    Target,
    TargetKind,
    parse_url_base,
)

NAME = "notify"
_OF_ENDPOINTS = ("secret", "api_key", "webhook_keys")
_OF_SENDING = ("timeout", "at_a_time")
_KEYS = ("budget", "url_base", *_OF_ENDPOINTS, *_OF_SENDING, "targets")
_KEYS_OF_TARGET = ("to", *_OF_ENDPOINTS, *_OF_SENDING)
_KEYS_OF_KIND = {
    TargetKind.HTTPS: (*_OF_ENDPOINTS, *_OF_SENDING),
    TargetKind.PUBSUB: _OF_SENDING,
    TargetKind.JSON_LINES: (),
}
_WHAT = {TargetKind.PUBSUB: "a topic", TargetKind.JSON_LINES: "a folder"}
_LONGEST_NAME = 200
"""Of a target; it stands in every row, and in a column of the summary."""


def read_notify(table: Any, config: str) -> NotifyTable:
    """Returns what the table says. Args: config: the profile. Raises: ConfigError."""
    where = f"--config {config}: {NAME}"
    _check_keys(table, _KEYS, where, f"[{NAME}]")
    manner = _manner(table, Manner(), where)
    tables = table.get("targets", {})
    example = f'[{NAME}.targets.crm] with to = "https://..."'
    if not isinstance(tables, dict):
        raise ConfigError(f"{where}.targets: expected tables, such as {example}")
    return NotifyTable(
        targets=tuple(
            _target(name, each, manner, f"{where}.targets.{json.dumps(_shown(name))}", example)
            for name, each in tables.items()
        ),
        url_base=_url_base(table, where),
        budget_seconds=_seconds(
            table, "budget", 0, MOST_BUDGET_SECONDS, where, USUAL_BUDGET_SECONDS
        ),
        manner=manner,
    )


def _target(name: str, table: Any, manner: Manner, where: str, example: str) -> Target:
    if not 0 < len(name) <= _LONGEST_NAME or printable(name) != name or not name.strip():
        raise ConfigError(f"{where}: expected a name of 1 to {_LONGEST_NAME} characters")
    if has_secret(name):
        raise ConfigError(f"{where}: rows have the name of a target, expected one without a query")
    _check_keys(table, _KEYS_OF_TARGET, where, example)
    to = table.get("to")
    if not isinstance(to, str) or not to:
        raise ConfigError(f"{where}: to: expected text, such as {example}")
    try:
        target = parse_target(to)
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"{where}: to: {error}") from None
    if has_secret(to):
        raise ConfigError(
            f"{where}: to: has a query or a user, expected a reference to the URL "
            f"({secrets.EXPECTED})"
        )
    for key in table:
        if key != "to" and key not in _KEYS_OF_KIND[target.kind]:
            raise ConfigError(f"{where}: {key}: is nothing of {_WHAT[target.kind]}, expected none")
    return replace(in_manner(target, _manner(table, manner, where)), name=name)


def _manner(table: Mapping[str, Any], otherwise: Manner, where: str) -> Manner:
    """Returns how is sent by a table. Args: otherwise: where that does not say it."""
    for key in _OF_ENDPOINTS:
        value = table.get(key, [])
        values = value if key == "webhook_keys" and isinstance(value, list) else [value]
        if key in table and not all(isinstance(each, str) for each in values):
            expected = "a list of references" if key == "webhook_keys" else "text"
            raise ConfigError(f"{where}: {key}: expected {expected}")
        if key in table and not all(map(secrets.is_reference, values)):
            raise ConfigError(
                f"{where}: {key} is to be named, not spelled out, expected {secrets.EXPECTED}"
            )
    keys = table.get("webhook_keys", [])
    at_a_time = table.get("at_a_time", otherwise.at_a_time)
    if isinstance(at_a_time, bool) or not (
        isinstance(at_a_time, int) and 1 <= at_a_time <= MOST_AT_A_TIME
    ):
        raise ConfigError(f"{where}: at_a_time: expected a number from 1 to {MOST_AT_A_TIME}")
    return Manner(
        secret=secrets.spelled(table["secret"]) if "secret" in table else otherwise.secret,
        api_key=secrets.spelled(table["api_key"]) if "api_key" in table else otherwise.api_key,
        webhook_keys=tuple(map(secrets.spelled, [keys] if isinstance(keys, str) else keys))
        if "webhook_keys" in table
        else otherwise.webhook_keys,
        timeout_seconds=_seconds(
            table,
            "timeout",
            LEAST_TIMEOUT_SECONDS,
            MOST_TIMEOUT_SECONDS,
            where,
            otherwise.timeout_seconds,
        ),
        at_a_time=at_a_time,
    )


def _seconds(
    table: Mapping[str, Any], key: str, least: int, most: int, where: str, otherwise: float
) -> float:
    if key not in table:
        return otherwise
    text, seconds = table[key], -1
    if isinstance(text, str):
        with contextlib.suppress(ConfigError):
            seconds = parse_duration(key, text)
    if not least <= seconds <= most:
        raise ConfigError(
            f'{where}: {key}: expected a length of time such as "6s" or "5m", {least} s to {most} s'
        )
    return float(seconds)


def _url_base(table: Mapping[str, Any], where: str) -> str:
    text = table.get("url_base", "")
    if not isinstance(text, str):
        raise ConfigError(f"{where}: url_base: expected text")
    return parse_url_base(f"{where}: url_base", text) if "url_base" in table else ""


def _check_keys(table: Any, keys: Collection[str], where: str, example: str) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, {example}")
    for key in table:
        if key not in keys:
            hint = nearest.hint(key, keys, f", expected {', '.join(keys)}")
            raise ConfigError(f"{where}: unknown key {_shown(key)}{hint}")


def _shown(name: str) -> str:
    return printable(without_secrets(name.split("?", 1)[0]))[:_LONGEST_NAME]
