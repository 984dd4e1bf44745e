"""What runs in a Ray actor: loads the model once, computes batches, puts them at their places.

It knows nothing of Ray. Everything is done when it is first asked for, so that what goes wrong is told to who
asked.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from layerprobe.errors import NoInputError, OutputError
from layerprobe.processors import bind, processors

if TYPE_CHECKING:
    from layerprobe.formats.places import RowPlaces
    from layerprobe.run.clock import Clock
    from layerprobe.run.loop import Run
    from layerprobe.run.probed_model import ProbedModel
    from layerprobe.workers.remote import Described, Job, Written


class ClusterWorker:
    """One worker of a run on a cluster.

    Args:
        folder: The one that relative paths of its job begin in.
    """

    _job: Job
    """It comes with `describe`, when it is known which share of its node the worker has."""

    def __init__(self, folder: str) -> None:
        with suppress(OSError):  # Where paths are absolute it need not be there.
            os.chdir(folder)

    def node(self) -> tuple[str, list[int]]:
        """Tell the name of the machine, and which processors it has for this process."""
        return platform.node(), processors()

    def describe(self, job: Job, own: Sequence[int], batch_size: int | None) -> Described:
        """Load the model and tell what would compute it.

        Args:
            job: What it is to compute.
            own: Its share of the processors; what counts them, as OpenVINO does, is imported after this.
            batch_size: B of the other workers; None: this is the first.

        Raises:
            LayerprobeError: The model or the inputs cannot be used on this node.
        """
        from layerprobe.workers.worker import describe

        if own:
            bind(own)
        if batch_size is not None:
            job = replace(job, how=replace(job.how, batch_size=batch_size))
        self._job = job
        try:
            return describe(self._probed, self._run)
        except NoInputError as error:
            raise NoInputError(f"{error} That is so on {platform.node()}: all nodes must see it.") from error

    def compute(self, places: RowPlaces, starts: Sequence[int]) -> tuple[tuple[str, int], list[Written]]:
        """Compute the batches that begin at these rows, and bring them to disk.

        Returns:
            Which process this is, and what was written.

        Raises:
            LayerprobeError: A row cannot be dealt with, or not be written.
        """
        from layerprobe.formats.places import PlacedRows
        from layerprobe.workers.remote import Written
        from layerprobe.workers.worker import count

        for name, _ in places.files.values():
            if not os.path.exists(name if places.rows_per_file is None else os.path.dirname(name)):
                raise OutputError(
                    f"{platform.node()} does not see {name!r}: give -o for a folder that all nodes share, or "
                    "set TMPDIR to one where the output goes to a store."
                )
        rows, entries = PlacedRows(places), []
        self._run.assign(starts)
        with closing(self._run.blocks(None, None)) as blocks:
            for batch, block in blocks:
                entries.append(self._run.entry(batch, rows.write(batch.start, block)))
        rows.sync()
        counts = count(self._run, self._clock)
        return (platform.node(), os.getpid()), [Written(entry, counts) for entry in entries]

    @cached_property
    def _clock(self) -> Clock:
        from layerprobe.run.clock import Clock

        return Clock()

    @cached_property
    def _probed(self) -> ProbedModel:
        from layerprobe.workers.worker import probed_model

        return probed_model(self._job)

    @cached_property
    def _run(self) -> Run:
        from layerprobe.workers.worker import prepared_run

        return prepared_run(self._job, self._probed, self._clock)
