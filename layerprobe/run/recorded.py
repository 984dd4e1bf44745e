"""A run made again from what its output says of it, for `retry_failed` and `verify`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprobe.errors import NoInputError, OutputFormatError, ResumeError, UnknownLayerError, UsageError
from layerprobe.modelfile.naming import is_path
from layerprobe.options import ExtractOptions, ModelOptions
from layerprobe.run.identity import difference
from layerprobe.run.request import Request, open_request
from layerprobe.sources.file_source import FileSource
from layerprobe.sources.files import Readable
from layerprobe.sources.jsonlines import Listed
from layerprobe.sources.parquet import SUFFIXES as PARQUET_SUFFIXES
from layerprobe.sources.remote import container_of, remote_file
from layerprobe.sources.tables import CSV_SUFFIXES, Unreadable
from layerprobe.sources.tar import is_tar, members_of
from layerprobe.sources.tar_stream import is_compressed_tar
from layerprobe.stores.urls import HIDDEN, is_url, path_of

if TYPE_CHECKING:
    from layerprobe.protocols import Reader
    from layerprobe.run.request import Inputs

WITHOUT_MEANING = (
    *("resume", "restart", "on_error", "max_errors", "stats"),
    *("processes", "cluster", "cpus_per_worker", "gpus_per_worker"),
)
"""Options that a run cannot be given that is made again: it computes a few rows, in one process."""
_OF_ONE_RUN = (*WITHOUT_MEANING, "workers", "overwrite", "lock", "errors_to")
"""Options that say nothing of what the rows hold, but of where they were computed, say, and are not taken
from the earlier run."""
_ROW_OF_A_TABLE = re.compile(r"(.+)\[\d+\]", re.DOTALL)
LIST_OF_INPUTS = ("number_of_inputs", "list_of_inputs", "rows")
"""What a signature says of the list of inputs, and of which part of it the rows are."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What an output was made of, opened anew."""

    path: str
    """Of the output."""
    signature: Mapping[str, Any]
    """Of the run that made it."""
    request: Request

    def check_same(self, signature: Mapping[str, Any], without: Sequence[str] = ()) -> None:
        """Check that a run is the one that made the output.

        Args:
            signature: The run's.
            without: What of it may differ.

        Raises:
            ResumeError: It is not.
        """
        before, now = (
            {name: value for name, value in one.items() if name not in without}
            for one in (self.signature, signature)
        )
        if (found := difference(before, now)) is not None:
            what, earlier, later = found
            raise ResumeError(
                f"{self.path!r} is of another run, for its {what} was {earlier}, now it is {later}: "
                "give the same model, layers, inputs and options."
            )


