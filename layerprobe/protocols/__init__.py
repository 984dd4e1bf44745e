"""What a source, an engine, a writer and a reader must offer.

The conformance tests run over the tables of `registry.py`; whatever is listed there is held to these.
"""

from layerprobe.protocols.models import Collect, Engine, LoadedModel, Outline, Runnable
from layerprobe.protocols.outputs import FileStream, PlacedWriter, Reader, RowStream, Writer
from layerprobe.protocols.sources import Source

__all__ = [
    "Collect",
    "Engine",
    "FileStream",
    "LoadedModel",
    "Outline",
    "PlacedWriter",
    "Reader",
    "RowStream",
    "Runnable",
    "Source",
    "Writer",
]
