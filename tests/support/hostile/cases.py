"""All hostile cases by their file names."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from tests.support.hostile import (
    bombs,
    descriptions,
    dump_names,
    dumps,
    gzip_damage,
    ids,
    many_members,
    metadata,
    metadata_files,
    not_archives,
    not_files,
    paths,
    tar_headers,
    times,
    zip_damage,
)
from tests.support.hostile.case import HostileCase

_SUBJECTS = (
    paths,
    not_files,
    tar_headers,
    many_members,
    gzip_damage,
    bombs,
    not_archives,
    zip_damage,
    metadata,
    ids,
    dump_names,
    times,
    metadata_files,
    dumps,
    descriptions,
)


def _cases_of(subject: ModuleType) -> Iterator[HostileCase]:
    return (value for value in vars(subject).values() if isinstance(value, HostileCase))


CASES = {case.name: case for subject in _SUBJECTS for case in _cases_of(subject)}
"""Every case by its file name, in the order in which they are written down."""
