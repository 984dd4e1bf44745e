"""`layerprobe report`."""

from __future__ import annotations

import os

import click

from layerprobe.cli.console import say
from layerprobe.cli.model_options import read_size
from layerprobe.cli.progress import progress


@click.command()
@click.argument("output", type=click.Path(readable=False))
@click.option(
    "-o", "--output", "path", type=click.Path(readable=False), help="x.html. [default: named after OUTPUT]"
)
@click.option("-l", "--layer", "layers", multiple=True, metavar="NAME", help="Only this layer; repeats.")
@click.option("--top", type=int, default=8, show_default=True, help="Images for each channel.")
@click.option("--limit", type=int, metavar="N", help="Only the first N rows.")
@click.option(
    "--images", type=click.Path(readable=False), default="", metavar="DIR", help="Where the images are now."
)
@click.option(
    "--labels", type=click.Path(readable=False), default="", metavar="FILE", help="Names of the classes."
)
@click.option(
    "--max-size",
    default="10M",
    show_default=True,
    callback=read_size,
    metavar="SIZE",
    help="Of the page.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing page.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors on stderr.")
def report(
    output: str,
    path: str | None,
    layers: tuple[str, ...],
    top: int,
    limit: int | None,
    images: str,
    labels: str,
    max_size: int,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write one HTML file about OUTPUT, which extract wrote, to look around in with a browser.

    For each layer its numbers, for each channel the images that excite it most, for each image what it
    excites. The file holds everything it needs, small pictures of the images too.
    """
    from layerprobe.formats.disk import amount
    from layerprobe.reporting.report import report as write_report

    target = path or os.path.splitext(os.path.basename(os.path.normpath(output)))[0] + ".html"
    with progress(quiet) as update:
        made = write_report(
            output,
            target,
            update and (lambda done, rows: update(done, rows, 0)),
            layers=layers,
            top=top,
            limit=limit,
            images=images,
            labels=labels,
            max_size=max_size,
            overwrite=overwrite,
        )
    if quiet:
        return
    for note in made.notes:
        say(note)
    count = f"{made.rows:,} row{'s' * (made.rows != 1)}"
    layered = f"{made.layers} layer{'s' * (made.layers != 1)}"
    pictured = f"{made.pictures:,} picture{'s' * (made.pictures != 1)}"
    say(f"{count}, {layered}, {pictured}, {amount(made.size)} -> {target}")
