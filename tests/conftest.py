"""Before anything imports numpy: one thread for its linear algebra, as in the codec processes. And
the search for garbage, a tenth of a small run, is spared all that the tests import.
"""

import gc
import os
from collections import Counter

import pytest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

pytest_plugins = ["tests.support.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts modules with many slow tests first, so that no worker is left with a long one at the
    end while the others have nothing to do.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()
