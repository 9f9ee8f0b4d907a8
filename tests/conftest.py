"""Before anything imports numpy: one thread for its linear algebra, as in the codec processes."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

pytest_plugins = ["tests.support.fixtures"]
