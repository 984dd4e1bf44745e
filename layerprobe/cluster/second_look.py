"""Rows that a node cannot read, tried again on the driver's machine.

Where that can read one, the node lacks something: a folder that is mounted elsewhere, or the passwords of a
store. Each such node would fill its share of the output with failures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerprobe.errors import SampleError, UnavailableError
from layerprobe.stores.urls import is_url

if TYPE_CHECKING:
    from layerprobe.records import Failure
    from layerprobe.run.feeds import Feeds

ONE_OF = 16
"""Of rows that are dear to try, in stores and within files, the first of each node and then one of so many:
the driver waits meanwhile, and where a list names thousands that are gone it would wait for each."""


class SecondLook:
    """Sees to it that what a node cannot read cannot be read here either."""

    def __init__(self) -> None:
        self._dear: Counter[str] = Counter()
        """Node -> rows that it could not read and that are dear to try."""

    def check(self, node: str, feeds: Feeds, failures: Sequence[Failure]) -> None:
        """Try rows that failed on a node.

        Raises:
            UnavailableError: One of them can be read here.
        """
        tried = {
            failure.index: failure
            for failure in failures
            if failure.stage == "read" and self._shall_be_tried(node, failure.key)
        }
        rows = sorted(tried)
        if not rows:
            return
        for row, samples in zip(rows, feeds.samples([(row, row + 1) for row in rows]), strict=True):
            failure = tried[row]
            try:
                for sample in samples:
                    if sample.key == failure.key:
                        sample.read()
            except SampleError:
                continue
            raise UnavailableError(
                f"the node {node} cannot read {failure.key!r}, which this machine can ({failure.reason}): "
                "every node has to see the inputs, and to have the passwords of their store."
            )

    def _shall_be_tried(self, node: str, key: str) -> bool:
        if not (is_url(key) or "::" in key or key.endswith("]")):  # A file of this machine.
            return True
        self._dear[node] += 1
        return self._dear[node] % ONE_OF == 1
