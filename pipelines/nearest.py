"""What to say of a name that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint(name: str, known: Iterable[str], otherwise: str, prefix: str = "") -> str:
    """Returns what follows a name that is not known: which was meant, if one is near.

    Args:
      name: as it was spelled.
      known: names that there are.
      otherwise: what is said where none is near.
      prefix: what stands before the name that is near, such as the table it is in.
    """
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f", did you mean {prefix}{near[0]}?" if near else otherwise
