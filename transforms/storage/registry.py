"""Which store a URI belongs to, by its scheme. The modules of the stores and their libraries, which
take a second to import, are imported only when a URI needs them.

A new store is a class that fulfils `store.Store` and a line in `_STORES`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from transforms.media.errors import ConfigError
from transforms.media.text import printable
from transforms.storage import uris
from transforms.storage.store import Store


@functools.cache
def _local() -> Store:
    from transforms.storage.local import LocalStore

    return LocalStore()


@functools.cache
def _gcs() -> Store:
    from transforms.storage.gcs import GcsStore

    return GcsStore()


@functools.cache
def _https() -> Store:
    from transforms.storage.https import HttpsStore

    return HttpsStore()


@functools.cache
def _s3() -> Store:
    from transforms.storage.s3 import S3Store

    return S3Store()


@functools.cache
def _azure() -> Store:
    from transforms.storage.azure import AzureStore

    return AzureStore()


@functools.cache
def _beam() -> Store:
    from transforms.storage.beam import BeamStore

    return BeamStore()


_STORES: dict[str, Callable[[], Store]] = {
    "": _local,
    "gs": _gcs,
    "https": _https,
    "http": _https,
    "s3": _s3,
    "azfs": _azure,
}
"""By scheme; a path has none."""


def store_of(uri: str) -> Store:
    """Returns the store that a URI, a path or a glob belongs to: one that we know, or whatever Beam
    knows by that scheme.

    Raises:
      ConfigError: nobody knows the scheme.
    """
    scheme = uris.scheme_of(uri)
    if scheme in _STORES:
        return _STORES[scheme]()
    if scheme not in (of_beam := _schemes_of_beam()):
        known = ", ".join(
            f"{name}://" for name in sorted({"file", *filter(None, _STORES), *of_beam})
        )
        raise ConfigError(
            f"{printable(uris.shown(uri))}: unknown scheme {scheme}://, expected a path or one of "
            f"{known}"
        )
    return _beam()


def _schemes_of_beam() -> set[str]:
    from apache_beam.io.filesystem import FileSystem
    from apache_beam.io.filesystems import FileSystems  # noqa: F401 - imports those it comes with

    return {name for known in FileSystem.get_all_subclasses() if (name := known.scheme())}
