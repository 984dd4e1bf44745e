"""`layerprobe verify`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from layerprobe.cli.console import emit, escape, only_our_own_lines, say
from layerprobe.cli.model_options import model_options, read_custom, read_lambdas
from layerprobe.cli.named_inputs import read_named_inputs
from layerprobe.errors import OutputFormatError, UsageError

if TYPE_CHECKING:
    from layerprobe.verification import Verification


@click.command()
@click.argument("output", type=click.Path(readable=False))
@click.argument("inputs", nargs=-1, type=click.Path(readable=False))
@click.option(
    "--recompute", type=click.IntRange(1), metavar="K", help="Compute K rows anew, and compare them."
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Which rows these are. [default: drawn]")
@click.option(
    "--model", type=click.Path(readable=False), help="Where the model is now. [default: where it was]"
)
@click.option("--input", "named", multiple=True, metavar="NAME=FILE", help="For one of several model inputs.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    output: str,
    inputs: tuple[str, ...],
    recompute: int | None,
    named: tuple[str, ...],
    custom: tuple[str, ...],
    lambdas: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Read all of OUTPUT and say whether it is what extract wrote: structure, rows, checksums.

    With --recompute, whether the model that it names computes it, too. INPUTS are those of the run, where
    they were arrays or came through a pipe.

    Exit code 0 if it is, 65 if not, or if it is unfinished.
    """
    from layerprobe.verification import as_plain
    from layerprobe.verification import verify as verified

    if recompute is None:
        _refuse_without_recompute(ctx)
    given = _given(inputs, named)
    with only_our_own_lines(False):
        found = verified(
            output,
            recompute=recompute or 0,
            inputs=given,
            custom_objects=read_custom(custom),
            lambdas=read_lambdas(lambdas),
            **options,
        )
    if as_json:
        emit(json.dumps(as_plain(found), indent=2))
    else:
        for line in (*found.problems, *found.notes):
            say(line)
        emit(escape(_verdict(found)))
    ctx.exit(OutputFormatError.exit_code if found.problems else 0)


def _refuse_without_recompute(ctx: click.Context) -> None:
    for name in ctx.params:
        given = ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)
        if given and name not in ("output", "recompute", "as_json"):
            raise UsageError(
                "a model, inputs and a seed are for computing rows anew: give --recompute K too."
            )


def _given(inputs: Sequence[str], named: Sequence[str]) -> Any:
    if inputs and named:
        raise UsageError("give every input of the model with --input, or all of them without it.")
    return read_named_inputs(named) if named else inputs or None


def _verdict(found: Verification) -> str:
    verdict = "is not what was written" if found.problems else "is what was written"
    told = f"{found.path}: {verdict}: {found.rows} rows, {found.failed} failed, {found.checksums} checksums"
    if (anew := found.recomputed) is None:
        return told
    equal = min((one.equal + len(anew.rows) - one.rows for one in anew.layers.values()), default=0)
    rows = f"{len(anew.rows)} of {len(anew.chosen)} rows computed anew (seed {anew.seed})"
    return f"{told}; {rows}, {equal} bit-equal"
