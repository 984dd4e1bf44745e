"""Names to implementations, imported when asked for, with the right hint when a package is missing.

A new format, engine or reduction is one file and its lines here.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from layerprobe.errors import UnavailableError, UsageError

WRITERS = {
    "hdf5": "layerprobe.formats.hdf5:HDF5Writer",
    "npy": "layerprobe.formats.npy:NpyWriter",
    "npz": "layerprobe.formats.npz:NpzWriter",
    "parquet": "layerprobe.formats.parquet:ParquetWriter",
    "safetensors": "layerprobe.formats.safetensors:SafetensorsWriter",
    "zarr": "layerprobe.formats.zarr:ZarrWriter",
}
STREAMS = {
    "jsonl": "layerprobe.formats.jsonl:JsonlStream",
    "tar": "layerprobe.formats.tar:TarStream",
}
"""Formats of rows one after the other, in files and in pipes."""
PIPES = {
    "npy": "layerprobe.formats.piping:NpyPipe",
    "npz": "layerprobe.formats.piping:NpzPipe",
    "parquet": "layerprobe.formats.piping:ParquetPipe",
    "safetensors": "layerprobe.formats.piping:SafetensorsPipe",
}
"""Formats that a pipe takes beside those."""
COMPRESSED = {"hdf5": "layerprobe.formats.compressed_hdf5:CompressedHDF5Writer"}
"""Formats that can be compressed, and what writes them then."""
COMPRESSIONS = ("gzip", "lz4", "zstd")
ALWAYS_COMPRESSED = ("parquet", "zarr")
"""Formats that are compressed whatever is asked for, with zstd."""
NO_PIPES = {
    "hdf5": "HDF5 needs a seekable file, which a pipe is not: give -o NAME.h5, or --format npz, jsonl or "
    "tar.",
    "zarr": "zarr is a folder, which a pipe is not: give -o NAME.zarr, or --format npz or tar.",
}
"""Formats that no pipe takes, and what to say of each."""
FOLDERS = ("npy", "zarr")
"""Formats that are folders; the others are files."""
MADE_OF_WAITING_ROWS = ("parquet",)
"""Formats that take the space twice until they are complete; see `formats/waiting.py`."""
WITHOUT_RESERVE = ("zarr",)
"""Formats that are compressed as they grow, so that nobody knows what space they take."""
READERS = {
    "hdf5": "layerprobe.formats.hdf5:HDF5Reader",
    "jsonl": "layerprobe.formats.jsonl:JsonlReader",
    "npy": "layerprobe.formats.npy:NpyReader",
    "npz": "layerprobe.formats.npz:NpzReader",
    "parquet": "layerprobe.formats.parquet:ParquetReader",
    "safetensors": "layerprobe.formats.safetensors:SafetensorsReader",
    "tar": "layerprobe.formats.tar:TarReader",
    "zarr": "layerprobe.formats.zarr_reading:ZarrReader",
}
SUFFIXES = {
    "": "npy",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".jsonl": "jsonl",
    ".npz": "npz",
    ".parquet": "parquet",
    ".safetensors": "safetensors",
    ".tar": "tar",
    ".zarr": "zarr",
}
"""What an output's suffix means; a name without one is a folder of `.npy` files."""

ENGINES = {
    "converted": "layerprobe.engines.converted_model:ConvertedModel",
    "graph": "layerprobe.engines.graph.engine:GraphEngine",
}
KERAS_ENGINES = {
    "jax": "layerprobe.engines.keras_jax:KerasJaxEngine",
    "tensorflow": "layerprobe.engines.keras_tensorflow:KerasTensorFlowEngine",
}
"""The engine "keras", by the framework that Keras runs on."""
KERAS_GRADIENTS = {"tensorflow": "layerprobe.engines.gradients_tensorflow:TensorFlowGradients"}
"""What differentiates models, by the framework that Keras runs on."""
MODELS = {
    "app:": "layerprobe.loading.applications:made",
}
"""Models that are no files yet, by what their names begin with."""
CLUSTERS = {
    "ray": "layerprobe.cluster.ray_crew:RayCrew",
}
REDUCTIONS = {
    "flatten": "layerprobe.reductions:flatten",
    "gap": "layerprobe.reductions:global_average",
    "gmp": "layerprobe.reductions:global_maximum",
    "none": "layerprobe.reductions:keep",
}

PACKAGES = {
    "hdf5plugin": "'layerprobe[compress]'",
    "jax": "'layerprobe[jax]'",
    "pyarrow": "'layerprobe[parquet]'",
    "ray": "'layerprobe[ray]'",
    "zarr": "'layerprobe[zarr]'",
}
"""Optional package -> what to install for it, where the two names differ."""
NEEDED = {"parquet": "pyarrow", "ray": "ray", "zarr": "zarr"}
"""Format or cluster -> the optional package that it needs."""


def check_installed(name: str, what: str = "format") -> None:
    """Look whether the package that a format or a cluster needs is there, without importing it.

    Raises:
        UnavailableError: It is not.
    """
    package = NEEDED.get(name)
    if package is not None and find_spec(package) is None:
        raise missing(f"{what} {name!r}", package)


def find(table: dict[str, str], name: str, what: str) -> Any:
    """Import the implementation called `name` from one of the tables above.

    Raises:
        UsageError: The table has no such name.
        UnavailableError: A package that the implementation needs is not installed.
    """
    if name not in table:
        raise UsageError(f"no {what} is called {name!r}: expected one of {', '.join(sorted(table))}.")
    module, attribute = table[name].split(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "layerprobe"):
            raise
        raise missing(f"{what} {name!r}", package) from error


def missing(what: str, package: str) -> UnavailableError:
    """Say that something needs a package that is not there, and what to install."""
    return UnavailableError(
        f"{what} needs the package {package}, which is missing: "
        f"run `pip install {PACKAGES.get(package, package)}`."
    )
