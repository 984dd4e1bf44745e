"""Where pictures of class maps and their numbers go: one picture for all, or one for each into a folder."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerprobe.class_maps.drawing import draw, overlaid
from layerprobe.errors import AllInputsFailedError, LayerprobeError, NoInputError, UsageError
from layerprobe.formats.placement import check_target
from layerprobe.run.plan import check_not_an_input
from layerprobe.views.overlay import ALONE, IN_SHEET, Overlaid
from layerprobe.views.saving import check_picture, make_folder, save_bytes, save_picture

if TYPE_CHECKING:
    from layerprobe.class_maps.compute import ClassMaps, MappedImage
    from layerprobe.class_maps.wanted import Found
    from layerprobe.records import Array

MOST = 200
"""So many images a sheet holds."""
LARGE = 8
"""Up to so many are kept large, for some of them may fail, and one alone is drawn large."""


def open_pictures(
    maps: ClassMaps, output: str | None, *, overwrite: bool, scale: str, beside: Sequence[str]
) -> Sheet | Folder:
    """Check where pictures go, before anything is computed.

    Args:
        maps: What is to be drawn.
        output: A name that ends with `.png`, or one without a suffix for a folder; None: `NAME.cam.png` for
            one image, else `cam.png`.
        overwrite: Whether existing files are replaced.
        scale: As `drawing.overlaid` takes it.
        beside: Files that must not be replaced.

    Raises:
        UsageError: The name is neither, or a sheet would hold too many images.
        OutputError: Something is in the way.
    """
    keys = maps.keys()
    if output is None:
        output = f"{next(iter(picture_names(keys)))}.cam.png" if len(keys) == 1 else "cam.png"
    kept = [*beside, *(key for key in keys if os.path.isfile(key))]
    if os.path.splitext(output)[1]:
        if maps.rows is None or maps.rows > MOST:
            raise UsageError(
                f"a sheet holds {MOST} images at most: give -o a name without a suffix, for a folder with a "
                "picture of each."
            )
        _check([output], overwrite, kept)
        return Sheet(maps, output, scale)
    make_folder(output)
    _check([os.path.join(output, f"{name}.png") for name in picture_names(keys)], overwrite, kept)
    return Folder(maps, output, overwrite, scale)


class Sheet:
    """All images in one picture."""

    def __init__(self, maps: ClassMaps, path: str, scale: str) -> None:
        self._maps, self._path, self._scale = maps, path, scale
        self._side = ALONE if (maps.rows or 0) <= LARGE else IN_SHEET
        self._shown: list[Overlaid] = []
        self._numbers = _Numbers()

    def add(self, found: MappedImage) -> None:
        """Take one image; it is written with the others."""
        self._shown.append(overlaid(found, self._scale, self._side))
        self._numbers.add(found)

    def finish(self) -> str:
        """Write the picture and the numbers, and give the picture's path.

        Raises:
            AllInputsFailedError: No image could be used.
            NoInputError: None came.
            WriteError: The disk is full, or fails.
        """
        if not self._shown:
            raise _nothing(self._maps)
        save_picture(draw(self._shown, self._maps.found), self._path)
        save_bytes(self._numbers.file(self._maps.found), _numbers_path(self._path))
        return self._path


class Folder:
    """A picture of each image."""

    def __init__(self, maps: ClassMaps, path: str, overwrite: bool, scale: str) -> None:
        self._maps, self._path, self._overwrite, self._scale = maps, path, overwrite, scale
        self._names: dict[str, int] = {}
        self._count = 0

    def add(self, found: MappedImage) -> str:
        """Write one image's picture and numbers, and give the picture's path."""
        name = _numbered(found.key, self._names)
        path = os.path.join(self._path, f"{name}.png")
        _check([path], self._overwrite, [])
        save_picture(draw([overlaid(found, self._scale)], self._maps.found), path)
        numbers = _Numbers()
        numbers.add(found)
        save_bytes(numbers.file(self._maps.found), _numbers_path(path))
        self._count += 1
        return path

    def finish(self) -> str:
        """Give the folder's path.

        Raises:
            AllInputsFailedError: No image could be used.
            NoInputError: None came.
        """
        if not self._count:
            raise _nothing(self._maps)
        return self._path


class _Numbers:
    """The numbers behind a picture, on their way to a `.npz` file."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._on_image: Array | None = None

    def add(self, found: MappedImage) -> None:
        """Take one image's."""
        maps = found.maps
        self._on_image = None if self._rows else np.stack([one.on_image for one in maps])
        self._rows.append(
            {
                "maps": np.stack([one.values for one in maps]),
                "classes": [one.number for one in maps],
                "names": [one.name for one in maps],
                "scores": np.array([one.score for one in maps], np.float32),
                "probabilities": np.array([one.probability for one in maps], np.float32),
                "peaks": [one.peak for one in maps],
                "sizes": found.image.size,
                "paths": found.key,
            }
        )

    def file(self, how: Found) -> memoryview:
        """See docs/commands.md for what is in it."""
        arrays = {name: np.array([row[name] for row in self._rows]) for name in self._rows[0]}
        if np.isnan(arrays["probabilities"]).all():
            del arrays["probabilities"]
        if self._on_image is not None:
            arrays["on_image"] = self._on_image
        about = {"layer": how.layer, "method": how.method, "output": how.output, **how.provenance}
        arrays["provenance"] = np.array(json.dumps(about))
        written = io.BytesIO()
        np.savez(written, **arrays)  # type: ignore[arg-type]
        return written.getbuffer()


def picture_names(keys: Iterable[str]) -> Iterator[str]:
    """Names of pictures of images, without a suffix; one that came before gets a number, `NAME~2`."""
    names: dict[str, int] = {}
    for key in keys:
        yield _numbered(key, names)


def _numbered(key: str, names: dict[str, int]) -> str:
    stem = os.path.splitext(os.path.basename(key.partition("::")[2] or key))[0] or "image"
    while len(os.fsencode(stem)) > 200:
        stem = stem[:-1]
    names[stem] = names.get(stem, 0) + 1
    return stem if names[stem] == 1 else f"{stem}~{names[stem]}"


def _numbers_path(picture: str) -> str:
    return f"{os.path.splitext(picture)[0]}.npz"


def _check(pictures: Sequence[str], overwrite: bool, kept: Sequence[str]) -> None:
    """Raise unless pictures and their numbers can be written, and are none of the files that are read."""
    numbers = [_numbers_path(path) for path in pictures]
    for path, beside in zip(pictures, numbers, strict=True):
        check_picture(path, overwrite)
        check_target(beside, "npz", overwrite)
    check_not_an_input([*pictures, *numbers], kept)


def _nothing(maps: ClassMaps) -> LayerprobeError:
    if not maps.failures:
        return NoInputError("no images came: expected some in what is read as a stream.")
    first = maps.failures[0]
    return AllInputsFailedError(f"no image could be used: {first.key!r}: {first.reason.rstrip('.')}.")
