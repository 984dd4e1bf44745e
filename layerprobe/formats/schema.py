"""What every output holds, whatever its format.

One array of shape (N, ...) for each layer; `paths`, `status` ("ok" or "failed") and `error` ("" when ok), one
text for each of the N rows; `fields`, the JSON text of an object for each row, where the list of inputs said
more than paths; and `provenance`, one JSON text: a `Provenance`, the version of this schema, and under which
name each layer's array is stored.

A layer may have any name; a format may not hold it. `stored_names` keeps names that are harmless and writes
what is not as URLs do ("a/b" -> "a%2Fb"), so that `urllib.parse.unquote` reads them. "%" alone stands for the
empty name, "%~" and a hash for the rest of one that is too long. The record has all names in full.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np

from layerprobe.columns import AT_ONCE, Column
from layerprobe.errors import OutputFormatError, UnrecordableLayerError
from layerprobe.records import Provenance

VERSION = 1
VERSION_KEY = "layerprobe_format"

_NEVER = r"[%\x00-\x1f\x7f-\x9f\ud800-\udfff]"
_RESERVED = r"\A(?:e(?=rror\Z)|f(?=ields\Z)|p(?=aths\Z|rovenance\Z)|s(?=tatus\Z))"
_DEVICE = r"\A(?:a(?=ux(?![^.]))|c(?=(?:on|om\d)(?![^.]))|l(?=pt\d(?![^.]))|n(?=ul(?![^.]))|p(?=rn(?![^.])))"


@dataclass(frozen=True, slots=True)
class NameRules:
    """Which names a format cannot hold as they are."""

    unsafe: re.Pattern[str]
    """Each character that this matches is escaped."""
    longest: int
    """In bytes of UTF-8, of the stored name."""
    folds_case: bool = False
    """Whether names that differ only in case may be one and the same to it."""


# NumPy takes "x.npy" for the member of "x", and archive tools would write "../x" outside their folder.
NPZ_NAMES = NameRules(
    re.compile(rf"{_NEVER}|{_RESERVED}|\\|\A/|/(?=/|\Z)|(?<![^/])\.(?=\.?(?![^/]))|\.(?=npy\Z)"), 4000
)
# A JSON text holds any name but one that the format keeps for itself.
SAFETENSORS_NAMES = NameRules(re.compile(rf"{_NEVER}|{_RESERVED}|\A_(?=_metadata__\Z)"), 4000)
# Columns are called alike that differ in case, for DuckDB and Spark; "." leads into a column.
PARQUET_NAMES = NameRules(re.compile(rf"{_NEVER}|\.|(?i:{_RESERVED}|\Ap(?=ath\Z))"), 1000, folds_case=True)
# Flat: "encoder" and "encoder/conv1" cannot both be datasets.
HDF5_NAMES = NameRules(re.compile(rf"{_NEVER}|{_RESERVED}|/|\A\."), 4000)
# File systems fold case and Unicode forms; Windows keeps characters and device names for itself.
FOLDER_NAMES = NameRules(
    re.compile(rf"""{_NEVER}|[/\\<>:"|?*]|[^\x00-\x7f]|\A\.|(?i:{_RESERVED}|{_DEVICE})"""),
    240,
    folds_case=True,
)
# Members of a group are folders too; two names are Zarr's.
ZARR_NAMES = NameRules(
    re.compile(rf"{FOLDER_NAMES.unsafe.pattern}|\A(?:_(?=_)|(?i:z(?=arr\.json\Z)))"), 240, folds_case=True
)
# Members of tar files become files too, and their names begin with a key.
MEMBER_NAMES = NameRules(FOLDER_NAMES.unsafe, 120)
# Readers of WebDataset split at the first "."; "~" would take another row's number.
KEY_NAMES = NameRules(re.compile(rf"{_NEVER}|[/\\.~]"), 100)


def stored_names(layers: Sequence[str], rules: NameRules) -> dict[str, str]:
    """Find a name for each layer that the format can hold; no two get the same.

    Args:
        layers: Layer names, any text, all different.
        rules: Of the format.

    Returns:
        Layer name -> stored name, in the same order.
    """
    folded = Counter(layer.lower() for layer in layers) if rules.folds_case else Counter()
    with_capitals = re.compile(f"{rules.unsafe.pattern}|[A-Z]")
    return {
        layer: _escape(layer, with_capitals if folded[layer.lower()] > 1 else rules.unsafe, rules.longest)
        for layer in layers
    }


