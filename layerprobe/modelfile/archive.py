"""Opens a saved model, whatever its file is called: HDF5, `.keras`, architecture JSON or SavedModel.

The file is opened once, its kind decided by its first bytes, and everything is read through that one
descriptor, so that a file which is replaced meanwhile cannot mix with itself. Nothing is read but what is
asked for: the config and the shapes of the weights of a 550 MB file take milliseconds.

An `Archive` gives

- `file_format`: "hdf5", "keras" (the zip of Keras 3 and tf.keras 2.12 and later), "json", "savedmodel";
- `config()`: the model's `{"class_name": ..., "config": ...}` as plain parsed JSON;
- `keras_version` and `backend`, as the file states them;
- `hdf5()`: the h5py file that holds the weights: the `.h5` itself, `model.weights.h5` inside the zip, or
  the separate weights file; None where there is none. Links are not followed by opening it;
- `zip`: the `zipfile.ZipFile` of the `.keras` format, None for the others;
- `savedmodel`: the `SavedModel` of that format, None for the others;
- `sha256()`: of the bytes that were opened, and `verify()`: whether those of the zip's weights are whole;
  both come of one reading beside the caller's own work, which `begin_reading` starts;
- `check_unchanged()`: whether somebody wrote to it since.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import h5py

from layerprobe.errors import ModelError
from layerprobe.modelfile import hdf5, jsontext
from layerprobe.modelfile.arrays import Source
from layerprobe.modelfile.digest import Digest, Span, Unchanged, folder_sha256
from layerprobe.modelfile.opening import open_file, open_hdf5, reading, recognise
from layerprobe.modelfile.savedmodel import SavedModel
from layerprobe.modelfile.streams import Window

__all__ = ["Archive", "open_archive", "reading"]

MAX_CONFIG_BYTES = 64 << 20
"""The config of the largest keras.applications architecture has 1 MB."""

_WEIGHTS_MEMBER = "model.weights.h5"


class Archive:
    """One opened model file; made by `open_archive`, closed by `close` or at the end of `with`."""

    def __init__(
        self, path: str, file_format: str, stream: io.BufferedReader | None, resources: ExitStack
    ) -> None:
        self.path = path
        self.file_format = file_format
        self.keras_version: str | None = None
        self.backend: str | None = None
        self.zip: zipfile.ZipFile | None = None
        self.savedmodel: SavedModel | None = None
        self.weights_source: Source | None = None
        """Where `hdf5()` lies in an open file, once it was called; None where it was packed."""
        self._stream = stream
        self._resources = resources
        self._config: dict[str, Any] = {}
        self._hdf5: h5py.File | None = None
        self._weights_path: str | None = None
        self._member: Span | None = None
        """Where in the zip the weights are, unless they are compressed."""
        self._digest: Digest | None = None
        self._opened = [Unchanged(path, stream)]

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        if self._digest is not None:
            self._digest.stop()
        self._resources.close()

    def config(self) -> dict[str, Any]:
        """The model's class name and config, parsed; the same object at each call, not to be modified."""
        return self._config

    def hdf5(self) -> h5py.File | None:
        """The HDF5 file that holds the weights, or None where the model came without any.

        Raises:
            ModelError: The weights inside the zip are damaged.
        """
        if self._hdf5 is None and self.zip is not None and self._stream is not None:
            place = f"{_WEIGHTS_MEMBER} of {self.path}"
            member, self._member = _member_stream(self.zip, self._stream, _WEIGHTS_MEMBER, place)
            self._hdf5 = self._resources.enter_context(open_hdf5(member, place))
            if self._member is not None:
                self.weights_source = Source(self._stream.fileno(), self._member.start)
        return self._hdf5

    def begin_reading(self, hashed: bool) -> None:
        """Read the file through in the background, for what `verify` and, if `hashed`, `sha256` will ask.

        To be called after the inspection, which opens the weights unless it refuses them.
        """
        if self._digest is not None:
            if self._digest.hashed >= hashed and self._digest.summed == self._member:
                return
            self._digest.stop()
        if self._stream is not None and (hashed or self._member is not None):
            self._digest = Digest(self._stream.fileno(), hashed=hashed, summed=self._member)

    def verify(self) -> None:
        """Compare the checksum of the zip's weights; waits until they are read from end to end.

        Raises:
            ModelError: The CRC does not fit: bytes were changed or lost.
        """
        self.hdf5()
        self.begin_reading(hashed=False)
        if self.zip is None or self._member is None or self._digest is None:
            return  # What is compressed was compared when it was unpacked; the other formats have none.
        with reading(self.weights_place):
            found = self._digest.crc()
        if found != self.zip.getinfo(_WEIGHTS_MEMBER).CRC:
            raise ModelError(f"{self.weights_place} is damaged, its CRC is wrong: fetch or save it again.")

    def check_unchanged(self, by_name: bool = False) -> None:
        """Look whether anything that was opened was written to since.

        Args:
            by_name: Whether it was opened by its name once more, so that this too must be the same file.

        Raises:
            ModelError: It was.
        """
        for opened in self._opened:
            if by_name:
                opened.check_name()
            else:
                opened.check()

    @property
    def weights_place(self) -> str:
        """What `hdf5()` is, for messages: a path, or "model.weights.h5 of x.keras"."""
        if self._weights_path is not None:
            return self._weights_path
        if self.savedmodel is not None:
            return os.path.join(self.path, "variables")
        return self.path if self.zip is None else f"{_WEIGHTS_MEMBER} of {self.path}"

    def sha256(self) -> str:
        """SHA-256 of what was opened, as 64 hexadecimal digits; waits until all of it is read.

        Raises:
            ModelError: It was changed since it was opened.
        """
        if self._stream is None:
            found = folder_sha256(self.path)
        else:
            self.begin_reading(hashed=True)
            assert self._digest is not None
            with reading(self.path):
                found = self._digest.sha256()
        self.check_unchanged()
        return found


