"""`layerprobe merge`."""

from __future__ import annotations

import click

from layerprobe.cli.console import escape, say
from layerprobe.cli.progress import progress


@click.command()
@click.argument("output", type=click.Path())
@click.argument("parts", nargs=-1, required=True, type=click.Path())
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors on stderr.")
def merge(output: str, parts: tuple[str, ...], overwrite: bool, quiet: bool) -> None:
    """Join PARTS, which extract --shard wrote, to OUTPUT: x.npz, x.h5, or a folder.

    PARTS have to be of one run, and to have each row of its list once; what is missing, there twice or of
    another run is named.
    """
    from layerprobe.merging import merge as join

    with progress(quiet) as update:
        report = join(output, parts, overwrite=overwrite, progress=update)
    if not quiet:
        broken = f", {report.failed} failed," if report.failed else ""
        say(
            f"{report.rows} row{'s' * (report.rows != 1)}{broken} of {len(report.parts)} "
            f"part{'s' * (len(report.parts) != 1)} -> {escape(report.output)}"
        )
