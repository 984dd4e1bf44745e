"""What to change about a run, from what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from layerprobe.options import ExtractOptions
    from layerprobe.records import TensorSpec

WORTH_SAYING = 1.2
"""A change that makes a stage less than this times as fast is not advised."""


def advise(
    bound: str,
    how: ExtractOptions,
    outputs: Sequence[TensorSpec],
    row_bytes: int,
    faster: tuple[float, float] | None,
) -> tuple[str, ...]:
    """Sentences about the stage that bounds a run.

    Args:
        bound: The stage.
        how: The options that were measured with.
        outputs: What the engine gives, not reduced.
        row_bytes: What is written of one row.
        faster: Rows per second of that stage as it is and with the option that is for it, where that was
            measured: `--fast-decode` for the input, `--precision bfloat16` for computing.
    """
    if bound == "write":
        return (*_less_to_write(how, outputs, row_bytes), "a faster disk: -o in another place")
    if bound == "read":
        return ("the files come slowly: more --workers wait for several at a time; copy them to a near disk",)
    worth = faster is not None and faster[1] > WORTH_SAYING * faster[0]
    gain = f"{faster[0]:.0f} -> {faster[1]:.0f} rows/s" if faster is not None else ""
    if bound == "compute":
        quick = [f"--precision bfloat16, which is less exact: computing {gain}"] if worth else []
        return (*quick, "a GPU (--device), or more processor cores")
    if bound == "reduce":
        return ("reducing and casting bound it: --pool none --dtype float32 stores what the engine gives",)
    quick = [f"--fast-decode: reading and decoding {gain}"] if worth else []
    return (*quick, "more processor cores, or images that are stored closer to the model's size")


def _less_to_write(how: ExtractOptions, outputs: Sequence[TensorSpec], row_bytes: int) -> list[str]:
    said = []
    maps = [spec for spec in outputs if len(spec.shape) > 1]
    if how.pool == "none" and maps:
        pooled = sum(_channels(spec) for spec in outputs) * (2 if how.dtype == "float16" else 4)
        said.append(f"--pool gap: {pooled:,} bytes a row instead of {row_bytes:,}")
    if how.dtype == "float32" and any("float" in spec.dtype for spec in outputs):
        said.append("--dtype float16: half the bytes")
    return said


def _channels(spec: TensorSpec) -> int:
    shape = cast(tuple[int, ...], spec.shape)
    return shape[spec.channel_axis] if len(shape) > 1 else math.prod(shape)
