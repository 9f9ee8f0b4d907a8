"""Before anything imports numpy: one thread for its linear algebra, as in the codec processes. And
the search for garbage, a tenth of a small run, is spared all that the tests import.
"""

import gc
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

pytest_plugins = ["tests.support.fixtures"]


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()
