"""A run whose rows go out one after the other, or come so: nothing of it has a place before its end."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from layerprobe.errors import StoppedError, UsageError
from layerprobe.formats.row_texts import RowTexts
from layerprobe.registry import STREAMS
from layerprobe.run.loop import Progress, Run, Stop

if TYPE_CHECKING:
    from layerprobe.protocols import RowStream
    from layerprobe.records import ExtractOptions


def pour(run: Run, stream: RowStream, progress: Progress | None, stop: Stop | None) -> None:
    """Fill a stream to its end; what came to a file before an error is removed.

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
        raise StoppedError(f"{error} Nothing is kept: rows of a stream cannot be resumed.") from error
    finally:
        stream.abort()
        run.failures.close()


def check_stream(file_format: str, how: ExtractOptions) -> None:
    """Raise UsageError for options that need places, which rows have not in this format or from a stream."""
    what = f"a .{file_format} file" if file_format in STREAMS else "what is read as a stream"
    for name, asked in (("resume", how.resume), ("processes", how.processes > 1)):
        if asked:
            raise UsageError(
                f"{name} is not for {what}: rows have places where the inputs are files and the output is "
                "HDF5, .npz, .parquet, .safetensors or a folder."
            )


def keys_ahead(run: Run) -> list[str] | None:
    """What each row is called, before the first is computed; None for a stream."""
    return run.keys if run.feeds.rows is not None else None
