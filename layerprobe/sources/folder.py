"""The images in a folder and the folders in it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from layerprobe.errors import SampleError
from layerprobe.images.signatures import HEAD, IMAGE_SUFFIXES, image_format
from layerprobe.sources.files import open_regular

Identity = tuple[int, int]

_PLAIN = tuple(suffix.encode() for suffix in sorted(IMAGE_SUFFIXES))


@dataclass(slots=True)
class _Level:
    """One folder on the way from the top to where the walk is."""

    path: str
    within: str
    """What the paths in it begin with."""
    names: Iterator[bytes]
    """Of what is in it, in order."""
    folders: Collection[bytes]
    """Those of them that are folders."""
    inside: frozenset[Identity]
    """Device and inode of this folder and those around it."""
    found: bool = False


def images_in(folder: str) -> Iterator[str]:
    """Find the images in a folder, at any depth.

    A file is one if its content or its suffix says so, whether or not it can be decoded; folders that cannot
    be listed, and folders called like an image that hold none, are given too, as rows that will fail. Hidden
    files and `Thumbs.db` are left out. Links are followed, but not back into a folder that the walk is in.

    Returns:
        Paths that begin with `folder`, in the order of the names' bytes, level by level.

    Raises:
        OSError: The folder itself cannot be listed.
    """
    top = _enter(folder, frozenset())
    levels = [top] if top else []
    while levels:
        level = levels[-1]
        for name in level.names:
            path = level.within + os.fsdecode(name)
            if name not in level.folders:
                if name.endswith(_PLAIN) or _is_image(path):
                    level.found = True
                    yield path
                continue
            try:
                inner = _enter(path, level.inside)
            except OSError:
                level.found = True
                yield path
                continue
            if inner is not None:
                levels.append(inner)
                break
        else:
            levels.pop()
            if levels and not level.found and _called_like_an_image(level.path):
                level.found = True
                yield level.path
            if levels:
                levels[-1].found |= level.found


def _enter(folder: str, around: frozenset[Identity]) -> _Level | None:
    """List a folder; None for one that the walk is in already."""
    info = os.stat(folder)
    identity = (info.st_dev, info.st_ino)
    if identity in around:
        return None
    folders: set[bytes] = set()
    names: list[bytes] = []
    with os.scandir(os.fsencode(folder)) as found:
        for entry in found:
            name = entry.name
            if name[:1] != b"." and name.lower() != b"thumbs.db":
                names.append(name)
                if _is_folder(entry):
                    folders.add(name)
    names.sort()
    return _Level(folder, os.path.join(folder, ""), iter(names), folders, around | {identity})


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere or round in circles
        return False


def _called_like_an_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def _is_image(path: str) -> bool:
    """Whether a file, or whatever has its name, is to be a row."""
    if _called_like_an_image(path):
        return True
    try:
        with open_regular(path) as file:
            return image_format(file.read(HEAD)) is not None
    except (OSError, SampleError):
        return False