def _escape(name: str, unsafe: re.Pattern[str], longest: int) -> str:
    escaped = unsafe.sub(lambda match: _percent(match[0]), name) or "%"
    if len(escaped.encode()) <= longest:
        return escaped
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return escaped.encode()[: longest - 34].decode("utf-8", "ignore") + "%~" + digest


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def stored_dtype(name: str, layer: str) -> np.dtype[Any]:
    """Find the dtype in which values are stored: little-endian, and float32 for bfloat16 and float8.

    Args:
        name: NumPy's (or ml_dtypes') name of the layer's dtype.
        layer: The layer's name, for the error.

    Raises:
        UnrecordableLayerError: The values are no numbers: text, objects, variants.
    """
    try:
        dtype = np.dtype("float32" if name.startswith(("bfloat16", "float8")) else name)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biufc":
        raise UnrecordableLayerError(
            f"the values of layer {layer!r} cannot be stored: expected numbers or booleans. Received: {name}."
        )
    return dtype.newbyteorder("<")


def text_columns(
    rows: int, failures: Mapping[int, str], fields: Sequence[str] | None = None
) -> dict[str, Sequence[str]]:
    """Say how each of the N rows fared, `status` and `error`, and what is known of it, `fields` if any is."""
    failed = np.sort(np.fromiter(failures, np.int64, len(failures)))

    def told(start: int, stop: int, usual: str, of: Callable[[int], str]) -> list[str]:
        texts = [usual] * (stop - start)
        for row in failed[slice(*np.searchsorted(failed, (start, stop)))].tolist():
            texts[row - start] = of(row)
        return texts

    columns: dict[str, Sequence[str]] = {
        "status": Column(rows, lambda start, stop: told(start, stop, "ok", lambda row: "failed")),
        "error": Column(rows, lambda start, stop: told(start, stop, "", failures.__getitem__)),
    }
    return columns if fields is None else columns | {"fields": fields}


def dump_record(arrays: Mapping[str, str], provenance: Provenance, checksums: Mapping[str, Any]) -> str:
    """Write the JSON text of an output, in ASCII; it ends with a checksum of itself.

    Args:
        arrays: Layer name -> stored name, in the order asked for.
        provenance: Mappings and sequences of plain values.
        checksums: Of the rows, see `RowBlocks.checksums`, and of the "texts", see `text_checksums`.
    """
    record = {VERSION_KEY: VERSION, "arrays": arrays}
    record |= {field.name: getattr(provenance, field.name) for field in fields(provenance)}
    text = json.dumps({**record, "checksums": checksums}, default=_plain)
    return f'{text[:-1]}, "crc32": {zlib.crc32(text.encode())}}}'


def is_intact(text: str | bytes) -> bool | None:
    """Whether the JSON text of an output is what was written; None where it has no checksum."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    found = re.search(rb', "crc32": (\d+)\}\Z', data)
    return None if found is None else zlib.crc32(data[: found.start()] + b"}") == int(found[1])


def text_checksums(columns: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Give the CRC-32 of columns of texts, by name."""
    found = dict.fromkeys(columns, 0)
    for name, texts in columns.items():
        each = iter(texts)
        while some := list(islice(each, AT_ONCE)):
            if name == "fields":  # nothing is said; not every format keeps the two apart
                some = ["" if text == "{}" else text for text in some]
            ended = "\0".join([*some, ""])
            found[name] = zlib.crc32(ended.encode("utf-8", "surrogatepass"), found[name])
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return value.item() if isinstance(value, np.generic) else str(value)


def load_record(text: str | bytes, path: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Read the JSON text of an output.

    Returns:
        Layer name -> stored name, in the order asked for; and the provenance.

    Raises:
        OutputFormatError: The text is not such a record, or one of a later version.
    """
    try:
        record = json.loads(text)
        if isinstance(record, dict) and VERSION_KEY not in record and {"layer", "method"} <= set(record):
            raise OutputFormatError(
                f"{path!r} holds class maps, which `layerprobe cam` wrote: expected an output of "
                "`layerprobe extract`."
            )
        version = record.pop(VERSION_KEY)
        arrays = {str(layer): str(stored) for layer, stored in record.pop("arrays").items()}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise OutputFormatError(
            f"{path!r} was not written by layerprobe, or is damaged: its provenance cannot be understood."
        ) from error
    if version != VERSION:
        raise OutputFormatError(
            f"{path!r} has layout {version!r} and this layerprobe reads layout {VERSION}: upgrade layerprobe."
        )
    return arrays, record
