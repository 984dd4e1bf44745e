"""The engine of a run, with as many rows at once as its activations, its inputs and its user allow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from layerprobe.errors import UsageError
from layerprobe.options import Computing, ExtractOptions, Finish
from layerprobe.run.batches import batches, input_bytes, worker_threads
from layerprobe.run.feeds import Feeds
from layerprobe.run.fitting import SIZES, FittingEngine, built, measured, row_bytes
from layerprobe.run.plan import BATCH_BYTES, choose_batch_size
from layerprobe.run.shards import parse_shard, rows_of

ROWS_TO_MEASURE = 32
"""So many are read to measure with; larger batches are made of the same ones."""

if TYPE_CHECKING:
    from layerprobe.protocols import Engine, LoadedModel, Outline
    from layerprobe.run.fitting import Build

    Built = TypeVar("Built", bound=Outline)


def fitted_engine(
    probed: LoadedModel, feeds: Feeds, how: ExtractOptions, build: Build, batch_size: int | None = None
) -> tuple[FittingEngine, str | None]:
    """Build the engine, with as many rows at once as fit or as measuring finds best.

    Args:
        probed: The model.
        feeds: Its inputs.
        how: The user's options.
        build: Makes the engine.
        batch_size: That of the outline, if there was one.

    Returns:
        The engine, and where its batch size was measured, what was found.
    """
    if how.training or probed.fixed_batch_size is not None:
        engine, _ = _fitted(probed, feeds, how, build, batch_size)
        return FittingEngine(engine, None), None
    one_row = input_bytes(feeds)
    engine, chosen = _fitted(probed, feeds, how, lambda rows: built(build, rows, one_row), batch_size)
    rows = feeds.rows
    if how.batch_size != "auto" or rows is None:
        return FittingEngine(engine, build, chosen), None
    most = min(-(-rows // 2), max(1, BATCH_BYTES // (row_bytes(engine.outputs) or 1)))
    if engine.batch_size < chosen:  # What did not fit once is not tried again.
        most = min(most, engine.batch_size)
        if most < min(SIZES):
            note = f"batch size {engine.batch_size}: more do not fit into memory"
            return FittingEngine(engine, build), note
    measured_engine, note = _measured(engine, feeds, how, build, most)
    return FittingEngine(measured_engine, build), note


def outlined(probed: LoadedModel, feeds: Feeds, how: ExtractOptions) -> Outline:
    """Tell what engine a run would have, and its batch size, where that need not be measured."""
    computing = Computing(how.training, how.seed, how.precision, Finish(how.pool, how.dtype))

    def build(batch_size: int) -> Outline:
        return probed.outline(feeds.specs, batch_size=batch_size, how=computing)

    return _fitted(probed, feeds, how, build, None)[0]


def rows_to_do(feeds: Feeds, how: ExtractOptions, engine: Outline) -> range:
    """Say which rows of the list are this run's."""
    if how.shard is None:
        return feeds.place
    return rows_of(parse_shard(how.shard), len(feeds), engine.batch_size)


def _fitted(
    probed: LoadedModel,
    feeds: Feeds,
    how: ExtractOptions,
    build: Callable[[int], Built],
    batch_size: int | None,
) -> tuple[Built, int]:
    """Build an engine, again with other batches where its activations are too big or it is another one.

    Returns:
        The engine, and B: it may be one for fewer rows at once.
    """
    shard = None if how.shard is None else parse_shard(how.shard)
    if shard is not None and how.batch_size == "auto":
        raise UsageError("shards need one batch size, for it decides their rows: give it as a number.")
    if feeds.rows is None and (shard is not None or how.batch_size == "auto"):
        what = "split: give --shard" if shard is not None else "measured with: give --batch-size auto"
        raise UsageError(f"a stream cannot be {what} files, folders, tar files or lists.")
    rows = feeds.rows if shard is None or feeds.rows is None else max(1, feeds.rows // shard.count)

    def fitting(row_bytes: int | None) -> int:
        fixed = probed.fixed_batch_size
        # What suits an engine may take a while to find out, and of two rows each is a batch of its own.
        usual = 1 if rows is not None and rows <= 2 else probed.usual_batch_size
        return choose_batch_size(how, rows, fixed, usual, row_bytes)

    batch_size = batch_size or fitting(None)
    while True:
        engine = build(batch_size)
        chosen = fitting(row_bytes(engine.outputs))
        if chosen == batch_size:
            return engine, batch_size
        del engine  # The next one may need its memory.
        batch_size = chosen


def _measured(
    engine: Engine, feeds: Feeds, how: ExtractOptions, build: Build, most: int
) -> tuple[Engine, str]:
    """The engine with as many rows at once as measuring finds best; see `fitted_engine`."""
    with closing(batches(feeds, min(most, ROWS_TO_MEASURE), worker_threads(how, feeds))) as taken:
        first = next(taken)
    best, rates = measured(first.inputs, build, most) if first.rows else (None, {})
    if best is None:
        why = "there is too little to measure others" if most < min(SIZES) else "no others fit into memory"
        return engine, f"batch size {engine.batch_size}: {why}"
    others = ", ".join(f"{size}: {rate:.1f}" for size, rate in rates.items())
    return best, f"batch size {best.batch_size}, measured in rows/s: {others}"
