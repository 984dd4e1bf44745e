"""What users ask for: options of a model, of a run and of computing, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MAX_MEMORY = 2 << 30
"""Bytes that one layer of a model may ask for, unless the user allows more."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What a model file needs beside itself; every field is an option of the command line."""

    custom_objects: Mapping[str, Any] = field(default_factory=dict)
    """The user's own classes and functions, by name."""
    weights: str | None = None
    """Path of an HDF5 file with the weights, for a model that came without them."""
    lambdas: Mapping[str, str] = field(default_factory=dict)
    """Expressions such as "x / 127.5 - 1" for Lambda layers, by address or bare name."""
    max_memory: int = MAX_MEMORY
    """Bytes that one layer may ask for beyond the weights that the file holds, or one tensor of one row."""


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """How `extract` works; fields are options of the command line, under the same name."""

    overwrite: bool = False
    """Replace an existing output."""
    resume: bool = False
    """Go on with an unfinished output of the same run, if there is one."""
    restart: bool = False
    """Discard an unfinished output, if there is one."""
    on_error: Literal["skip", "fail"] = "skip"
    """What a row that fails does: keep its place as NaN, with the reason, or end the run."""
    max_errors: int | None = None
    """The run ends early once so many rows have failed."""
    errors_to: str | None = None
    """Path of a file to which failed rows are written as they happen, one JSON object a line."""
    stats: bool = False
    """Gather the statistics of what is written, for the report."""
    lock: bool = True
    """Keep other runs from the output; some network file systems cannot."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of stored activations; whole numbers and booleans keep their type."""
    compress: str | None = None
    """How the layers are compressed: a name in `registry.COMPRESSIONS`, for formats in `COMPRESSED`; None:
    not."""
    pool: str = "none"
    """A name in `registry.REDUCTIONS`."""
    batch_size: int | Literal["auto"] | None = None
    """Rows computed at once; auto: what measuring finds best. None: 8, or 32 with Keras, or fewer where the
    activations would pass 128 MiB."""
    limit: int | None = None
    """Only the first so many inputs."""
    shard: str | None = None
    """ "I/N": only part I, from 1, of N; "slurm": as the task's place in its job array says; None: all."""
    engine: Literal["auto", "graph", "converted", "keras"] = "auto"
    """What runs the model; auto: the first of the others that computes what Keras would."""
    device: str = "auto"
    """auto (a GPU that Keras has, else the processor), cpu, gpu or gpu:N."""
    cache: bool = True
    """Whether what was converted is kept for later runs, and taken from there."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in; bfloat16 is faster where the processor has it, and has 3 digits."""
    training: bool = False
    """Dropout and batch normalisation as in training; only Keras does that."""
    seed: int | None = None
    """Of every random layer, with `training`; drawn and recorded when None."""
    size: str | int | tuple[int, int] | None = None
    """Height and width, "224" or "224x192"; None: the model's."""
    resize: str = "bilinear"
    """Pillow's filter: nearest, bilinear, bicubic, lanczos, box, hamming."""
    crop: Literal["none", "center", "pad"] = "none"
    """none squashes as Keras does; center cuts the longer side; pad fills the shorter."""
    preprocess: str = "auto"
    """auto, raw, unit, tf, torch, caffe, or MEAN/STD, with rgb: or bgr: before it."""
    preprocess_reason: str | None = None
    """Why `preprocess` is what it is, in words, where that was found out, and no option of the command line;
    None: it was asked for."""
    exif: bool = True
    """Whether EXIF orientation is applied."""
    background: str = "white"
    """Under transparent pixels and around padded images: a colour name or #rrggbb."""
    fast_decode: bool = False
    """JPEGs of twice the needed size or more are decoded at 1/2, 1/4 or 1/8; pixels differ a little."""
    max_pixels: int | None = None
    """Images of more pixels are refused; None: `decode.MAX_PIXELS`."""
    workers: int | str | None = None
    """Threads that read and decode; None: one per processor. With a cluster its workers, "MIN:MAX"."""
    processes: int = 1
    """Worker processes, each with the model, that share processors and GPUs; 1: none beside this one."""
    cluster: str | None = None
    cpus_per_worker: float | None = None
    gpus_per_worker: float | None = None
    """Of Ray ("ray", "ray://HOST:PORT", "HOST:PORT"), which computes, and what each worker has; 1 and 0."""


@dataclass(frozen=True, slots=True)
class Finish:
    """What is done with activations before they are stored; without arguments, nothing."""

    pool: str = "none"
    """A name in `registry.REDUCTIONS`."""
    dtype: Literal["float32", "float16"] | None = None
    """Of floats, after the reduction; None: the layer's own."""


@dataclass(frozen=True, slots=True)
class Computing:
    """How an engine computes; the training phase is Keras's alone."""

    training: bool = False
    """Dropout and batch normalisation as in training."""
    seed: int | None = None
    """Of every random layer, with `training`; drawn when None."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What float32 layers compute in; their weights and results stay float32."""
    finish: Finish | None = None
    """What is done with results before they are copied from the device."""


INFERENCE = Computing()
"""As the model computes by itself."""
