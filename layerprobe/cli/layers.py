"""`layerprobe layers`."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from layerprobe.cli.console import emit, escape, only_our_own_lines, say
from layerprobe.cli.model_options import model_options, read_custom, read_lambdas

if TYPE_CHECKING:
    from rich.table import Table

    from layerprobe.records import LayerInfo


@click.command()
@click.argument("model", type=click.Path())
@click.argument("patterns", nargs=-1)
@click.option("--tree", is_flag=True, help="Nested layers under the layer that holds them.")
@click.option("--shapes", is_flag=True, help="Output shapes too; this loads the model.")
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

    The file alone is read, without TensorFlow. A file stores no output shapes: --shapes loads the model.
    A subclassed model does not list its layers either, so it is loaded, with the code given by --custom.
    """
    from layerprobe.modelfile.select import match
    from layerprobe.probed_model import layers as list_layers

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
        emit(_render(found, tree, shapes))
    else:
        say(f"{model}: only the code of this model knows its layers: give it with --custom FILE.py.")


def _render(found: Sequence[LayerInfo], tree: bool, shapes: bool) -> str:
    from rich.console import Console

    table = _table()
    if shapes:
        table.add_column("shape")
    for layer in found:
        depth = layer.address.count("/")
        name = escape(layer.address.rsplit("/", 1)[-1] if tree else layer.address)
        row = [
            "" if layer.index is None else f"#{layer.index}",
            "  " * depth * tree + name,
            escape(layer.class_name),
            "" if layer.parameters is None else f"{layer.parameters:,}",
            escape(_short(layer.inbound)),
            str(layer.calls) if layer.calls != 1 else "",
        ]
        if shapes:
            row.append(" ".join(map(_shape, layer.shapes)) if layer.shapes else "")
        table.add_row(*row, style="dim" if layer.problem else None)
    # Nobody reads a pipe on a narrow screen: names stay whole there.
    width = None if sys.stdout.isatty() else 1000
    written = io.StringIO()
    Console(file=written, highlight=False, force_terminal=sys.stdout.isatty(), width=width).print(table)
    lines = [written.getvalue().rstrip(), f"{len(found)} layers, {_parameters(found):,} parameters"]
    lines += [f"{escape(layer.address)}: {escape(layer.problem)}" for layer in found if layer.problem]
    return "\n".join(lines)


def _table() -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("#", justify="right")
    for name in ("layer", "class"):
        table.add_column(name, overflow="fold")
    table.add_column("parameters", justify="right")
    table.add_column("from", overflow="fold")
    table.add_column("calls", justify="right")
    return table


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


def _short(inbound: Sequence[str]) -> str:
    shown = ", ".join(inbound[:4])
    return shown + (f", ... ({len(inbound)})" if len(inbound) > 4 else "")


def _shape(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