@dataclass(frozen=True, slots=True)
class Given:
    """What the user says of a run that is made again, where the output does not."""

    model: str | os.PathLike[str] | None = None
    """Its path now; None: the one in the provenance."""
    inputs: Inputs | Mapping[str, Inputs] | None = None
    """All inputs of the run; None: the paths in the output, where they are images."""
    layers: Sequence[str] = ()
    """All layers of the run, in order; empty: those in the provenance."""
    needs: ModelOptions = dataclasses.field(default_factory=ModelOptions)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Of `extract`, where they are not to be those in the provenance."""


def open_recorded(reader: Reader, given: Given, *, whole: bool) -> RecordedRun:
    """Open the model and the inputs of the run that made an output.

    Args:
        reader: The output.
        given: What it does not say.
        whole: Whether the list of inputs must be that of the run. Else the rows of a shard are a list.

    Raises:
        OutputFormatError: The output does not say how it was made.
        UsageError: It was made by what cannot be done again, or of what has to be given.
        NoInputError: The model is gone.
    """
    path, record = reader.path, reader.provenance
    try:
        signature = record["run"]["signature"]
        options = _options(record)
        model = given.model or record["model"]["path"]
        layers = given.layers or [layer["name"] for layer in record["layers"]]
    except (LookupError, TypeError, AttributeError) as error:
        raise OutputFormatError(f"{path!r} does not say how it was made: run extract again.") from error
    if options.get("training") or not model:
        raise UsageError(f"{path!r} is of training, or of a model in no file: run extract again.")
    inputs = given.inputs
    if inputs is None:
        if whole and options.get("shard") is not None:
            raise UsageError(f"{path!r} is a part of a list: give all its inputs again.")
        of_a_stream = "run extract again" if whole else "give its inputs again"
        images = recorded_images(reader, "give all its inputs again", of_a_stream)
        inputs, options["shard"] = images, None
    try:
        request = open_request(model, inputs, layers, given.needs, {**options, **given.options})
    except NoInputError as error:
        if given.model is not None or not is_path(os.fspath(model)) or os.path.lexists(model):
            raise
        raise NoInputError(f"the model of {path!r} is no longer at {model!r}: say where it is.") from error
    except UnknownLayerError as error:
        if given.layers:
            raise
        raise ResumeError(
            f"{path!r} is of another model than {os.fspath(model)!r}, which has not all of its layers: "
            "say where that model is."
        ) from error
    return RecordedRun(path, signature, request)


def _options(record: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(ExtractOptions)} - set(_OF_ONE_RUN)
    recorded = {name: value for name, value in record["options"].items() if name in known}
    if isinstance(recorded.get("size"), list):
        recorded["size"] = tuple(recorded["size"])
    # Which GPU it was says nothing of the rows, and there may be none here: that is seen by the engine.
    if str(recorded.get("device")).startswith("gpu"):
        recorded["device"] = "auto"
    recorded["batch_size"] = record["run"]["signature"]["batch_size"]
    return recorded


def recorded_images(reader: Reader, again: str, of_a_stream: str | None = None) -> FileSource:
    """The images that an output names.

    Args:
        reader: The output.
        again: What to do where they cannot be read by themselves.
        of_a_stream: What to do where they came as a stream; None: the same.

    Raises:
        UsageError: They cannot.
    """
    if reader.provenance["preprocessing"] is None:
        raise UsageError(f"{reader.path!r} is of arrays: give all its inputs again.")
    members: dict[str, dict[str, Readable]] = {}
    files: list[str | Readable] = []
    for key, reason in zip(reader.paths, reader.error, strict=True):
        archive, inside, _ = key.partition("::")
        table = _table_of(key)
        if path_of(table).lower().endswith(PARQUET_SUFFIXES):
            raise UsageError(f"{reader.path!r} is of images within {table!r}: {again}.")
        if table and reason:
            files.append(Unreadable(key, reason))
        elif inside and (archive == "-" or is_compressed_tar(archive)):
            instead = of_a_stream or again
            raise UsageError(f"{reader.path!r} is of a tar stream, which has no places: {instead}.")
        elif inside and is_tar(archive):
            if archive not in members:
                members[archive] = {member.key: member for member in members_of(container_of(archive))}
            files.append(members[archive].get(key, key))
        elif HIDDEN in key and is_url(key):
            raise UsageError(f"{reader.path!r} does not hold the passwords in its URLs: {again}.")
        else:
            files.append(remote_file(key) if is_url(key) else key)
    fields = reader.fields
    if fields is None:
        return FileSource(files)
    texts = [json.dumps(said) if said else "" for said in fields]
    return FileSource([Listed(file, text) for file, text in zip(files, texts, strict=True)])


def _table_of(key: str) -> str:
    """Give the table that holds what a row is of, or says that there is nothing; "" for a file of its own."""
    table, inside, _ = key.partition("::")
    suffixes: tuple[str, ...] = PARQUET_SUFFIXES
    if not inside:
        found = _ROW_OF_A_TABLE.fullmatch(key)
        table, suffixes = ("" if found is None else found[1]), (*PARQUET_SUFFIXES, *CSV_SUFFIXES)
    return table if path_of(table).lower().endswith(suffixes) else ""
