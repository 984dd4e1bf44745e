"""`layerprobe verify`."""

from __future__ import annotations

import json

import click

from layerprobe.cli.console import emit, escape, say
from layerprobe.errors import OutputFormatError


@click.command()
@click.argument("output", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
@click.pass_context
def verify(ctx: click.Context, output: str, as_json: bool) -> None:
    """Read all of OUTPUT and say whether it is what extract wrote: structure, rows, checksums.

    Exit code 0 if it is, 65 if not, or if it is unfinished.
    """
    from layerprobe.verification import as_plain
    from layerprobe.verification import verify as verified

    found = verified(output)
    if as_json:
        emit(json.dumps(as_plain(found), indent=2))
    else:
        for line in (*found.problems, *found.notes):
            say(line)
        verdict = "is not what was written" if found.problems else "is what was written"
        counts = f"{found.rows} rows, {found.failed} failed, {found.checksums} checksums"
        emit(f"{escape(output)}: {verdict}: {counts}")
    ctx.exit(OutputFormatError.exit_code if found.problems else 0)
