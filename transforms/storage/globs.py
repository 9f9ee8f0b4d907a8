"""What a glob means, the same on every store."""

from __future__ import annotations

import errno
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
    try:
        return re.compile("".join(spelled), re.DOTALL)
    except re.error as error:
        raise OSError(errno.EINVAL, f"no pattern: {error.msg}", pattern) from None


def quote(text: str) -> str:
    """Returns a glob that matches just this path, wildcards in it taken as letters."""
    return re.sub(r"([*?\[])", r"[\1]", text)


def plain_prefix(pattern: str) -> str:
    """Returns a pattern up to its first wildcard."""
    found = _PLAIN_PREFIX.match(pattern)
    return found[0] if found else ""
