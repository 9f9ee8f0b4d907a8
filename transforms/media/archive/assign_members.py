"""Decides which member of an archive each segment means: its dump, its description.

The vendor's tools disagree about what `base_filename` is: the name without suffix, the name with
it, or a part of the name. Names that are spelled exactly go first, those of all segments; what is
left may be spelled in another case or Unicode normalisation, or be a part of a longer name, where
that fits exactly one member and no other segment.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from transforms.media import caps
from transforms.media.archive.match_members import MembersByPath
from transforms.media.rtp.participant_sessions import ListedSegment

Name = tuple[str, str]
"""(folder of the metadata, `base_filename` as it is spelled there)."""
_Spelling = Callable[[str], str]


def name_of(segment: ListedSegment) -> Name:
    """Returns what a segment's members are looked for by."""
    return segment.metadata_member.rpartition("/")[0], segment.base_filename


@dataclass(slots=True)
class Assignment:
    """Paths of members, without suffix, by what metadata calls them."""

    paths: dict[Name, str] = field(default_factory=dict)
    spelled_otherwise: set[Name] = field(default_factory=set)
    """Those whose member has its name in another case or Unicode normalisation."""
    unclear: set[Name] = field(default_factory=set)
    """Those of which several members, or other segments too, could be meant."""


def assign_members(
    segments: Iterable[ListedSegment],
    members: MembersByPath[Any],
    beside: Mapping[Name, str] | None = None,
) -> Assignment:
    """Returns which member each segment means.

    Args:
      segments: all of the archive, also those that nobody reads: a member that one of them names
        exactly is no other's.
      members: of one kind.
      beside: paths of another kind that segments mean: one here is the same pair's.
    """
    stems = {name_of(segment): segment.stem for segment in segments}
    found = Assignment()
    _assign_exact(stems, members, found)
    for name in stems.keys() - found.paths.keys():
        path = (beside or {}).get(name)
        if path is not None and path in members:
            found.paths[name] = path
    for assign, spell in (
        (_assign_equal, _fold),
        (_assign_contained, _as_it_is),
        (_assign_contained, _fold),
    ):
        open_stems = {name: stem for name, stem in stems.items() if name not in found.paths}
        taken = set(found.paths.values())
        free = [path for path in members if path not in taken]
        if not open_stems or not free:
            break
        more = assign(open_stems, free, spell, found.unclear)
        found.paths |= more
        if spell is _fold:
            found.spelled_otherwise |= more.keys()
    found.unclear -= found.paths.keys()
    return found


def _assign_exact(
    stems: Mapping[Name, str], members: MembersByPath[Any], found: Assignment
) -> None:
    """Assigns what is spelled exactly; names that end in a dump's suffix come after those that
    lack it.
    """
    taken: set[str] = set()
    for name in sorted(stems, key=lambda name: (stems[name] != name[1], name)):
        folder, base = name
        fitting = [
            path
            for spelling in dict.fromkeys((stems[name], base))
            if (path := members.find(spelling, folder)) is not None
        ]
        if fitting:
            # Of two that fit one that is another's is not meant.
            path = next((path for path in fitting if path not in taken), fitting[0])
            found.paths[name] = path
            taken.add(path)


def _as_it_is(text: str) -> str:
    return text


def _fold(text: str) -> str:
    """Returns what is the same for names that differ in case or Unicode normalisation only."""
    if text.isascii():
        return text.lower()
    if sum(map(bool, map(unicodedata.combining, text))) > caps.MAX_COMBINING_MARKS:
        return text
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _assign_equal(
    stems: Mapping[Name, str], paths: Iterable[str], spell: _Spelling, unclear: set[Name]
) -> dict[Name, str]:
    """Returns the members whose names are equal in some spelling; they lie where `MembersByPath`
    looks for them.
    """
    by_path, by_last_name = defaultdict(list), defaultdict(list)
    for path in paths:
        by_path[spell(path)].append(path)
        by_last_name[spell(_last_name(path))].append(path)
    wanted = defaultdict(list)
    for name, stem in stems.items():
        beside = f"{name[0]}/{stem}" if name[0] else stem
        fitting = by_path[spell(beside)] or by_path[spell(stem)] or by_last_name[spell(stem)]
        if len(fitting) == 1:
            wanted[fitting[0]].append(name)
        elif fitting:
            unclear.add(name)
    unclear.update(name for names in wanted.values() if len(names) > 1 for name in names)
    return {names[0]: path for path, names in wanted.items() if len(names) == 1}


def _assign_contained(
    stems: Mapping[Name, str], paths: Collection[str], spell: _Spelling, unclear: set[Name]
) -> dict[Name, str]:
    """Returns the members whose names contain that of one segment.

    A member goes to the segment that fits no other. Where it is the only one for several, it is
    that one's whose name contains those of the others: `audio_10`, not `audio_1`.
    """
    spelled = {name: spell(stem) for name, stem in stems.items()}
    fitting: dict[str, list[str]] = defaultdict(list)
    for is_path in (False, True):  # a name with folders is looked for in whole paths
        wanted = {stem for stem in spelled.values() if ("/" in stem) == is_path}
        if not wanted:
            continue
        texts = {path: spell(path if is_path else _last_name(path)) for path in paths}
        for stem, path in _contained(wanted, texts):
            fitting[stem].append(path)
    candidates: dict[Name, set[str]] = {}
    for name, stem in spelled.items():
        near = {path for path in fitting[stem] if path.rpartition("/")[0] == name[0]}
        if near or fitting[stem]:
            candidates[name] = near or set(fitting[stem])
    taken = _share_out(candidates, spelled)
    unclear.update(candidates.keys() - taken.keys())
    return taken


def _contained(stems: Collection[str], texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields (stem, path) for each stem that a path's text contains; none at all when that would
    take long.
    """
    by_length: dict[int, set[str]] = defaultdict(set)
    for stem in stems:
        by_length[len(stem)].add(stem)
    windows = sum(
        count * max(0, size - length + 1)
        for size, count in Counter(map(len, texts.values())).items()
        for length in by_length
    )
    if windows > caps.MAX_NAME_WINDOWS:
        return
    for path, text in texts.items():
        for length, group in by_length.items():
            inside = {text[at : at + length] for at in range(len(text) - length + 1)}
            for stem in sorted(group & inside):
                yield stem, path


def _share_out(
    candidates: Mapping[Name, Collection[str]], spelled: Mapping[Name, str]
) -> dict[Name, str]:
    """Returns the one member of each name that has one only, once others have taken theirs."""
    left = {name: set(paths) for name, paths in candidates.items()}
    wanting = defaultdict(list)
    for name, paths in left.items():
        for path in paths:
            wanting[path].append(name)
    claimants: dict[str, list[Name]] = defaultdict(list)
    taken: dict[Name, str] = {}
    fresh = [name for name, paths in left.items() if len(paths) == 1]
    while fresh:
        touched = set()
        for name in fresh:
            (path,) = left[name]
            claimants[path].append(name)
            touched.add(path)
        fresh = []
        for path in touched:
            name = max(claimants[path], key=lambda name: len(spelled[name]))
            stem = spelled[name]
            others = (spelled[other] for other in claimants[path] if other != name)
            if not all(other in stem and other != stem for other in others):
                continue
            taken[name] = path
            for other in wanting[path]:
                if other != name:
                    left[other].discard(path)
                    fresh.append(other)
        fresh = [name for name in dict.fromkeys(fresh) if len(left[name]) == 1]
        fresh = [name for name in fresh if name not in claimants[next(iter(left[name]))]]
    return taken


def _last_name(path: str) -> str:
    return path.rpartition("/")[2]