def open_archive(path: str, weights: str | None = None) -> Archive:
    """Open a saved model.

    Args:
        path: Of the model; its name does not matter.
        weights: Of an HDF5 file that holds the weights, for a model that came without them, or in place
            of its own.

    Raises:
        NoInputError: There is no such file.
        AccessError: The system does not let us read it.
        ModelError: It is no saved model, or damaged, or holds weights only.
    """
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        return _open_savedmodel(path, weights)
    if os.path.isfile(os.path.join(path, "config.json")):
        return _open_unpacked(path, weights)
    with ExitStack() as resources:
        stream = resources.enter_context(open_file(path))
        file_format = recognise(stream, path)
        archive = Archive(path, file_format, stream, resources)
        if file_format == "hdf5":
            _read_hdf5(archive, stream, resources)
        elif file_format == "keras":
            _read_keras(archive, stream, resources)
        else:
            _read_json(archive, stream)
        if weights is not None:
            _attach_weights(archive, weights, resources)
        archive._resources = resources.pop_all()
        return archive


def _open_unpacked(path: str, weights: str | None) -> Archive:
    """A `.keras` file whose members are files of a folder (`model.save(..., zipped=False)`)."""
    with ExitStack() as resources:
        archive = Archive(path, "keras", None, resources)
        for name in ("config.json", "metadata.json"):
            place = os.path.join(path, name)
            if name == "metadata.json" and not os.path.exists(place):
                continue
            text = resources.enter_context(open_file(place)).read(MAX_CONFIG_BYTES + 1)
            if len(text) > MAX_CONFIG_BYTES:
                raise ModelError(f"{place} is larger than any model needs: expected at most 64 MiB.")
            if name == "config.json":
                archive._config = _parse_config(text, place)
            else:
                _read_metadata(archive, text, place)
        _attach_weights(archive, weights or os.path.join(path, _WEIGHTS_MEMBER), resources)
        archive._resources = resources.pop_all()
        return archive


def _open_savedmodel(path: str, weights: str | None) -> Archive:
    if weights is not None:
        raise ModelError(f"{path} is a SavedModel, which has its own weights: leave out --weights.")
    archive = Archive(path, "savedmodel", None, ExitStack())
    archive.savedmodel = SavedModel(path)
    described = archive.savedmodel.keras_model
    archive._config = described or {"class_name": "SavedModel", "config": {}}
    archive.keras_version = _text(archive._config.get("keras_version"))
    archive.backend = _text(archive._config.get("backend"))
    return archive


def _read_hdf5(archive: Archive, stream: io.BufferedReader, resources: ExitStack) -> None:
    file = resources.enter_context(open_hdf5(stream, archive.path))
    with reading(archive.path):
        config = hdf5.attribute(file, "model_config", archive.path)
        names = set(file.keys()) | set(file.attrs.keys())
    if config is None:
        if names & {"layer_names", "layers", "_layer_checkpoint_dependencies", "model_weights", "vars"}:
            raise ModelError(
                f"{archive.path} holds weights only, no architecture: give the model's JSON or the full "
                f"model, and this file with --weights."
            )
        raise ModelError(f"{archive.path} is an HDF5 file, but holds no Keras model.")
    with reading(archive.path):
        archive.keras_version = _text(hdf5.attribute(file, "keras_version", archive.path))
        archive.backend = _text(hdf5.attribute(file, "backend", archive.path))
    archive._config = _parse_config(config, f"the model_config of {archive.path}")
    archive._hdf5, archive.weights_source = file, Source(stream.fileno(), 0)


