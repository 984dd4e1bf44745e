"""`layerprobe show`."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import click

from layerprobe.cli.console import emit, escape, only_our_own_lines, say
from layerprobe.cli.looking_options import RUNNING, looking_options, run_options
from layerprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from layerprobe.protocols import Reader
    from layerprobe.views.maps import Sheet

IN_A_TERMINAL = "strongest:12"
"""The channels of a preview, unless others are asked for."""
MODEL_ONLY = (*RUNNING, "custom", "weights", "lambdas", "max_memory")
PARTIAL = 3
"""The exit code where some images were skipped."""


@click.command()
@click.option("-l", "--layer", "layers", multiple=True, metavar="NAME", help="What to show; repeats.")
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False),
    help="x.png, or a folder for several. [default: a preview]",
)
@click.option("--overwrite", is_flag=True, help="Replace existing pictures.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors on stderr.")
@click.option("--row", "rows", type=int, multiple=True, help="Rows of an output; repeats. [default: 0]")
@click.option(
    "--channels", default=None, metavar="WHICH", help="all, strongest:K, or 0,5,12-15. [default: all]"
)
@click.option(
    "--scale",
    type=click.Choice(["shared", "channel"]),
    default="shared",
    show_default=True,
    help="Equal colours for equal values in all maps, or in each alone.",
)
@looking_options
def show(
    source: str,
    inputs: tuple[str, ...],
    layers: tuple[str, ...],
    output: str | None,
    overwrite: bool,
    quiet: bool,
    rows: tuple[int, ...],
    channels: str | None,
    scale: Any,
    **options: Any,
) -> None:
    """Draw the feature maps of a layer: SOURCE is an output of extract, or a model with INPUTS.

    Maps are drawn as a sheet of tiles, sequences as heat maps, vectors as bars. Without -o a preview of the
    strongest channels goes to the terminal.
    """
    from layerprobe.looking import chosen_layers, looking_at, one_row
    from layerprobe.views.maps import Sheet, check_channels
    from layerprobe.views.saving import check_picture

    check_channels("all" if channels is None else channels)
    if inputs and not layers:
        raise UsageError(f"name a layer with --layer: `layerprobe layers {source}` lists them.")
    if rows and inputs:
        raise UsageError("--row is for outputs: with a model, give the images that you want to see.")
    if output is None and not sys.stdout.isatty():
        raise UsageError("say where the picture goes: -o maps.png, or a folder for several.")
    if output is not None and os.path.splitext(output)[1]:
        check_picture(output, overwrite)
    how = run_options(options, of_model=bool(inputs), only_of_model=MODEL_ONLY)
    with only_our_own_lines(), looking_at(source, inputs, layers, **how) as (reader, notes):
        names = list(reader) if inputs else chosen_layers(reader, layers)
        failed = [row for row, status in enumerate(reader.status) if status != "ok"] if inputs else []
        for row in failed:
            say(f"skipped {reader.paths[row]}: {reader.error[row]}")
        for note in () if quiet else notes:
            say(note)
        given = (row for row in range(len(reader.paths)) if row not in failed) if inputs else rows or (0,)
        wanted = [one_row(reader, row) for row in given]
        sheets = {
            (name, row): Sheet(name, reader.paths[row], channels or "all", scale)
            for name in names
            for row in wanted
        }
        read = [source, *(reader.paths[row] for row in wanted)]
        paths = [] if output is None else _paths(output, list(sheets), overwrite, read)
        for (_, row), sheet in sheets.items():
            if output is None:
                _preview(reader, row, sheet, channels or IN_A_TERMINAL)
                continue
            path = paths.pop(0)
            _draw(reader, row, sheet, path)
            if not quiet:
                say(f"{sheet.layer} of {sheet.image} -> {path}")
    if failed:
        raise click.exceptions.Exit(PARTIAL)


def _is_picture(output: str) -> bool:
    return output.lower().endswith(".png")


def _paths(output: str, shown: Sequence[tuple[str, int]], overwrite: bool, read: Sequence[str]) -> list[str]:
    """Where the picture of each layer and row goes: to the one that is named, or into a folder.

    Never to one of the files that are read.
    """
    from layerprobe.formats.schema import FOLDER_NAMES, stored_names
    from layerprobe.run.plan import check_not_an_input
    from layerprobe.views.saving import check_picture, make_folder

    if _is_picture(output):
        if len(shown) > 1:
            raise UsageError(f"{len(shown)} pictures need a folder: give -o a name without a suffix.")
        check_not_an_input([output], read)
        return [output]
    names = stored_names(list(dict.fromkeys(name for name, _ in shown)), FOLDER_NAMES)
    paths = [os.path.join(output, f"{names[name]}.{row}.png") for name, row in shown]
    make_folder(output)
    for path in paths:
        check_picture(path, overwrite)
    check_not_an_input(paths, read)
    return paths


def _draw(reader: Reader, row: int, sheet: Sheet, path: str) -> None:
    from layerprobe.looking import channel_axis
    from layerprobe.views.maps import draw_sheet
    from layerprobe.views.saving import save_picture

    save_picture(draw_sheet(reader[sheet.layer][row], channel_axis(reader, sheet.layer), sheet), path)


def _preview(reader: Reader, row: int, sheet: Sheet, channels: str) -> None:
    from layerprobe.looking import channel_axis
    from layerprobe.views.maps import channels_last, choose_channels
    from layerprobe.views.preview import preview

    values = channels_last(reader[sheet.layer][row], channel_axis(reader, sheet.layer), sheet.layer)
    chosen = choose_channels(values, channels)
    emit(escape(f"{sheet.layer}  {' x '.join(map(str, values.shape))}  {sheet.image}"))
    columns = shutil.get_terminal_size().columns
    for line in _rendered(preview(values[..., chosen], chosen, columns, own=sheet.scale == "channel")):
        emit(line)


def _rendered(lines: Iterator[Any]) -> Iterator[str]:
    """Lines with their colours, as far as the terminal has them."""
    import io

    from rich.color import Color
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    from layerprobe.views.preview import HALF, shaded

    terminal = Console(force_terminal=True)
    coloured = terminal.color_system is not None and not terminal.no_color
    for line in lines:
        if isinstance(line, str):
            yield line
            continue
        if not coloured:
            yield shaded(line)
            continue
        written = io.StringIO()
        text = Text()
        for above, below in line:
            text.append(HALF, Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        Console(file=written, force_terminal=True, width=len(line) + 1).print(text, end="")
        yield written.getvalue()
