"""A run with all its parts built: the model loaded, its inputs matched, the engine for them made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from layerprobe.options import Computing, ExtractOptions, Finish
from layerprobe.records import TensorSpec
from layerprobe.run.loop import Run
from layerprobe.run.request import find_feeds
from layerprobe.run.sizing import fitted_engine, outlined, rows_to_do
from layerprobe.run.storing import Storing

if TYPE_CHECKING:
    from layerprobe.protocols import Engine, LoadedModel, Source
    from layerprobe.run.clock import Clock


def prepare_run(
    probed: LoadedModel,
    sources: Mapping[str, Source],
    how: ExtractOptions,
    clock: Clock,
    check: Callable[[int, Sequence[TensorSpec]], None] | None = None,
) -> Run:
    """Load the model, and build all that computes with it.

    Args:
        probed: The model.
        sources: Its inputs by name; "" where it has only one.
        how: The user's options.
        clock: Counts the seconds of each stage.
        check: Called, before the weights of a large model are read, with the number of rows and what is to be
            stored of each.
    """
    probed.prepare()
    feeds = find_feeds(probed, sources, how, clock)
    planned = None
    if probed.takes_long_to_load:
        planned = outlined(probed, feeds, how)
        if check is not None and feeds.rows is not None:
            check(len(rows_to_do(feeds, how, planned)), Storing(planned, Finish(how.pool, how.dtype)).specs)
    computing = Computing(how.training, how.seed, how.precision, Finish(how.pool, how.dtype))

    def build(batch_size: int) -> Engine:
        return probed.engine(feeds.specs, batch_size=batch_size, how=computing)

    engine, note = fitted_engine(probed, feeds, how, build, None if planned is None else planned.batch_size)
    if feeds.rows is not None:
        feeds.take(rows_to_do(feeds, how, engine))
    return Run(probed, feeds, engine, how, clock, note)
