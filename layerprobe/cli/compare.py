"""`layerprobe compare`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from layerprobe.cli.console import as_text, emit, escape, say, text_console
from layerprobe.cli.progress import progress
from layerprobe.hiding import shown

if TYPE_CHECKING:
    from rich.table import Table

    from layerprobe.similarity import Similarity

WIDEST = 10_000
"""Columns of a matrix that goes to no terminal."""
WHOLE = "the matrix is wider than this terminal: -o x.png draws it, --json has it"


@click.command()
@click.argument("one", type=click.Path(readable=False))
@click.argument("other", type=click.Path(readable=False))
@click.option("-l", "--layer", "layers", multiple=True, metavar="NAME", help="Only this layer; repeats.")
@click.option("-o", "--output", type=click.Path(readable=False), help="The matrix as a picture, x.png.")
@click.option("--overwrite", is_flag=True, help="Replace an existing picture.")
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors on stderr.")
def compare(
    one: str,
    other: str,
    layers: tuple[str, ...],
    output: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """How alike the layers of ONE and OTHER are, outputs of extract over the same images: linear CKA.

    1 where two layers tell the images apart in the same way, up to rotation and scale; 0 where not at all.
    """
    from layerprobe.similarity import compare as compare_outputs

    if output is not None:
        from layerprobe.views.saving import check_picture

        check_picture(output, overwrite)
    with progress(quiet or as_json, "blocks") as update:
        found = compare_outputs(one, other, layers, update and (lambda done, blocks: update(done, blocks, 0)))
    if output is not None:
        _draw(found, one, other, output)
    emit(json.dumps(_as_json(found), indent=2) if as_json else _render(found, one, other))
    for name in () if quiet else found.not_finite:
        say(f"{name} holds values that are NaN or infinite: nothing can be compared with it")
    if output is not None and not quiet:
        say(f"{found.rows} images -> {output}")


def _draw(found: Similarity, one: str, other: str, output: str) -> None:
    from layerprobe.views.matrix import draw_matrix
    from layerprobe.views.saving import save_picture

    below = f"{shown(one)} (rows) and {shown(other)} (columns), {found.rows} images"
    save_picture(draw_matrix(found.values, found.one, found.other, "Linear CKA", below), output)


def _as_json(found: Similarity) -> dict[str, object]:
    values = [[None if value != value else value for value in row] for row in found.values.tolist()]
    names = {"one": found.one, "other": found.other, "not_finite": found.not_finite}
    return {"rows": found.rows, **names, "cka": values}


def _render(found: Similarity, one: str, other: str) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", overflow="fold")
    for name in found.other:
        table.add_column(escape(name), justify="right", overflow="fold")
    for name, row in zip(found.one, found.values.tolist(), strict=True):
        table.add_row(escape(name), *("-" if value != value else f"{value:.3f}" for value in row))
    console = text_console(WIDEST)
    if Measurement.get(console, console.options.update(max_width=100_000), table).maximum > console.width:
        table = _closest(found, own=one != other)
    return as_text(table, WIDEST)


def _closest(found: Similarity, own: bool) -> Table:
    """For a terminal that is narrower than the matrix: of each layer which one it is most like.

    Args:
        found: The matrix.
        own: Whether the layer of the same place counts, which in one output is the layer itself.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, caption=WHOLE, caption_justify="left")
    for head in ("", "most like", "CKA"):
        table.add_column(head, overflow="fold")
    for number, (name, row) in enumerate(zip(found.one, found.values.tolist(), strict=True)):
        known = {
            place: value for place, value in enumerate(row) if value == value and (own or place != number)
        }
        place = max(known, key=known.__getitem__, default=None)
        told = ("-", "-") if place is None else (escape(found.other[place]), f"{known[place]:.3f}")
        table.add_row(escape(name), *told)
    return table
