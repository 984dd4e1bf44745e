"""What is said while workers are waited for: a cluster may grow, so that nobody knows whether they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from layerprobe.cluster.connection import capacity, needs

if TYPE_CHECKING:
    from layerprobe.run.cluster_options import ClusterOptions

SECONDS_OF_SILENCE = 30.0
"""Before the first sentence."""
SECONDS_BETWEEN_SENTENCES = 300.0


class _Worker(Protocol):
    """As much of a worker as matters here."""

    node: str
    ready: bool


class Patience:
    """Says now and then what is waited for, as long as that is so.

    Args:
        cluster: What was asked for.
        notice: Given each sentence; None: nobody wants to know.
    """

    def __init__(self, cluster: ClusterOptions, notice: Callable[[str], None] | None) -> None:
        self._cluster, self._notice = cluster, notice
        self._due = time.monotonic() + SECONDS_OF_SILENCE

    def tell(self, workers: Sequence[_Worker], wanted: int) -> None:
        """Say it where it is time; to be called often.

        Args:
            workers: Those that Ray was asked for.
            wanted: So many have to be ready.
        """
        ready = sum(worker.ready for worker in workers)
        now = time.monotonic()
        if ready >= wanted:
            self._due = now + SECONDS_OF_SILENCE
        elif now >= self._due and self._notice is not None:
            self._due = now + SECONDS_BETWEEN_SENTENCES
            loading = sum(bool(worker.node) for worker in workers) - ready
            missing = max(0, wanted - ready - loading)
            self._notice(
                f"waiting for workers of the cluster: ready {ready} of {wanted}, "
                f"loading the model {loading}, without a node {missing}, each of which needs "
                f"{needs(self._cluster)}; the nodes have room for {capacity(self._cluster)}, "
                "when nothing else runs on them"
            )
