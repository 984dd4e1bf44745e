"""`layerprobe merge`."""

from __future__ import annotations

import click

from layerprobe.cli.console import escape, say
from layerprobe.cli.progress import progress
from layerprobe.registry import COMPRESSIONS


@click.command()
@click.argument("output", type=click.Path(readable=False))
@click.argument("parts", nargs=-1, required=True, type=click.Path(readable=False))
@click.option("--virtual", is_flag=True, help="Leave the rows in PARTS; HDF5 only.")
@click.option("--compress", type=click.Choice(COMPRESSIONS), help="Compress OUTPUT, which is HDF5.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors on stderr.")
def merge(
    output: str, parts: tuple[str, ...], virtual: bool, compress: str | None, overwrite: bool, quiet: bool
) -> None:
    """Join PARTS, which extract --shard wrote, to OUTPUT: a file or folder as extract writes.

    PARTS have to be of one run, and to have each row of its list once; what is missing, there twice or of
    another run is named.
    """
    from layerprobe.merging.merge import merge as join

    with progress(quiet) as update:
        report = join(output, parts, virtual=virtual, compress=compress, overwrite=overwrite, progress=update)
    if not quiet:
        if report.virtual:
            say("the rows are in the parts, not in the output: keep the parts where they are")
        broken = f", {report.failed} failed," if report.failed else ""
        say(
            f"{report.rows} row{'s' * (report.rows != 1)}{broken} of {len(report.parts)} "
            f"part{'s' * (len(report.parts) != 1)} -> {escape(report.output)}"
        )