def _read_keras(archive: Archive, stream: io.BufferedReader, resources: ExitStack) -> None:
    path = archive.path
    try:
        archive.zip = resources.enter_context(zipfile.ZipFile(stream))
    # zipfile says NotImplementedError of a kind of zip file that it does not know.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path} is a truncated or damaged zip file: fetch or save it again.") from error
    names = set(archive.zip.namelist())
    for member in ("config.json", _WEIGHTS_MEMBER):
        if member not in names:
            raise ModelError(f"{path} is a zip file without {member}: expected a .keras model.")
    archive._config = _parse_config(_read_member(archive.zip, "config.json", path), f"config.json of {path}")
    if "metadata.json" in names:
        _read_metadata(archive, _read_member(archive.zip, "metadata.json", path), f"metadata.json of {path}")


def _read_metadata(archive: Archive, text: bytes, place: str) -> None:
    metadata = jsontext.parse(text, place)
    if isinstance(metadata, dict):
        archive.keras_version = _text(metadata.get("keras_version"))
        archive.backend = _text(metadata.get("backend"))


def _read_json(archive: Archive, stream: io.BufferedReader) -> None:
    text = stream.read(MAX_CONFIG_BYTES + 1)
    if len(text) > MAX_CONFIG_BYTES:
        raise ModelError(f"{archive.path} is larger than any model's JSON: expected at most 64 MiB.")
    config = jsontext.parse(text, archive.path)
    if isinstance(config, dict) and ("modelTopology" in config or "weightsManifest" in config):
        raise ModelError(
            f"{archive.path} is a TensorFlow.js model, which layerprobe does not read: "
            f"give the Keras model that it was made from."
        )
    archive._config = _parse_config(config, archive.path)
    archive.keras_version = _text(archive._config.get("keras_version"))
    archive.backend = _text(archive._config.get("backend"))


def _attach_weights(archive: Archive, weights: str, resources: ExitStack) -> None:
    stream = resources.enter_context(open_file(weights))
    if recognise(stream, weights) != "hdf5":
        raise ModelError(f"{weights} is no weights file: expected HDF5, as `model.save_weights` writes it.")
    archive._hdf5 = resources.enter_context(open_hdf5(stream, weights))
    archive._weights_path, archive.weights_source = weights, Source(stream.fileno(), 0)
    archive._opened.append(Unchanged(weights, stream))


def _parse_config(config: Any, place: str) -> dict[str, Any]:
    """The model's config as a dict, also where it was stored as JSON text inside JSON."""
    if isinstance(config, bytes | str):
        config = jsontext.parse(config, place)
    if isinstance(config, str):
        config = jsontext.parse(config, place)
    if (
        not isinstance(config, dict)
        or not isinstance(config.get("class_name"), str)
        or "config" not in config
    ):
        raise ModelError(f"{place} is JSON, but describes no Keras model: it has no class_name and config.")
    return config


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _read_member(archive: zipfile.ZipFile, name: str, path: str) -> bytes:
    place = f"{name} of {path}"
    if archive.getinfo(name).file_size > MAX_CONFIG_BYTES:
        raise ModelError(f"{place} is larger than any model needs: expected at most 64 MiB.")
    with reading(place):
        return archive.read(name)


def _member_stream(
    archive: zipfile.ZipFile, stream: io.BufferedReader, name: str, place: str
) -> tuple[io.BufferedIOBase, Span | None]:
    """A seekable stream over one member: in place where it is stored, as Keras does; else unpacked.

    Returns:
        The stream, and where the member's bytes are in the file, unless they are packed.
    """
    info = archive.getinfo(name)
    with reading(place), archive.open(info) as member:
        if info.compress_type != zipfile.ZIP_STORED:
            return io.BytesIO(member.read()), None
    stream.seek(info.header_offset)
    name_length, extra_length = struct.unpack("<26x2H", stream.read(30))
    span = Span(info.header_offset + 30 + name_length + extra_length, info.file_size)
    return io.BufferedReader(Window(stream, *span)), span
