"""What the user is told after a run: what was assumed, and what was done in another way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerprobe.images.presets import ASKED
from layerprobe.stores.notes import taken

if TYPE_CHECKING:
    from layerprobe.run.loop import Run


def notes(model_note: str | None, run: Run) -> Iterator[str]:
    """Give the sentences that the user should see after a run; that of its model first, if there is one."""
    if model_note is not None:
        yield model_note
    if run.batch_note is not None:
        yield run.batch_note
    if run.engine.at_once < run.engine.batch_size:
        yield (
            f"a batch of {run.engine.batch_size} rows did not fit into memory: "
            f"{run.engine.at_once} were computed at once"
        )
    how = run.feeds.preprocessing
    if how is not None and how.reason != ASKED:
        yield f"preprocess {how.preset}: {how.reason}"
    if run.tally.several_frames:
        yield f"{run.tally.several_frames} of the images have several frames: the first was taken"
    if run.tally.workers_lost:
        died = f"{run.tally.workers_lost} workers" if run.tally.workers_lost > 1 else "a worker"
        yield f"{died} died: what had not been reported was computed again"
    yield from taken()
    for name, count in run.tally.overflows.items():
        yield f"{name}: {count} values are too large for float16 and became infinite: use --dtype float32"
