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
    frames: Sequence[int] = ()
    """How many images of each of the B rows have several frames, of which the first was taken."""

    @property
    def several_frames(self) -> int:
        """How many images of the rows in `inputs` have several frames."""
        return sum(self.frames[place] for place in self.rows) if self.frames else 0


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
