"""What a run will do, decided before anything is computed: output, image size, preprocessing, batch size."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Literal, cast

from layerprobe.errors import OutputError, UsageError
from layerprobe.images.preprocess import check_preprocessing, parse_background, parse_preprocess, parse_size
from layerprobe.images.presets import ASKED, guess_preset
from layerprobe.options import ExtractOptions
from layerprobe.records import LayerInfo, Preprocessing, TensorSpec
from layerprobe.registry import FOLDERS, NO_PIPES, PIPES, REDUCTIONS, STREAMS, SUFFIXES, check_installed
from layerprobe.run.cluster_options import parse_cluster
from layerprobe.run.shards import Shard
from layerprobe.stores.urls import is_url, name_of

BATCH_BYTES = 128 * 2**20
"""Activations of one batch, before reduction, stay below this unless a batch size is asked for."""


_OPTION_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("limit", "max_errors", "max_pixels", "seed"), (int, type(None))),
    **dict.fromkeys(("cpus_per_worker", "gpus_per_worker"), (int, float, type(None))),
    "cluster": (str, type(None)),
    "workers": (int, str, type(None)),
    "batch_size": (int, str, type(None)),
    "compress": (str, type(None)),
    "errors_to": (str, type(None)),
    "preprocess_reason": (str, type(None)),
    "shard": (str, type(None)),
    "size": (str, int, tuple, type(None)),
}
"""What the options may be whose default does not tell."""


def choose_output(output: str | None, keys: Sequence[str], shard: Shard | None = None) -> tuple[str, str]:
    """Path and format of the output: its suffix decides; without a name it follows the input's.

    Args:
        output: What the user asked for.
        keys: Of the rows; `img.npz` for one file `img.jpg`, else `activations.npz`, in the working directory.
        shard: Is part of that name: `activations-03-of-16.npz`.

    Returns:
        The path, and a name in `registry.WRITERS`.

    Raises:
        UsageError: The suffix means no format.
        UnavailableError: The format needs a package that is missing.
    """
    if output is None:
        one_file = len(keys) == 1 and "::" not in keys[0] and (os.path.isfile(keys[0]) or is_url(keys[0]))
        stem = os.path.splitext(name_of(keys[0]))[0] if one_file else "activations"
        return f"{stem}{'' if shard is None else shard.suffix}.npz", "npz"
    suffix = os.path.splitext(output.rstrip("/" + os.sep))[1].lower()
    if output.endswith(("/", os.sep)) and SUFFIXES.get(suffix) not in FOLDERS:
        suffix = ""
    if suffix not in SUFFIXES:
        known = ", ".join(known for known in SUFFIXES if known)
        raise UsageError(
            f"{output!r}: {suffix!r} is not a format that extract writes: expected {known}, "
            "or a name without a suffix for a folder of .npy files."
        )
    check_installed(SUFFIXES[suffix])
    return output.rstrip("/" + os.sep) or output, SUFFIXES[suffix]


def check_pipe(file_format: str, how: ExtractOptions) -> None:
    """Raise UsageError for a format that a pipe cannot take, and for options that are about files."""
    if file_format in NO_PIPES:
        raise UsageError(NO_PIPES[file_format])
    if file_format not in STREAMS | PIPES:
        known = ", ".join(sorted(STREAMS | PIPES))
        raise UsageError(f"no format for a pipe is called {file_format!r}: expected one of {known}.")
    check_installed(file_format)
    for name in ("overwrite", "resume", "restart"):
        if getattr(how, name):
            raise UsageError(f"{name} is about files: leave it out, or give -o NAME.")
    for name, asked in (("processes", how.processes > 1), ("cluster", how.cluster)):
        if asked:
            raise UsageError(
                f"{name} is for workers that write to places in a file, which a pipe has not: give -o NAME."
            )


def check_not_an_input(outputs: Iterable[str], files: Iterable[str]) -> None:
    """Raise OutputError when one of the outputs exists and is one of the files that the run reads."""
    there = {place: output for output in outputs if (place := _place(output)) is not None}
    for file in files if there else ():
        place = _place(file)
        if place is not None and (output := there.get(place)) is not None:
            raise OutputError(f"output {output!r} is one of the inputs: give another name with -o.")


def _place(file: str) -> tuple[int, int] | None:
    """The same for two names of one file; None where there is none."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def check_options(options: ExtractOptions) -> None:
    """Raise UsageError for the values that no later room looks at, and for those of another type."""
    for field in dataclasses.fields(ExtractOptions):
        value = getattr(options, field.name)
        if not isinstance(value, _OPTION_TYPES.get(field.name, type(field.default))):
            raise UsageError(f"{field.name} cannot be of type {type(value).__name__}. Received: {value!r}")
    if options.dtype not in ("float32", "float16"):
        raise UsageError(f"dtype must be float32 or float16. Received: {options.dtype!r}")
    if options.pool not in REDUCTIONS:
        raise UsageError(f"pool must be one of {', '.join(sorted(REDUCTIONS))}. Received: {options.pool!r}")
    if options.engine not in ("auto", "graph", "converted", "keras"):
        raise UsageError(f"engine must be auto, graph, converted or keras. Received: {options.engine!r}")
    if options.on_error not in ("skip", "fail"):
        raise UsageError(f"on_error must be skip or fail. Received: {options.on_error!r}")
    if options.on_error == "fail" and options.max_errors is not None:
        raise UsageError("on_error fail ends a run at the first failed row: leave max_errors out.")
    if options.resume and options.restart:
        raise UsageError("resume goes on with an unfinished output, restart discards it: give one of them.")
    if options.precision not in ("float32", "bfloat16"):
        raise UsageError(f"precision must be float32 or bfloat16. Received: {options.precision!r}")
    if options.engine in ("graph", "converted") and options.training:
        raise UsageError("training needs the engine keras: leave --engine out.")
    if isinstance(options.batch_size, str) and options.batch_size != "auto":
        raise UsageError(f"batch_size must be a number or auto. Received: {options.batch_size!r}")
    for name in ("batch_size", "limit", "max_errors", "max_pixels", "processes", "workers"):
        value = getattr(options, name)
        if isinstance(value, int) and value < 1:
            raise UsageError(f"{name} must be 1 or more. Received: {value}")
    if options.processes > 1 and options.training:
        raise UsageError("training needs one process, in which the random numbers follow each other.")
    if options.processes > 1 and options.device.startswith("gpu:"):
        raise UsageError("every process takes a GPU of its own: give --device gpu, without a number.")
    if parse_cluster(options) is not None:
        check_installed("ray", "cluster")
    if options.seed is not None and not options.training:
        raise UsageError("seed needs training: without it nothing is random.")


