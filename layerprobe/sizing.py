"""The engine of a run, with as many rows at once as its activations, its inputs and its user allow."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from layerprobe.batches import batches, worker_threads
from layerprobe.feeds import Feeds
from layerprobe.fitting import SIZES, measured, row_bytes
from layerprobe.plan import BATCH_BYTES, choose_batch_size
from layerprobe.records import ExtractOptions

if TYPE_CHECKING:
    from layerprobe.fitting import Build
    from layerprobe.protocols import Engine, LoadedModel


def fitted_engine(
    probed: LoadedModel, feeds: Feeds, rows: int | None, how: ExtractOptions, build: Build
) -> tuple[Engine, str | None]:
    """Build the engine, again with other batches where its activations are too big or it is another one.

    Returns:
        It, and where its batch size was measured, what was found.
    """

    def fitting(row_bytes: int | None) -> int:
        fixed, usual = probed.fixed_batch_size, probed.usual_batch_size
        return choose_batch_size(how, rows, fixed, usual, row_bytes)

    batch_size = fitting(None)
    while True:
        engine = build(batch_size)
        if fitting(row_bytes(engine.outputs)) == batch_size:
            break
        batch_size = fitting(row_bytes(engine.outputs))
    if how.batch_size != "auto" or probed.fixed_batch_size is not None or rows is None:
        return engine, None
    most = min(-(-rows // 2), max(1, BATCH_BYTES // (row_bytes(engine.outputs) or 1)))
    return _measured(engine, feeds, how, build, most)


def _measured(
    engine: Engine, feeds: Feeds, how: ExtractOptions, build: Build, most: int
) -> tuple[Engine, str]:
    """The engine with as many rows at once as measuring finds best; see `fitted_engine`."""
    with closing(batches(feeds, min(most, max(SIZES)), worker_threads(how))) as taken:
        first = next(taken)
    best, rates = measured(first.inputs, build, most) if first.rows else (None, {})
    if best is None:
        return engine, f"batch size {engine.batch_size}: there is too little to measure others"
    others = ", ".join(f"{size}: {rate:.1f}" for size, rate in rates.items())
    return best, f"batch size {best.batch_size}, measured in rows/s: {others}"
