"""What Keras and TensorFlow say is wrong, in few words."""

from __future__ import annotations

import re


def first_line(error: Exception) -> str:
    """The first line in which Keras or TensorFlow says what is wrong, for the end of a sentence of ours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("[[{{")[0]  # without colours and places in a graph
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith("Graph execution error"):  # the stack comes before the reason
        lines.reverse()
    if lines[0].startswith("Exception encountered") and len(lines) > 1:  # the layer comes before the reason
        del lines[0]
    return lines[0][:300].rstrip(".")
