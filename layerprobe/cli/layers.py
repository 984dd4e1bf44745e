"""`layerprobe layers`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from layerprobe.cli.console import emit, escape, only_our_own_lines, say
from layerprobe.cli.model_options import model_options, read_custom, read_lambdas

if TYPE_CHECKING:
    from layerprobe.records import LayerInfo


@click.command()
@click.argument("model", type=click.Path(readable=False))
@click.argument("patterns", nargs=-1)
@click.option("--tree", is_flag=True, help="Nested layers under the layer that holds them.")
@click.option("--shapes", is_flag=True, help="Every shape, if that takes loading the model with Keras.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects on stdout.")
@model_options
def layers(
    model: str,
    patterns: tuple[str, ...],
    tree: bool,
    shapes: bool,
    as_json: bool,
    custom: tuple[str, ...],
    weights: str | None,
    lambdas: tuple[str, ...],
    max_memory: int,
) -> None:
    """List the layers of MODEL, or those that PATTERNS match, as `extract --layer` takes them.

    The file alone is read, without TensorFlow, and of the weights nothing but their shapes. What shape a
    layer gives, and how many bytes that is in float32 for one image, is worked out for those that the engine
    graph computes; for others --shapes loads the model. A subclassed model does not list its layers, so it
    is loaded, with the code given by --custom.
    """
    from layerprobe.layer_listing import layers as list_layers
    from layerprobe.modelfile.select import match

    with only_our_own_lines():
        found: Sequence[LayerInfo] = list_layers(
            model,
            shapes=shapes,
            custom_objects=read_custom(custom),
            weights=weights,
            lambdas=read_lambdas(lambdas),
            max_memory=max_memory,
        )
    if patterns:
        wanted = {layer.address for pattern in patterns for layer in match(pattern, found)}
        found = [layer for layer in found if layer.address in wanted]
    if as_json:
        emit(json.dumps([dataclasses.asdict(layer) for layer in found], indent=2))
    elif found:
        emit(_render(found, tree))
        # Where no engine is told none can: the weights are missing, for which `check` has a line.
        if not shapes and any(layer.shapes is None and layer.engine is not None for layer in found):
            say("some shapes only Keras can tell: --shapes loads the model to find them.")
    else:
        say(f"{model}: only the code of this model knows its layers: give it with --custom FILE.py.")


def _render(found: Sequence[LayerInfo], tree: bool) -> str:
    lines = _aligned([_COLUMNS, *(_row(layer, tree) for layer in found)])
    lines.insert(1, "─" * max(map(len, lines)))
    if sys.stdout.isatty():
        lines[2:] = [
            click.style(line, dim=layer.problem is not None)
            for line, layer in zip(lines[2:], found, strict=True)
        ]
    known = any(layer.parameters is not None for layer in found)
    lines.append(
        f"{len(found)} layer{'s' * (len(found) != 1)}" + known * f", {_parameters(found):,} parameters"
    )
    lines += [f"{escape(layer.address)}: {escape(layer.problem)}" for layer in found if layer.problem]
    return "\n".join(lines)


_COLUMNS = ("#", "layer", "class", "parameters", "shape", "bytes", "engine", "from", "calls")
_NUMBERS = ("#", "parameters", "bytes", "calls")
"""The columns that are set flush right."""


def _row(layer: LayerInfo, tree: bool) -> tuple[str, ...]:
    depth = layer.address.count("/")
    name = escape(layer.address.rsplit("/", 1)[-1] if tree else layer.address)
    return (
        "" if layer.index is None else f"#{layer.index}",
        "  " * depth * tree + name,
        escape(layer.class_name),
        _number(layer.parameters),
        " ".join(map(_shape, layer.shapes or ())),
        _number(layer.row_bytes),
        layer.engine or "",
        escape(_short(layer.inbound)),
        str(layer.calls) if layer.calls != 1 else "",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line per row. By hand: rich needs longer for a large model's table than all the rest takes."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    flush = [str.rjust if column in _NUMBERS else str.ljust for column in _COLUMNS]
    return [
        "   ".join(
            set_flush(cell, width) for set_flush, cell, width in zip(flush, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _parameters(found: Sequence[LayerInfo]) -> int:
    """Of all layers together; an inner layer's are among its outer one's already."""
    addresses = {layer.address for layer in found}
    return sum(
        layer.parameters or 0
        for layer in found
        if not any(layer.address[:end] in addresses for end in _slashes(layer.address))
    )


def _slashes(address: str) -> list[int]:
    return [place for place, char in enumerate(address) if char == "/"]


def _number(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _short(inbound: Sequence[str]) -> str:
    shown = ", ".join(inbound[:4])
    return shown + (f", ... ({len(inbound)})" if len(inbound) > 4 else "")


def _shape(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
