"""`layerprobe info`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from layerprobe.cli.console import emit, escape
from layerprobe.errors import OutputFormatError
from layerprobe.hiding import shown


@click.command()
@click.argument("output", type=click.Path(readable=False))
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
def info(output: str, as_json: bool) -> None:
    """Say what is inside OUTPUT, a file or folder that extract wrote."""
    from layerprobe.formats.opening import open_output

    with open_output(output) as reader:
        summary = {
            "path": shown(output),
            "rows": len(reader.paths),
            "status": dict(Counter(reader.status)),
            "layers": [
                {"name": name, "shape": list(reader[name].shape), "dtype": str(reader[name].dtype)}
                for name in reader
            ],
            "compression": None
            if reader.compression is None
            else {
                "name": reader.compression,
                "bytes": sum(reader[name].nbytes for name in reader),
                "stored_bytes": reader.stored_bytes,
            },
            "fields": sorted({name for fields in reader.fields or () for name in fields}),
            "errors": [
                {"row": row, "path": path, "error": error}
                for row, (path, error) in enumerate(zip(reader.paths, reader.error, strict=True))
                if error
            ],
            "provenance": reader.provenance,
        }
    if as_json:
        emit(json.dumps(summary, indent=2))
    else:
        emit(_text(summary))


def _text(summary: dict[str, Any]) -> str:
    try:
        return "\n".join(_lines(summary))
    except (LookupError, TypeError, ValueError) as error:
        # What extract writes has every key; what others wrote under the same names may lack some.
        raise OutputFormatError(
            f"{summary['path']!r}: its provenance is not what extract writes: --json shows it as it stands."
        ) from error


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    from layerprobe.run.provenance import preprocessing_text

    origin = summary["provenance"]
    fields = ", ".join(summary["fields"])
    status = ", ".join(f"{count} {name}" for name, count in sorted(summary["status"].items(), reverse=True))
    yield line(summary["path"], f"{summary['rows']} row{'s' * (summary['rows'] != 1)} ({status})")
    if part := origin["inputs"].get("part"):
        start, stop = part["rows"]
        yield line("shard", f"{part['shard']}, rows {start} to {stop - 1} of {part['listed']}")
    for layer, stored in zip(origin["layers"], summary["layers"], strict=True):
        yield line(
            "layer", f"{stored['name']}  {tuple(stored['shape'])}  {stored['dtype']}  {_origin(layer)}"
        )
    if summary["compression"]:
        yield line("compression", _compression(summary["compression"]))
    if fields:
        yield line("fields", fields)
    model = origin["model"]
    yield line("model", f"{model['path']}  Keras {model['keras_version'] or '?'}  sha256 {model['sha256']}")
    yield line("preprocessing", preprocessing_text(origin["preprocessing"]))
    engine = origin["engine"]
    yield line(
        "engine",
        f"{engine['name']} on {engine['device']}, {engine['precision']}, batch {engine['batch_size']}",
    )
    yield line("versions", ", ".join(f"{name} {version}" for name, version in origin["versions"].items()))
    yield line("started", origin["started"])
    for failure in summary["errors"][:10]:
        yield line(f"row {failure['row']}", f"{failure['path']}: {failure['error']}")
    if len(summary["errors"]) > 10:
        yield line("...", f"{len(summary['errors']) - 10} more failed rows")


def _compression(told: dict[str, Any]) -> str:
    """How, and how much smaller the layers are for it."""
    from layerprobe.formats.disk import amount

    ratio = told["bytes"] / max(1, told["stored_bytes"])
    sizes = f"{amount(told['stored_bytes'])} for {amount(told['bytes'])}"
    return f"{told['name']}, {sizes}, a ratio of {ratio:.3g}"


def _origin(layer: dict[str, Any]) -> str:
    """The class behind a stored array, and its layer where the array is called otherwise."""
    told = str(layer["class_name"])
    return told if layer["layer"] in ("", layer["name"]) else f"{told} {layer['layer']}"


def line(name: str, text: str) -> str:
    """One of the lines that say what is inside."""
    return f"{escape(name):14} {escape(text)}"
