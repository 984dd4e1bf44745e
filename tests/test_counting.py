"""Texts are counted as a dictionary would, in a fraction of its memory."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

from layerprobe.formats.counting import Counted


def test_texts_are_counted_as_by_a_dictionary() -> None:
    drawn = random.Random(0).choices([f"a/folder/{row:07}\udcff" for row in range(6000)], k=9000)
    counted, wanted = Counted(), Counter[str]()
    for text in ["", *drawn, ""]:
        wanted[text] += 1
        assert counted.add(text) == wanted[text]


def test_many_texts_take_few_bytes_each() -> None:
    rows = 100_000
    tracemalloc.start()
    try:
        counted = Counted()
        assert {counted.add(f"a/folder/{row:07}") for row in range(rows)} == {1}
        assert tracemalloc.get_traced_memory()[0] < 25 * rows
    finally:
        tracemalloc.stop()
