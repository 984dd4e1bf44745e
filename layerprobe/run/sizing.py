"""The engine of a run, with as many rows at once as its activations, its inputs and its user allow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from layerprobe.errors import UsageError
from layerprobe.options import Computing, ExtractOptions, Finish
from layerprobe.run.batches import batches, worker_threads
from layerprobe.run.feeds import Feeds
from layerprobe.run.fitting import SIZES, measured, row_bytes
from layerprobe.run.plan import BATCH_BYTES, choose_batch_size
from layerprobe.run.shards import parse_shard, rows_of

if TYPE_CHECKING:
    from layerprobe.protocols import Engine, LoadedModel, Outline
    from layerprobe.run.fitting import Build

    Built = TypeVar("Built", bound=Outline)


def fitted_engine(
    probed: LoadedModel, feeds: Feeds, how: ExtractOptions, build: Build, batch_size: int | None = None
) -> tuple[Engine, str | None]:
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
    engine = _fitted(probed, feeds, how, build, batch_size)
    rows = feeds.rows
    if how.batch_size != "auto" or probed.fixed_batch_size is not None or rows is None:
        return engine, None
    most = min(-(-rows // 2), max(1, BATCH_BYTES // (row_bytes(engine.outputs) or 1)))
    return _measured(engine, feeds, how, build, most)


def outlined(probed: LoadedModel, feeds: Feeds, how: ExtractOptions) -> Outline:
    """Tell what engine a run would have, and its batch size, where that need not be measured."""
    computing = Computing(how.training, how.seed, how.precision, Finish(how.pool, how.dtype))

    def build(batch_size: int) -> Outline:
        return probed.outline(feeds.specs, batch_size=batch_size, how=computing)

    return _fitted(probed, feeds, how, build, None)


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
) -> Built:
    """Build an engine, again with other batches where its activations are too big or it is another one."""
    shard = None if how.shard is None else parse_shard(how.shard)
    if shard is not None and how.batch_size == "auto":
        raise UsageError("shards need one batch size, for it decides their rows: give it as a number.")
    if feeds.rows is None and (shard is not None or how.batch_size == "auto"):
        what = "split: give --shard" if shard is not None else "measured with: give --batch-size auto"
        raise UsageError(f"a stream cannot be {what} files, folders, tar files or lists.")
    rows = feeds.rows if shard is None or feeds.rows is None else max(1, feeds.rows // shard.count)

    def fitting(row_bytes: int | None) -> int:
        fixed, usual = probed.fixed_batch_size, probed.usual_batch_size
        return choose_batch_size(how, rows, fixed, usual, row_bytes)

    batch_size = batch_size or fitting(None)
    while True:
        engine = build(batch_size)
        if fitting(row_bytes(engine.outputs)) == batch_size:
            return engine
        batch_size = fitting(row_bytes(engine.outputs))


def _measured(
    engine: Engine, feeds: Feeds, how: ExtractOptions, build: Build, most: int
) -> tuple[Engine, str]:
    """The engine with as many rows at once as measuring finds best; see `fitted_engine`."""
    with closing(batches(feeds, min(most, max(SIZES)), worker_threads(how, feeds))) as taken:
        first = next(taken)
    best, rates = measured(first.inputs, build, most) if first.rows else (None, {})
    if best is None:
        return engine, f"batch size {engine.batch_size}: there is too little to measure others"
    others = ", ".join(f"{size}: {rate:.1f}" for size, rate in rates.items())
    return best, f"batch size {best.batch_size}, measured in rows/s: {others}"
