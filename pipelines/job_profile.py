"""Reads a job profile (TOML) into frozen settings, and beside them the accounts of stores and who
is told; refuses unknown keys and wrong values with the key's name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipelines import nearest, notify_table
from pipelines.targets import NotifyTable
from transforms.media.errors import ConfigError
from transforms.media.settings import PressSettings
from transforms.media.text import printable, without_secrets
from transforms.storage import secrets
from transforms.storage.storage_options import (
    ALL_KEYS,
    SECRET_KEYS,
    StoreAccount,
    StreamAccount,
    place_of,
)

_STORES = "stores"
"""The table of tables that say how places are reached: no part of the settings, whose fingerprint
has nothing of them.
"""


_STREAM = "stream"
"""The table that says how the vendor's API is asked, also no part of the settings."""


class JobProfile(NamedTuple):
    """What a job profile says."""

    settings: PressSettings
    accounts: tuple[StoreAccount, ...]
    """Of stores."""
    stream: StreamAccount
    """Of the vendor's API."""
    notify: NotifyTable
    """Who is told of what is made; no part of the settings, either."""


def load_profile(config: str | None) -> JobProfile:
    """Returns what a job profile says, the defaults when there is none.

    Args:
      config: the name of a profile that comes with the program, or the path of a TOML file. It is
        a path when there is such a file, when it ends in `.toml` or has a slash.

    Raises:
      ConfigError: no profile has that name (the nearest one is named), the file cannot be read, is
        not TOML, has a key that does not exist (the nearest one is named), or a value that cannot
        be.
    """
    if config is None:
        return JobProfile(PressSettings(), (), StreamAccount(), NotifyTable())
    # Imported only when there is a profile: `inspect` most often has none and answers at once.
    import tomllib

    from pydantic import TypeAdapter, ValidationError

    try:
        data = tomllib.loads(_read(config))
    except OSError as error:
        raise ConfigError(f"--config {config}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {config}: not TOML: {error}") from None
    accounts = _accounts(data.pop(_STORES, {}), config)
    stream = _stream(data.pop(_STREAM, {}), config)
    notify = notify_table.read_notify(data.pop(notify_table.NAME, {}), config)
    _refuse_unknown(data, PressSettings, "", config, (_STREAM, notify_table.NAME, _STORES))
    try:
        # By way of JSON, where strict means that text is not a number and still may name a choice.
        settings = TypeAdapter(PressSettings).validate_json(
            json.dumps(data, default=str), strict=True
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
        what = first["msg"].removeprefix("Value error, ")
        found = first["input"]
        shown = f" (found {found!r})" if isinstance(found, str | int | float | bool) else ""
        raise ConfigError(
            f"--config {config}: {where + ': ' if where else ''}{what}{shown}"
        ) from None
    return JobProfile(settings, accounts, stream, notify)


def _stream(table: Any, config: str) -> StreamAccount:
    """Returns what the table of the vendor's API says. Raises: ConfigError: a key or a value cannot
    be, or a secret is spelled out; no value is told.
    """
    where = f"--config {config}: {_STREAM}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, [{_STREAM}]")
    keys = [field.name for field in fields(StreamAccount)]
    for key, value in table.items():
        if key not in keys:
            hint = nearest.hint(key, keys, f", expected {', '.join(keys)}")
            raise ConfigError(f"{where}: unknown key {_shown(key)}{hint}")
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{where}: {key}: expected text")
    try:
        return StreamAccount(
            **{
                key: value if key == "base_url" else secrets.spelled(value)
                for key, value in table.items()
            }
        )
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _accounts(tables: Any, config: str) -> tuple[StoreAccount, ...]:
    """Returns what the tables of places say. No value of a key is told: it may be a secret that
    does not belong there.

    Raises:
      ConfigError: a place, a key or a value cannot be, or a secret is spelled out.
    """
    if not isinstance(tables, dict):
        raise ConfigError(f"--config {config}: {_STORES}: expected tables, {_example()}")
    found: dict[str, StoreAccount] = {}
    for name, table in tables.items():
        where = f"--config {config}: {_STORES}.{json.dumps(_shown(name))}"
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: expected a table, {_example()}")
        for key, value in table.items():
            if key not in ALL_KEYS:
                hint = nearest.hint(key, ALL_KEYS, f", expected {', '.join(ALL_KEYS)}")
                raise ConfigError(f"{where}: unknown key {_shown(key)}{hint}")
            expected, kind = ("true or false", bool) if key == "path_style" else ("text", str)
            if not isinstance(value, kind) or value == "":
                raise ConfigError(f"{where}: {key}: expected {expected}")
        try:
            place = place_of(name)
            if place in found:
                raise ValueError("has two tables, expected one")
            references = {
                key: secrets.spelled(value) for key, value in table.items() if key in SECRET_KEYS
            }
            found[place] = StoreAccount(place=place, **{**table, **references})
        except (ValueError, ConfigError) as error:
            raise ConfigError(f"{where}: {error}") from None
    return tuple(found.values())


def _example() -> str:
    return f'such as [{_STORES}."s3://bucket"]'


def _shown(name: str) -> str:
    """Returns the name of a place or key without what could let somebody in."""
    return printable(without_secrets(name.split("?", 1)[0]))[:200]


def _read(config: str) -> str:
    if Path(config).is_file() or config.endswith(".toml") or "/" in config:
        return Path(config).read_text(encoding="utf-8-sig")  # some editors begin it with a mark
    from importlib import resources

    profiles = {
        file.name.removesuffix(".toml"): file
        for file in resources.files("configs").iterdir()
        if file.name.endswith(".toml")
    }
    if config not in profiles:
        raise ConfigError(
            f"--config {config}: no profile has this name{nearest.hint(config, profiles, '.')} "
            f"There are {', '.join(sorted(profiles))}; any other is given by the path of its file"
        )
    return profiles[config].read_text(encoding="utf-8")


def _refuse_unknown(
    data: dict[str, Any], kind: Any, prefix: str, config: str, others: Sequence[str] = ()
) -> None:
    """Args: others: keys that may stand beside those of the settings, and are read elsewhere."""
    known = {field.name: field for field in fields(kind)}
    names = (*known, *others)
    for key, value in data.items():
        if key not in known:
            hint = nearest.hint(key, names, f", expected one of {', '.join(names)}", prefix)
            raise ConfigError(f"--config {config}: unknown key {prefix}{key}{hint}")
        section: Any = known[key].default_factory  # of a section its own class
        if isinstance(value, dict) and is_dataclass(section):
            _refuse_unknown(value, section, f"{prefix}{key}.", config)