def takes_images(spec: TensorSpec) -> bool:
    """Whether a model's input looks like images: three axes, one of them 1, 3 or 4 channels."""
    return len(spec.shape) == 3 and (spec.shape[2] in (1, 3, 4) or spec.shape[0] in (1, 3, 4))


def channels_first(spec: TensorSpec) -> bool:
    """Whether an image input is (C, H, W); where both ends could be channels, the last is taken."""
    return spec.shape[2] not in (1, 3, 4)


def choose_preprocessing(
    options: ExtractOptions, spec: TensorSpec, layers: Sequence[LayerInfo]
) -> Preprocessing:
    """How images are made fit for one input of the model.

    Args:
        options: What the user asked for.
        spec: The model's input, for which `takes_images` holds.
        layers: The evidence for `preprocess="auto"`.

    Raises:
        UsageError: The model leaves the size open and none is given, or the size is not the model's.
    """
    height, width, channels = spec.shape if not channels_first(spec) else (*spec.shape[1:], spec.shape[0])
    given = options.size
    asked = given if given is None or isinstance(given, tuple) else parse_size(str(given))
    if asked is None and (height is None or width is None):
        raise UsageError(
            f"input {spec.name!r} takes images of any size: say which, as in --size 224 or --size 224x192."
        )
    size = asked or cast(tuple[int, int], (height, width))
    if (height or size[0], width or size[1]) != tuple(size):
        raise UsageError(
            f"input {spec.name!r} takes images of {height}x{width} (height x width): leave --size out. "
            f"Received: {size[0]}x{size[1]}"
        )
    preset, reason = options.preprocess, options.preprocess_reason or ASKED
    if preset == "auto":
        listed = any(layer.address == spec.name for layer in layers)
        preset, reason = guess_preset(layers, spec.name if listed else None)
    how = dataclasses.replace(
        parse_preprocess(preset, size=size, channels=cast(Literal[1, 3, 4], channels)),
        resize=options.resize,
        crop=options.crop,
        exif=options.exif,
        background=parse_background(options.background),
        fast_decode=options.fast_decode,
        reason=reason,
    )
    check_preprocessing(how)
    return how


def choose_batch_size(
    options: ExtractOptions, rows: int | None, fixed: int | None, usual: int, row_bytes: int | None = None
) -> int:
    """B: the model's own where it is fixed, else as asked for, else what fits.

    Args:
        options: What the user asked for.
        rows: N, or None; half of them is the most, since engines compute two batches at a time.
        fixed: The batch size that the model was built for, if it was.
        usual: What suits the engine.
        row_bytes: Bytes of all activations of one row, once known.
    """
    if fixed is not None:
        if options.batch_size not in (None, "auto", fixed):
            raise UsageError(
                f"the model was built for batches of {fixed}: leave --batch-size out. "
                f"Received: {options.batch_size}"
            )
        return fixed
    if isinstance(options.batch_size, int):
        return options.batch_size
    most = max(1, BATCH_BYTES // row_bytes) if row_bytes else usual
    half = usual if rows is None else -(-rows // 2)
    return max(1, min(half, usual, most))


def why_batch_size(
    options: ExtractOptions, fixed: int | None, usual: int, chosen: int, row_bytes: int
) -> str:
    """Say why `choose_batch_size` chose as it did, from its arguments."""
    if fixed is not None:
        return "the model was built for it"
    if options.batch_size == "auto":
        return "others are measured before the first batch"
    if options.batch_size is not None:
        return "asked for"
    if chosen == usual:
        return "usual for this engine"
    if chosen == max(1, BATCH_BYTES // (row_bytes or 1)):
        return f"the activations of more would pass {BATCH_BYTES >> 20} MiB"
    return "half of the rows, for two batches are computed at a time"
