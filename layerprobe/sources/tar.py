"""The images in a tar file, each read at its place: nothing is unpacked."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from layerprobe.errors import AccessError, NoInputError, SampleError
from layerprobe.images.signatures import HEAD, IMAGE_SUFFIXES, image_format
from layerprobe.sources.files import MAX_BYTES, Container, reason

SUFFIX = ".tar"


@dataclass(frozen=True, slots=True)
class TarMember:
    """One image in a tar file."""

    archive: Container
    """The tar file."""
    name: str
    """As the tar file has it; undecodable bytes as lone surrogates."""
    offset: int
    """Of its first byte."""
    size: int
    """In bytes."""
    fault: str = ""
    """Why nothing can be read here."""

    @property
    def key(self) -> str:
        """What its row is called."""
        return f"{self.archive.name}::{self.name}"

    @property
    def far(self) -> bool:
        """Whether the tar file is read through a network."""
        return self.archive.far

    def read(self) -> bytes:
        """The member's bytes.

        Raises:
            SampleError: The tar file is not what it was when it was listed, or ends within the member.
        """
        if self.fault:
            raise SampleError(self.fault)
        if self.size > MAX_BYTES:
            raise SampleError(f"{self.size} bytes are more than the limit of {MAX_BYTES}")
        data = self.archive.read_at(self.offset, self.size)
        if len(data) < self.size:
            raise SampleError("truncated: the tar file ends within it")
        return data

    def state(self) -> bytes:
        """Say which version of the tar file is there."""
        return self.archive.state()


def is_tar(path: str) -> bool:
    """Whether a path is called like a tar file that is not compressed."""
    return path.lower().endswith(SUFFIX)


def members_of(file: Container) -> Iterator[TarMember]:
    """Find the images in a tar file, in its order.

    As in folders, a file is an image if its content or its suffix says so; hidden files are left out. Where a
    tar file is cut short or damaged, what follows is lost: a last member that cannot be read says so.

    Raises:
        AccessError: The file cannot be read.
        NoInputError: It is missing, or no tar file.
    """
    try:
        with file.open() as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                yield from _images(file, archive, stream, size)
    except PermissionError as error:
        raise AccessError(f"{file.name!r} cannot be read: {reason(error)}.") from error
    except OSError as error:
        raise NoInputError(f"{file.name!r} cannot be read: {reason(error)}.") from error
    except (tarfile.TarError, SampleError) as error:
        raise NoInputError(f"{file.name!r} is not a tar file that can be read: {error}.") from error


def _images(file: Container, archive: tarfile.TarFile, stream: BinaryIO, size: int) -> Iterator[TarMember]:
    while (info := _next(archive)) is not None:
        member = TarMember(file, info.name, info.offset_data, info.size)
        if info.issym() or info.islnk() or info.issparse():
            if not hidden(info.name) and called_like_an_image(info.name):
                yield replace(member, fault="a link or a sparse file within the tar file, which is not read")
            continue
        if not info.isfile():
            continue
        cut = member.offset + member.size > size
        if cut or (not hidden(info.name) and _is_image(member, stream)):
            yield member
        if cut:
            return
    # After a header that it cannot read, tarfile ends without a word; a tar file ends with zeros.
    if _at(stream, archive.offset, tarfile.BLOCKSIZE).strip(b"\0"):
        fault = "damaged: no member begins here, so that what follows is lost"
        yield TarMember(file, f"byte {archive.offset}", archive.offset, 0, fault)


def _at(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    info = archive.next()
    archive.members = []  # type: ignore[attr-defined]  # it would keep every header in memory
    return info


def hidden(name: str) -> bool:
    """Whether a member is one of those that folders and tar files are full of, and no image of the user's."""
    base = name.rsplit("/", 1)[-1]
    return base.startswith(".") or base.lower() == "thumbs.db"


def called_like_an_image(name: str) -> bool:
    """Whether a member has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _is_image(member: TarMember, stream: BinaryIO) -> bool:
    if called_like_an_image(member.name):
        return True
    return image_format(_at(stream, member.offset, min(HEAD, member.size))) is not None
