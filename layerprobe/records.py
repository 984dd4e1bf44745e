"""The nouns that flow between the rooms: frozen dataclasses without behaviour.

Shapes are written with these letters everywhere in the project:

    B  rows of one batch          N  rows of the whole run
    H  height of what the model takes   W  its width   C  channels
    h  height of a decoded image        w  its width
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

MAX_MEMORY = 2 << 30
"""Bytes that one layer of a model may ask for, unless the user allows more."""

TapKind = Literal["output", "input", "preactivation"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a model, without its batch axis."""

    name: str
    shape: tuple[int | None, ...]
    """Of one row: (H, W, C), (units,), ...; None where any size will do."""
    dtype: str
    """NumPy's name: "float32", "int64", "bfloat16", ..."""
    channel_axis: int = -1
    """Which axis of `shape` holds the channels: -1, or 0 for `channels_first` layers."""
    layer: str = ""
    """Address of the layer that it comes from; "" for inputs, and where nothing says."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer of a model, as the file (or a live model) describes it."""

    address: str
    """Layer names from the outermost model inwards, joined by "/"."""
    class_name: str
    index: int | None
    """i of `model.layers[i]`; None inside nested models and for bare operations (`x + y`)."""
    inbound: tuple[str, ...]
    """Addresses of the layers whose output this one takes, all calls together."""
    calls: int = 1
    """How often the model calls it; more than 1 for a shared layer."""
    parameters: int | None = None
    """Numbers in its weights, those of inner layers included; None when not known."""
    outputs: int | None = None
    """Tensors one call gives; None when the file does not say."""
    shapes: tuple[tuple[int | None, ...], ...] | None = None
    """Of one row of each output, all calls together; None where that is not known. A size that the inputs
    decide is None."""
    row_bytes: int | None = None
    """Of those outputs for one row, as float32; None where a size is not known."""
    engine: Literal["graph", "keras"] | None = None
    """The first engine that can compute it; None where `problem` says why none can, and for live models."""
    problem: str | None = None
    """Why this layer cannot be extracted; None when nothing is in the way."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the safety inspection or the loader noticed in a model file."""

    level: Literal["refused", "warning", "note"]
    place: str
    """Where in the file: a layer's address, an HDF5 path, a zip member."""
    message: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model file says about itself, read without any framework."""

    path: str
    file_format: str
    """"keras", "hdf5", "json" or "savedmodel": by content, whatever the file is called."""
    keras_version: str | None
    class_name: str
    """"Functional", "Sequential", or the name of a subclass."""
    inputs: tuple[TensorSpec, ...]
    layers: tuple[LayerInfo, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Tap:
    """One place in a model where values are recorded.

    Written `in:backbone/conv1@1:0`, all but the address optional; see `modelfile/select.py`.
    """

    address: str
    """A layer's address; "" for the model's own outputs."""
    kind: TapKind = "output"
    call: int | None = None
    """Which call of a shared layer, from 0; None: every call."""
    output: int | None = None
    """Which of several tensors, from 0; None: every one."""

    @property
    def name(self) -> str:
        """The canonical text of the tap, under which its values are stored."""
        prefix = {"output": "", "input": "in:", "preactivation": "pre:"}[self.kind]
        call = "" if self.call is None else f"@{self.call}"
        output = "" if self.output is None else f":{self.output}"
        return f"{prefix}{self.address or 'output'}{call}{output}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One input of a run, not yet opened."""

    index: int
    """Its row, from 0."""
    key: str
    """What the user calls it: a path (undecodable bytes as lone surrogates), "file.npy[3]"."""
    read: Callable[[], bytes | Array]
    """Gives the file's bytes, or one row of an array. Raises SampleError, and nothing else, when broken."""
    state: Callable[[], bytes] | None = None
    """Says which version of its file that is: another text when it was changed; None where nothing tells."""
    fields: str = ""
    """What its list says of it beside the path, as the JSON text of an object; "" where it says nothing."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a decoded image becomes the model's input; complete, so that it can be done again."""

    size: tuple[int, int]
    """(H, W) in pixels."""
    channels: Literal[1, 3, 4] = 3
    """1 grey, 3 colour, 4 colour with alpha."""
    resize: str = "bilinear"
    """Pillow's filter: nearest, bilinear, bicubic, lanczos, box, hamming."""
    crop: Literal["none", "center", "pad"] = "none"
    """none squashes; center cuts the longer side; pad fills the shorter with `background`."""
    exif: bool = True
    """Whether the orientation in the file's EXIF data is applied."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB, 0 to 255: under transparent pixels and around padded images."""
    preset: str = "raw"
    """raw, unit, tf, torch, caffe or custom: where the numbers below come from; "rgb:" or "bgr:" before it
    where the order of the channels is not its own."""
    scale: float = 1.0
    """Pixels, 0 to 255, are divided by this first."""
    mean: tuple[float, ...] = ()
    """Then this is taken off, per channel, in `channel_order`; empty: nothing."""
    std: tuple[float, ...] = ()
    """Then they are divided by this, per channel; empty: nothing."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    fast_decode: bool = False
    """Whether JPEGs were decoded at a fraction of their size where that was still no less than `size`."""
    reason: str = "asked for"
    """The evidence for `preset`, in words."""


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
    """How an engine computes; the training phase and finishing are Keras's alone."""

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


@dataclass(frozen=True, slots=True)
class Failure:
    """One row that could not be computed."""

    index: int
    key: str
    stage: Literal["read", "decode", "preprocess", "compute", "memory", "unknown"]
    reason: str
    """A sentence without the key."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive rows on their way to the engine."""

    start: int
    """Row of the first sample."""
    size: int
    """B: how many rows, failed ones included."""
    rows: Sequence[int]
    """Places within the batch, 0 to B - 1, of the rows that `inputs` holds."""
    inputs: tuple[Array, ...]
    """One array (len(rows), ...) per input of the model, in the model's order."""
    failures: tuple[Failure, ...]
    files: str = ""
    """A digest of the sizes and times that the files had before they were read."""
    keys: Sequence[str] = ()
    """`Sample.key` of each of the B rows."""
    fields: Sequence[str] = ()
    """`Sample.fields` of each of the B rows."""
    several_frames: int = 0
    """How many of its images have several frames, of which the first was taken."""


@dataclass(frozen=True, slots=True)
class WrittenBlock:
    """Consecutive rows that stand at their place in an output."""

    start: int
    stop: int
    """The row after the last."""
    checksums: Mapping[str, int]
    """Layer -> CRC-32 of the bytes of these rows, as they are stored or, compressed, would be."""
    place: int = 0
    """Of the block in a spool, for outputs that have one; see `formats/spool.py`."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Everything needed to know where an output's numbers come from."""

    model: Mapping[str, Any]
    """path, sha256, file_format, keras_version."""
    layers: Sequence[Mapping[str, Any]]
    """name, layer (its address), class_name, shape of one row, channel_axis in it, dtype; as asked for."""
    inputs: Mapping[str, Any]
    """rows, failures, and what was read: images or arrays."""
    preprocessing: Mapping[str, Any] | None
    """A `Preprocessing` as a dict; None when only arrays were read."""
    options: Mapping[str, Any]
    """dtype, pool, batch_size, training, seed."""
    engine: Mapping[str, Any]
    versions: Mapping[str, str]
    started: str
    """UTC, ISO 8601."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """id, and signature: all that decides what the rows hold."""
