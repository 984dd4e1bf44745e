"""Where samples come from: what a source must offer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from layerprobe.records import Sample


class Source(Protocol):
    """Where samples come from. Listing happens when it is made; reading only in `Sample.read`.

    A source may have four methods more, for those who want some of its samples: `rows(start, stop)` gives
    the samples from one to before another, `names(start, stop)` a pair of key and fields for each of them,
    and `states(start, stop)` what `Sample.state` gives. Without these it is gone through from the beginning,
    and its names are kept. One of arrays may have `values(start, stop)`, which gives what `Sample.read`
    gives, as (n, ...) arrays of consecutive samples, or raises SampleError where one of them is broken.
    """

    kind: str
    """"images" or "arrays"."""

    def __len__(self) -> int:
        """N, known before the first sample is read; raises TypeError for a stream, whose end must be seen."""
        ...

    def __iter__(self) -> Iterator[Sample]:
        """Samples 0 to N - 1 in order; the same again at each call, but for a stream."""
        ...
