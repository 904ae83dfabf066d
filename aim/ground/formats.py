"""The formats of our files: a name with a number, and beside it the version of aim-video that wrote the file."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aim.ground.errors import UserError


def own_version() -> str:
    """The installed version of aim-video."""
    try:
        return version("aim-video")
    except PackageNotFoundError:
        return "(not installed)"  # a checkout


def stamp(known: str) -> dict[str, str]:
    """The metadata of a file of the format `known`."""
    return {"format": known, "version": own_version()}


def check_format(metadata: Mapping[str, str], known: str, path: Path, writer: str) -> None:
    """Raise UserError for a file that `writer` didn't write, and for a newer format than `known`."""
    written = metadata.get("format", "")
    name, _, number = written.rpartition(" ")
    own, _, newest = known.rpartition(" ")
    if name != own or not number.isdecimal():
        raise UserError(f"{path} was not written by {writer}: its metadata has no format={known!r}")
    if int(number) > int(newest):
        raise UserError(
            f"{path} has the format {written!r} of a newer aim-video ({metadata.get('version', 'unknown version')}); "
            f"this one is {own_version()} and reads up to {known!r}; update it, or run {writer} with this one"
        )
