"""Image files, and what is within files, as one source."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import partial

from layerprobe.columns import AT_ONCE, Packed
from layerprobe.records import Sample
from layerprobe.sources.files import Readable, file_state, read_file
from layerprobe.sources.jsonlines import Listed
from layerprobe.sources.tar_stream import TarStream


class FileSource:
    """One sample for each file, in order.

    Args:
        files: Paths, undecodable bytes as lone surrogates (`os.fsdecode`), and what is within files, be it a
            stream of such; with what a list says of them. What is there twice is two rows.
    """

    kind = "images"

    def __init__(self, files: Iterable[str | Readable | Listed | TarStream]) -> None:
        self._files = files if isinstance(files, Packed) else Packed(files)
        self.far = False
        """Whether any of them are read through a network."""
        self._length: int | None = len(self._files)
        for block in self._files.blocks():
            if set(map(type, block)) == {str}:
                continue
            for file in map(_file, block):
                self.far = self.far or _is_far(file)
                if isinstance(file, TarStream):
                    self._length = None

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("a stream has no length")
        return self._length

    def __iter__(self) -> Iterator[Sample]:
        numbers = itertools.count()
        for listed in self._files:
            file = _file(listed)
            for one in file if isinstance(file, TarStream) else (file,):
                yield _sample(next(numbers), one, listed.fields if isinstance(listed, Listed) else "")

    def rows(self, start: int, stop: int) -> Iterator[Sample]:
        """Samples `start` to `stop` - 1; see `protocols.Source`."""
        for row in range(start, stop, AT_ONCE):
            files = self._files[row : min(row + AT_ONCE, stop)]
            for number, listed in enumerate(files, row):
                file = _file(listed)
                assert not isinstance(file, TarStream), "a stream has no places"
                yield _sample(number, file, listed.fields if isinstance(listed, Listed) else "")

    def names(self, start: int, stop: int) -> list[tuple[str, str]]:
        """Key and fields of each of the samples `start` to `stop` - 1; see `protocols.Source`."""
        return [(file, "") if isinstance(file, str) else _name(file) for file in self._files[start:stop]]

    def states(self, start: int, stop: int) -> list[bytes]:
        """Which version of its file each of the samples `start` to `stop` - 1 has; see `protocols.Source`."""
        files = self._files[start:stop]
        return [file_state(file) if isinstance(file, str) else _state(_file(file)) for file in files]


def _state(file: str | Readable | TarStream) -> bytes:
    assert not isinstance(file, TarStream), "a stream has no places"
    return file_state(file) if isinstance(file, str) else file.state()


def _sample(number: int, file: str | Readable, fields: str) -> Sample:
    if isinstance(file, str):
        return Sample(number, file, partial(read_file, file), partial(file_state, file), fields)
    return Sample(number, file.key, file.read, file.state, fields)


def _name(listed: Readable | Listed | TarStream) -> tuple[str, str]:
    file = _file(listed)
    assert not isinstance(file, TarStream), "a stream has no places"
    return file if isinstance(file, str) else file.key, listed.fields if isinstance(listed, Listed) else ""


def _file(file: str | Readable | Listed | TarStream) -> str | Readable | TarStream:
    return file.file if isinstance(file, Listed) else file


def _is_far(file: str | Readable | TarStream) -> bool:
    return not isinstance(file, str | TarStream) and file.far
