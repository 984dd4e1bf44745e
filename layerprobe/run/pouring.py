"""A run whose rows are passed on as they are computed: nothing of it is kept."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from layerprobe.errors import StoppedError
from layerprobe.formats.row_texts import RowTexts
from layerprobe.run.loop import Progress, Run, Stop

if TYPE_CHECKING:
    from layerprobe.protocols import RowStream


def pour(run: Run, stream: RowStream, progress: Progress | None, stop: Stop | None) -> None:
    """Fill a stream to its end.

    Args:
        run: Its rows go to the stream, in order.
        stream: Where they go.
        progress: Called before the first batch and after each.
        stop: Asked after each batch.

    Raises:
        StoppedError: `stop` said so.
        LayerprobeError: As `Run.fill` and `Run.finish`.
    """
    try:
        with closing(run.blocks(progress, stop)) as blocks:
            for batch, block in blocks:
                reasons = {failure.index - batch.start: failure.reason for failure in batch.failures}
                stream.append(RowTexts(batch.keys, reasons, batch.fields), block)
        run.failures.finish()
        run.finish(stream)
    except StoppedError as error:
        raise StoppedError(f"{error} Nothing is kept of what a pipe was given.") from error
    finally:
        stream.abort()
        run.failures.close()
