"""Where a run on a cluster finds its workers, and what each of them gets."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerprobe.errors import UsageError
from layerprobe.stores.urls import shown

if TYPE_CHECKING:
    from layerprobe.options import ExtractOptions


SMALLEST = 0.0001
"""The least of a processor or GPU that Ray shares out."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """A cluster and what is asked of it."""

    address: str
    """ "ray" (the one that this machine belongs to, or a new one on it), "ray://HOST:PORT" or "HOST:PORT"."""
    least: int
    """Workers that have to be there before the first batch is computed."""
    most: int | None
    """Workers that are asked for; None: as many as the nodes have room for."""
    cpus: float
    """Processors of each worker."""
    gpus: float
    """GPUs of each worker."""


def parse_cluster(how: ExtractOptions) -> ClusterOptions | None:
    """Read the options about a cluster; None: there is none.

    Raises:
        UsageError: One of them cannot be meant, or an option that is about one machine is there too.
    """
    if how.cluster is None:
        for name in ("cpus_per_worker", "gpus_per_worker"):
            if getattr(how, name) is not None:
                raise UsageError(f"{name} is about the workers of a cluster: give --cluster ray too.")
        if isinstance(how.workers, str):
            raise UsageError(f"workers is a number of threads, without --cluster. Received: {how.workers!r}")
        return None
    if not re.fullmatch(r"ray|(ray://)?[\w.\-\[\]:]+:\d+", how.cluster):
        received = shown(how.cluster)
        raise UsageError(f"cluster must be ray, ray://HOST:PORT or HOST:PORT. Received: {received!r}")
    if how.processes > 1:
        raise UsageError("processes are for one machine: with --cluster give --workers MIN:MAX.")
    if how.training:
        raise UsageError("training needs one process, in which the random numbers follow each other.")
    if how.device.startswith("gpu:"):
        raise UsageError("Ray gives each worker its GPU: give --gpus-per-worker 1 and no number in --device.")
    cpus = 1.0 if how.cpus_per_worker is None else float(how.cpus_per_worker)
    gpus = 0.0 if how.gpus_per_worker is None else float(how.gpus_per_worker)
    if not (SMALLEST <= cpus < math.inf and (gpus == 0 or SMALLEST <= gpus < math.inf)):
        raise UsageError(f"a worker needs some of a processor. Received: {cpus} CPUs and {gpus} GPUs")
    if gpus > 1 and not gpus.is_integer():
        raise UsageError(f"gpus_per_worker must be a part of one, or a whole number. Received: {gpus}")
    # Ray knows no more than four places.
    cpus, gpus = round(cpus, 4), round(gpus, 4)
    if how.device == "gpu" and not gpus:
        raise UsageError("a worker without a GPU cannot compute on one: give --gpus-per-worker 1 too.")
    return ClusterOptions(how.cluster, *_workers(how.workers), cpus, gpus)


def _workers(given: int | str | None) -> tuple[int, int | None]:
    """MIN:MAX -> both; N -> N and N."""
    if given is None:
        return 1, None
    found = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", str(given), re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2] or found[1]):
        raise UsageError(
            f"with --cluster, workers must be N or MIN:MAX, as in --workers 4:16. Received: {given!r}"
        )
    return int(found[1]), int(found[2] or found[1])
