"""Image files, and what is within files, as one source."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

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

    def __init__(self, files: Sequence[str | Readable | Listed | TarStream]) -> None:
        self._files = files
        self.far = any(map(_is_far, map(_file, files)))
        """Whether any of them are read through a network."""
        self._length = None if any(isinstance(_file(file), TarStream) for file in files) else len(files)

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("a stream has no length")
        return self._length

    def __iter__(self) -> Iterator[Sample]:
        rows = itertools.count()
        for file in self._files:
            fields = file.fields if isinstance(file, Listed) else ""
            file = _file(file)
            for one in file if isinstance(file, TarStream) else (file,):
                if isinstance(one, str):
                    yield Sample(next(rows), one, partial(read_file, one), partial(file_state, one), fields)
                else:
                    yield Sample(next(rows), one.key, one.read, one.state, fields)


def _file(file: str | Readable | Listed | TarStream) -> str | Readable | TarStream:
    return file.file if isinstance(file, Listed) else file


def _is_far(file: str | Readable | TarStream) -> bool:
    return not isinstance(file, str | TarStream) and file.far
