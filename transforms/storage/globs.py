"""What a glob means, the same on every store."""

from __future__ import annotations

import errno
import functools
import re

# A set has at least one character: the `]` of `[]a]` and `[!]a]` is in it.
_TOKEN = re.compile(
    r"(?P<any>\*\*)|(?P<some>\*)|(?P<one>\?)|\[(?P<set>!?+\]?+[^\]]*+)\]|(?P<plain>.)", re.DOTALL
)
_PLAIN_PREFIX = re.compile(r"[^\[*?]*")


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Returns a glob as a regular expression for `fullmatch`. By Beam's rules `*` stays in its
    folder, `**` does not.

    Raises:
      OSError: a set that nothing can be in, such as `[z-a]`.
    """
    return _compile("".join(_spell_tokens(pattern)), pattern)


def may_match_below(pattern: str, folder: str) -> bool:
    """Whether a glob may match something below a folder, by their names alone. Raises: as
    `compile_glob`.
    """
    prefix, begin = plain_prefix(pattern), folder.rstrip("/") + "/"
    if prefix.startswith(begin):
        return True
    return begin.startswith(prefix) and any(
        first.fullmatch(begin) for first in _beginnings(pattern)
    )


@functools.lru_cache(maxsize=32)
def _beginnings(pattern: str) -> tuple[re.Pattern[str], ...]:
    """Returns what a match may begin with: the pattern cut behind each part of it."""
    tokens = _spell_tokens(pattern)
    plain = len(plain_prefix(pattern))
    return tuple(
        _compile("".join(tokens[:count]), pattern) for count in range(plain, len(tokens) + 1)
    )


def _spell_tokens(pattern: str) -> list[str]:
    """Returns the parts of a glob as regular expressions."""
    spelled = []
    for token in _TOKEN.finditer(pattern):
        if token["set"] is not None:
            inside = token["set"].replace("\\", r"\\").replace("[", r"\[")
            inside = (
                "^" + inside[1:]
                if inside[0] == "!"
                else "\\" + inside
                if inside[0] == "^"
                else inside
            )
            spelled.append(f"[{inside}]")
        else:
            spelled.append(
                {"any": ".*", "some": r"[^/\\]*", "one": "."}.get(
                    token.lastgroup or "", re.escape(token[0])
                )
            )
    return spelled


def _compile(spelled: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(spelled, re.DOTALL)
    except re.error as error:
        raise OSError(errno.EINVAL, f"no pattern: {error.msg}", pattern) from None


def quote(text: str) -> str:
    """Returns a glob that matches just this path, wildcards in it taken as letters."""
    return re.sub(r"([*?\[])", r"[\1]", text)


def unquote(pattern: str) -> str:
    """Returns the path that `quote` made a glob of."""
    return re.sub(r"\[([*?\[])\]", r"\1", pattern)


def plain_prefix(pattern: str) -> str:
    """Returns a pattern up to its first wildcard."""
    found = _PLAIN_PREFIX.match(pattern)
    return found[0] if found else ""
