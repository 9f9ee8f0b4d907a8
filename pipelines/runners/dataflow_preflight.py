"""What of a command line Dataflow cannot run, told before anything is imported or asked for it.

Beam finds some of it after minutes, and some of it only the workers do. Beam-free.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipelines.options import RunArguments, told_with
from pipelines.parsers import beam_spelling, refuse_unknown
from pipelines.parsing import StrictParser
from transforms import stamp
from transforms.storage import buckets, google_account, objects

_RUNNERS = ("dataflow", "testdataflow")
_PROJECT = re.compile(r"[a-z][-a-z0-9:.]+[a-z0-9]")  # as Beam takes it
_REGION = re.compile(r"[a-z]+(?:-[a-z]+)+[0-9]+")  # u-germany-northeast1 as well
_ZONE = re.compile(rf"({_REGION.pattern})-[a-z]")
# https://github.com/distribution/reference: a registry's host, names, then tag or digest.
_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/)?{_NAME}(?:/{_NAME})*"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))?",
    re.ASCII,
)
_SETUP_FILES = ("setup.py", "pyproject.toml")
_NEAR = 0.85


def is_dataflow(runner: str | None) -> bool:
    """Whether a value of `--runner` means Dataflow, in any of the spellings that Beam takes."""
    if runner is None:
        return False
    return runner.rsplit(".", 1)[-1].lower().removesuffix("runner") in _RUNNERS


def find_problems(arguments: RunArguments) -> tuple[str, ...]:
    """Returns what is wrong with a command line for Dataflow, each thing in a line; nothing for
    other engines.

    The network is asked only where all else is right, for 2 s at most: whether there are
    credentials.

    Raises:
      UsageError: an option without its value, or one that is missing is there misspelt.
    """
    given = _given(arguments)
    if not is_dataflow(given.runner):
        return ()
    found = (*_missing(given), *_wrong(arguments, given))
    if found:
        # Rather than what follows from it.
        _, strays = _parser().parse_known_args(arguments.beam_args)
        refuse_unknown(_misspelt(strays), _flags())
        for line in arguments.beam_lines:
            _, strays = _parser().parse_known_args([beam_spelling(line.argument)])
            with told_with(line):
                refuse_unknown(_misspelt(strays), _flags())
        return found
    why = None if google_account.has_emulator() else google_account.why_no_credentials()
    return (why,) if why else ()


def with_pins(arguments: RunArguments) -> RunArguments:
    """Returns a command line that has workers install the pinned versions, where it sends them the
    program and nothing else says what they have.

    They are installed there, by pip and by their hashes: Beam would download each by a command that
    takes no hashes (Beam 2.77, `Stager._populate_requirements_cache`).
    """
    given = _given(arguments)
    if not (is_dataflow(given.runner) and _needs_pins(given)):
        return arguments
    pins = (f"--requirements_file={stamp.pins_path()}", "--requirements_cache=skip")
    return replace(arguments, beam_args=(*arguments.beam_args, *pins))


def _given(arguments: RunArguments) -> argparse.Namespace:
    """Returns what is given of those options, by the command line where it says, else by a file of
    flags.

    Raises:
      UsageError: one is without its value.
    """
    given, _ = _parser().parse_known_args(arguments.beam_args)
    of_file = argparse.Namespace()
    for line in arguments.beam_lines:
        with told_with(line):
            _parser().parse_known_args([beam_spelling(line.argument)], of_file)
    for name, value in vars(given).items():
        if not value:
            setattr(given, name, getattr(of_file, name, value))
    return given


def _parser() -> StrictParser:
    """Returns a parser of those of Beam's options that are looked at here."""
    parser = StrictParser(add_help=False, allow_abbrev=False)
    for name in (
        "runner",
        "project",
        "region",
        "temp_location",
        "staging_location",
        "template_location",
        "sdk_container_image",
        "worker_harness_container_image",
        "setup_file",
        "requirements_file",
        "requirements_cache",
    ):
        parser.add_argument(f"--{name}")
    parser.add_argument("--extra_package", "--extra_packages", action="append", default=[])
    parser.add_argument("--sdk_harness_container_image_overrides", action="append", default=[])
    return parser


def _flags() -> set[str]:
    return {option for action in _parser()._actions for option in action.option_strings}


def _misspelt(strays: Sequence[str]) -> list[str]:
    """Returns options that are none of those looked at here, but nearly."""
    names = (stray.split("=", 1)[0] for stray in strays)
    return [name for name in names if difflib.get_close_matches(name, _flags(), 1, _NEAR)]


def _image(given: argparse.Namespace) -> str | None:
    return given.sdk_container_image or given.worker_harness_container_image


def _names_image(given: argparse.Namespace) -> bool:
    """Whether workers get another image than Beam's own: by its name, or in that one's place."""
    return bool(_image(given) or given.sdk_harness_container_image_overrides)


def _sends_program(given: argparse.Namespace) -> bool:
    """Whether workers are sent this program: as its source, or as a package of its name."""
    names = (os.path.basename(package) for package in given.extra_package)
    return bool(given.setup_file) or any(name.startswith("callpress") for name in names)


def _needs_pins(given: argparse.Namespace) -> bool:
    return _sends_program(given) and not (_names_image(given) or given.requirements_file)


