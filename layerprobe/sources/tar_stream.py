"""The images in a tar file that is read from its beginning to its end: in a pipe, or compressed."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from layerprobe.errors import NoInputError, SampleError, UsageError
from layerprobe.images.signatures import HEAD, image_format
from layerprobe.sources.files import MAX_BYTES, Container, reason
from layerprobe.sources.tar import called_like_an_image, hidden

SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Of compressed tar files; in a pipe their content tells them."""
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_MAGIC = slice(257, 262)
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
"""What broken streams raise, and OSError."""

_CUT = "truncated: the tar file ends within it"


@dataclass(frozen=True, slots=True)
class StreamedMember:
    """One image of a tar stream, which is in memory."""

    key: str
    """What its row is called."""
    data: bytes
    fault: str = ""
    """Why nothing could be read."""

    far = False

    def read(self) -> bytes:
        """Give the member's bytes; raises SampleError."""
        if self.fault:
            raise SampleError(self.fault)
        return self.data

    def state(self) -> bytes:
        """Say size and checksum: nothing else tells, when the stream comes again."""
        return b"%d:%d" % (len(self.data), zlib.crc32(self.data))


class TarStream:
    """The images of one tar file, in its order; nothing is known of them until their turn has come.

    Args:
        label: What the file is called.
        begin: Opens it at its beginning.
    """

    def __init__(self, label: str, begin: Callable[[], IO[bytes]]) -> None:
        self._label, self._begin = label, begin

    def __iter__(self) -> Iterator[StreamedMember]:
        """Read the file; where it is cut short or damaged a last member says so.

        Raises:
            NoInputError: It cannot be read, or is no tar file.
        """
        try:
            with self._begin() as file, _Archive.open(fileobj=file, mode="r|*") as archive:
                yield from self._images(archive)
        except OSError as error:
            raise NoInputError(f"{self._label!r} cannot be read: {reason(error)}.") from error
        except (*_DAMAGE, SampleError) as error:
            raise NoInputError(f"{self._label!r} is not a tar file that can be read: {error}.") from error

    def _images(self, archive: _Archive) -> Iterator[StreamedMember]:
        while (info := _next(archive)) is not None:
            key = f"{self._label}::{info.name}"
            linked = info.issym() or info.islnk() or info.issparse()
            if hidden(info.name) or not (info.isfile() or linked):
                continue
            if linked:
                if called_like_an_image(info.name):
                    fault = "a link or a sparse file within the tar file, which is not read"
                    yield StreamedMember(key, b"", fault)
                continue
            data = _image(archive, info)
            if isinstance(data, str):
                yield StreamedMember(key, b"", data)
                if data == _CUT:
                    return
            elif data is not None:
                yield StreamedMember(key, data)
        if not isinstance(archive.ended, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
            fault = (
                "truncated or damaged: the tar file does not end as it should, so that rows may be missing"
            )
            yield StreamedMember(f"{self._label}::byte {archive.offset}", b"", fault)


class _Header(tarfile.TarInfo):
    """Notes how an archive ends: `TarFile.next` takes whatever it cannot read for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            assert isinstance(archive, _Archive)
            archive.ended = error
            raise


class _Archive(tarfile.TarFile):
    tarinfo = _Header
    ended: tarfile.HeaderError | None = None


def _next(archive: _Archive) -> tarfile.TarInfo | None:
    """Give the next member; None where there is none, or what should be one cannot be read."""
    try:
        info = archive.next()
    except (*_DAMAGE, OSError):
        return None
    archive.members = []  # type: ignore[attr-defined]  # it would keep every header in memory
    return info


def _image(archive: _Archive, info: tarfile.TarInfo) -> bytes | str | None:
    """Read a member that is an image; a text says what is wrong, None that it is something else."""
    file = archive.extractfile(info)
    assert file is not None
    try:
        data = file.read(min(HEAD, info.size))
        if not called_like_an_image(info.name) and image_format(data) is None:
            return None
        if info.size > MAX_BYTES:
            return f"{info.size} bytes are more than the limit of {MAX_BYTES}"
        data += file.read(info.size - len(data))
    except (*_DAMAGE, OSError):
        data = b""
    return data if len(data) == info.size else _CUT


def is_compressed_tar(path: str) -> bool:
    """Whether a path is called like a tar file that is compressed."""
    return path.lower().endswith(SUFFIXES)


def begins_tar(head: bytes) -> bool:
    """Whether these are the first bytes, 512 where there are as many, of a tar file or a compressed one."""
    return head[_MAGIC] == b"ustar" or head.startswith(_COMPRESSED)


def compressed_tar(file: Container) -> TarStream:
    """Give the images of a compressed tar file, which is opened when they are asked for."""
    return TarStream(file.name, file.open)


def piped_tar(head: bytes, rest: IO[bytes]) -> TarStream:
    """Give the images of a tar file in a pipe.

    Args:
        head: What was read of it already.
        rest: Where the rest comes from.
    """
    left = [Rejoined(head, rest)]

    def begin() -> IO[bytes]:
        if not left:
            raise UsageError("a tar file on standard input can be read only once.")
        return left.pop()  # type: ignore[return-value]

    return TarStream("-", begin)


class Rejoined:
    """A stream of which the first bytes were read already.

    Args:
        head: Those.
        rest: What follows.
    """

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int) -> bytes:
        """Give at least one byte and at most `size`, or nothing at the end."""
        data, self._head = self._head[:size], self._head[size:]
        return data or self._rest.read(size)

    def __enter__(self) -> Rejoined:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the stream open, which is somebody else's."""