def _missing(given: argparse.Namespace) -> Iterator[str]:
    if not given.project:
        yield "--project is needed with --runner=DataflowRunner: the id of a Google Cloud project"
    if not (given.region or os.environ.get("CLOUDSDK_COMPUTE_REGION")):
        yield (
            "--region is needed with --runner=DataflowRunner: where the workers are, such as "
            "europe-west1 (or CLOUDSDK_COMPUTE_REGION in the environment)"
        )
    if not given.temp_location:
        yield (
            "--temp_location is needed with --runner=DataflowRunner: a folder in a bucket that all "
            "workers can read and write, gs://BUCKET/FOLDER"
        )
    if not (_names_image(given) or _sends_program(given)):
        yield (
            "workers would not have this program: expected --sdk_container_image with an image "
            f"that has it (tag {stamp.own_stamp().image_tag}), or --setup_file=./setup.py"
        )


def _wrong(arguments: RunArguments, given: argparse.Namespace) -> Iterator[str]:
    yield from _wrong_places(arguments)
    if given.project and not _PROJECT.fullmatch(given.project):
        yield (
            f"--project {given.project}: is no id of a project, expected small letters, digits and "
            "dashes, as in gcloud projects list"
        )
    if given.region and not _REGION.fullmatch(given.region):
        zone = _ZONE.fullmatch(given.region)
        hint = (
            f"is a zone, expected its region {zone[1]}" if zone else "expected one as europe-west1"
        )
        yield f"--region {given.region}: {hint}"
    for flag in ("temp_location", "staging_location"):
        place = getattr(given, flag)
        if place and (why := buckets.why_no_place(place)):
            yield f"--{flag} {place}: {why}"
    template = given.template_location
    if template and (buckets.why_no_place(template) or template.endswith("/")):
        yield (
            f"--template_location {template}: expected a place that Dataflow can read, "
            "gs://bucket/folder/name"
        )
    yield from _wrong_image(given)
    yield from _wrong_files(given)


def _wrong_places(arguments: RunArguments) -> Iterator[str]:
    """Yields those that workers cannot reach."""
    places = [("--input", pattern) for pattern in arguments.inputs]
    places.append(("--output", arguments.output))
    if arguments.catalog:
        places.append(("--catalog", arguments.catalog))
    for flag, place in places:
        if objects.is_on_this_machine(place):
            yield (
                f"{flag} {place}: is on this machine, where workers of Dataflow cannot reach it; "
                "expected a place in a bucket, gs://BUCKET/..."
            )


def _wrong_image(given: argparse.Namespace) -> Iterator[str]:
    old, new = given.worker_harness_container_image, given.sdk_container_image
    if old and new and old != new:
        yield (
            "--worker_harness_container_image: is the old name of --sdk_container_image, and they "
            "differ; expected one of them"
        )
    image = _image(given)
    if not image:
        return
    flag = "--sdk_container_image" if new else "--worker_harness_container_image"
    found = _IMAGE.fullmatch(image)
    if found is None:
        yield (
            f"{flag} {image}: is no name of an image, expected HOST/PROJECT/REPOSITORY/IMAGE:TAG"
        )
        return
    told, own = stamp.parse_image_tag(found["tag"] or ""), stamp.own_stamp()
    if told is None:
        return
    if told != own.image_tag:
        differ = "; ".join(
            f"{what} is {there} in the image, {here} here"
            for what, there, here in (
                ("callpress", told.callpress, own.image_tag.callpress),
                ("Python", told.python, own.python),
                (stamp.PINS, told.pins, own.pins),
            )
            if there != here
        )
        yield f"{flag} {image}: {differ}; expected the tag {own.image_tag}"
    elif wrong := _other_beam():
        yield f"{flag} {image}: {wrong}"


def _wrong_files(given: argparse.Namespace) -> Iterator[str]:
    setup_file, requirements = given.setup_file, given.requirements_file
    if setup_file:
        if not os.path.isfile(setup_file):
            yield f"--setup_file {setup_file}: no such file"
        elif os.path.basename(setup_file) not in _SETUP_FILES:
            yield f"--setup_file {setup_file}: expected a file called {' or '.join(_SETUP_FILES)}"
        elif not os.path.dirname(setup_file):
            yield (
                f"--setup_file {setup_file}: Beam wants its folder as well, expected ./{setup_file}"
            )
    if requirements and not os.path.isfile(requirements):
        yield f"--requirements_file {requirements}: no such file"
    if _needs_pins(given):
        if given.requirements_cache not in (None, "skip"):
            yield (
                f"--requirements_cache {given.requirements_cache}: workers install the pinned "
                "versions by themselves, expected none without a --requirements_file"
            )
        if wrong := _other_beam():
            yield f"{wrong} (or a --requirements_file of your own)"


def _other_beam() -> str | None:
    """Returns that the pinned Beam is not the one here, with which the job would be made."""
    pinned, own = stamp.pinned_beam(), stamp.own_stamp().beam
    if pinned == own:
        return None
    return (
        f"workers would have Beam {pinned}, and here is {own}; expected the same, as "
        f"pip install -r {stamp.pins_path()} gives"
    )
