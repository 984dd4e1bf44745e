"""`layerprobe extract`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from layerprobe.cli.console import emit, escape, only_data_on_stdout, only_our_own_lines, say
from layerprobe.cli.dry_run import tell_plan
from layerprobe.cli.last_words import last_words
from layerprobe.cli.model_options import model_options, read_custom, read_lambdas
from layerprobe.cli.named_inputs import read_named_inputs
from layerprobe.cli.progress import progress
from layerprobe.cli.running_options import device_option, engine_option, precision_option, size_option
from layerprobe.cli.signals import stoppable
from layerprobe.errors import UsageError
from layerprobe.registry import COMPRESSIONS, NO_PIPES, PIPES, STREAMS
from layerprobe.run.bottleneck import WAITS

if TYPE_CHECKING:
    from layerprobe.protocols import Source
    from layerprobe.run.report import RunReport

PARTIAL = 3
"""Exit code when some inputs failed."""


def _read_batch_size(ctx: click.Context, option: click.Parameter, text: str | None) -> int | str | None:
    """A number from 1 on, or "auto"."""
    return text if text in (None, "auto") else click.IntRange(1)(text, option, ctx)


def _read_workers(ctx: click.Context, option: click.Parameter, text: str | None) -> int | str | None:
    """A number from 1 on, or MIN:MAX."""
    return text if text is None or ":" in text else click.IntRange(1)(text, option, ctx)


@click.command()
@click.argument("model", type=click.Path(readable=False), required=False)
@click.argument("inputs", nargs=-1, type=click.Path(readable=False))
@click.option(
    "-l", "--layer", "layers", multiple=True, metavar="NAME", help="Layer address or pattern; repeats."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False),
    help="x.npz, x.h5, x.parquet, x.safetensors, x.zarr, x.jsonl, x.tar, a folder, or - for stdout. "
    "[default: after the input]",
)
@click.option(
    "--format",
    "pipe_format",
    type=click.Choice(sorted({*PIPES, *STREAMS, *NO_PIPES})),
    help="What -o - writes. [default: npz]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished output, if there is one.")
@click.option("--restart", is_flag=True, help="Discard an unfinished output, if there is one.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do none of it.")
@click.option(
    "--no-lock", "lock", flag_value=False, default=True, help="For file systems that cannot lock files."
)
@click.option(
    "--retry-failed",
    type=click.Path(readable=False),
    metavar="OUT",
    help="Try only the failed rows of OUT again.",
)
@click.option(
    "--on-error",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="skip keeps the row's place, with the reason; fail stops.",
)
@click.option("--max-errors", type=click.IntRange(1), help="Stop once so many rows have failed.")
@click.option(
    "--errors-to",
    type=click.Path(readable=False),
    metavar="FILE",
    help="Write failed rows there, a JSON line each.",
)
@click.option(
    "--from-file",
    "lists",
    multiple=True,
    metavar="LIST",
    help="Lists images: text, JSON lines, .csv, .parquet.",
)
@click.option("--column", metavar="NAME", help="Of lists that are tables: what names the images.")
@click.option("-0", "--null", "nul", is_flag=True, help="Lists, from stdin too, are separated by NUL.")
@click.option("--input", "named", multiple=True, metavar="NAME=FILE", help="For one of several model inputs.")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many inputs.")
@click.option("--shard", metavar="I/N", help="Only part I of N, from 1; slurm: as in a job array.")
@size_option
@click.option(
    "--resize",
    type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
    default="bilinear",
    show_default=True,
    help="Pillow's filter, antialiased.",
)
@click.option(
    "--crop",
    type=click.Choice(["none", "center", "pad"]),
    default="none",
    show_default=True,
    help="none squashes as Keras does.",
)
@click.option(
    "--preprocess",
    default="auto",
    show_default=True,
    metavar="HOW",
    help="auto, raw, unit, tf, torch, caffe, or MEAN/STD as in 127.5/127.5; bgr:HOW for BGR.",
)
@click.option("--no-exif", "exif", flag_value=False, default=True, help="Ignore EXIF orientation.")
@click.option(
    "--background", default="white", show_default=True, help="Behind transparent pixels: a name or #rrggbb."
)
@click.option("--fast-decode", is_flag=True, help="Decode large JPEGs at 1/2, 1/4 or 1/8 of their size.")
@click.option("--max-pixels", type=click.IntRange(1), help="Refuse images with more pixels.")
@click.option(
    "--pool", type=click.Choice(["none", "gap", "gmp", "flatten"]), default="none", show_default=True
)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option("--compress", type=click.Choice(COMPRESSIONS), help="Compress an HDF5 output, x.h5.")
@click.option(
    "--batch-size",
    callback=_read_batch_size,
    metavar="N|auto",
    help="Rows at once, or auto. [default: 8; Keras 32; or what fits]",
)
@click.option(
    "--workers",
    callback=_read_workers,
    metavar="N",
    help="Decoding threads. [default: one per processor] With --cluster its workers, as N or MIN:MAX.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Worker processes that share processors and GPUs.",
)
@click.option("--cluster", metavar="ray", help="Compute on a Ray cluster: ray, ray://HOST:PORT or HOST:PORT.")
@click.option("--cpus-per-worker", type=float, metavar="N", help="Of a cluster. [default: 1]")
@click.option("--gpus-per-worker", type=float, metavar="N", help="Of a cluster. [default: 0]")
@engine_option
@click.option(
    "--no-cache", "cache", flag_value=False, default=True, help="Neither take nor keep conversions."
)
@precision_option
@device_option
@click.option("--training", is_flag=True, help="Dropout and batch normalisation as in training.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of random layers, with --training.")
@model_options
@click.option("--stats", is_flag=True, help="Gather what `layerprobe stats` tells, on the way.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's report on stdout as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors on stderr.")
@click.option("-v", "--verbose", is_flag=True, help="TensorFlow's own log, too.")
@click.pass_context
def extract(
    ctx: click.Context,
    /,
    model: str | None,
    inputs: tuple[str, ...],
    layers: tuple[str, ...],
    output: str | None,
    pipe_format: str | None,
    lists: tuple[str, ...],
    column: str | None,
    nul: bool,
    named: tuple[str, ...],
    custom: tuple[str, ...],
    weights: str | None,
    lambdas: tuple[str, ...],
    max_memory: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    retry_failed: str | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Write the activations of layers of MODEL for INPUTS: image files, folders, globs, or arrays.

    INPUTS may be `-`: a list of paths on stdin. A layer is named by its address, as `layerprobe layers` lists
    them, or by a pattern: `backbone/conv1`, `conv5_*`, `**/conv*`, `re:...`, `class:Conv2D`, `#-1`, `name:1`
    (an output of several), `name@1` (a call of several), `in:NAME`, `pre:NAME` (before the activation),
    `output`.
    """
    if model is None and retry_failed is None:
        raise click.MissingParameter(ctx=ctx, param=ctx.command.params[0])
    if not layers and retry_failed is None:
        raise UsageError(f"name a layer with --layer: `layerprobe layers {model}` lists them.")
    if output is not None and retry_failed is not None:
        raise UsageError("--retry-failed writes to the output that it is given: leave -o out.")
    from layerprobe.options import ModelOptions
    from layerprobe.pipeline import extract as run
    from layerprobe.planning import dry_run as planned
    from layerprobe.retrying import retry_failed as retry

    if dry_run and (output == "-" or retry_failed is not None):
        raise UsageError("--dry-run is about a new file: leave -o - or --retry-failed out.")
    _check_output(output, pipe_format, as_json)
    given = inputs or lists or named or retry_failed is None
    opened = _inputs(inputs, lists, named, nul, column, options["limit"]) if given else None
    with only_our_own_lines(verbose), only_data_on_stdout() if output == "-" else nullcontext() as pipe:
        needs = ModelOptions(read_custom(custom), weights, read_lambdas(lambdas), max_memory)
        if dry_run:
            plan = planned(
                str(model),
                () if opened is None else opened,
                layers,
                output,
                custom_objects=needs.custom_objects,
                weights=weights,
                lambdas=needs.lambdas,
                max_memory=max_memory,
                **options,
            )
        elif retry_failed is not None:
            own = {name: value for name, value in options.items() if _is_given(ctx, name)}
            report = retry(retry_failed, model, opened, layers, needs=needs, **own)
        else:
            watched = last_words() if options["cluster"] else nullcontext()
            with progress(quiet or as_json) as update, stoppable() as stop, watched:
                report = run(
                    str(model),
                    () if opened is None else opened,
                    layers,
                    output if pipe is None else cast("IO[bytes]", pipe),
                    pipe_format=pipe_format or "npz",
                    custom_objects=needs.custom_objects,
                    weights=weights,
                    lambdas=needs.lambdas,
                    max_memory=max_memory,
                    progress=update,
                    stop=stop,
                    notice=None if quiet else say,
                    **options,
                )
    if dry_run:
        ctx.exit(tell_plan(plan, as_json))
    if as_json:
        emit(json.dumps(_as_json(report), indent=2))
    if not quiet:
        _tell(report)
    ctx.exit(PARTIAL if report.failed else 0)


def _is_given(ctx: click.Context, option: str) -> bool:
    return ctx.get_parameter_source(option) is not ParameterSource.DEFAULT


def _check_output(output: str | None, pipe_format: str | None, as_json: bool) -> None:
    if output != "-":
        if pipe_format is not None:
            raise UsageError("--format is about `-o -`: of a file the suffix says it, as in -o NAME.jsonl.")
        return
    if as_json:
        raise UsageError("--json and `-o -` both want standard output: leave one of them out.")
    if pipe_format != "jsonl" and sys.stdout.isatty():
        raise UsageError("it is no text for a terminal: give --format jsonl, or | what reads it, or > NAME.")


def _inputs(
    inputs: Sequence[str],
    lists: Sequence[str],
    named: Sequence[str],
    nul: bool,
    column: str | None,
    limit: int | None,
) -> Source | Sequence[str] | Mapping[str, Sequence[str]]:
    if named:
        if inputs or lists:
            raise UsageError("give every input of the model with --input, or all of them without it.")
        files = read_named_inputs(named)
        if any("-" in given for given in files.values()):
            raise UsageError(
                "a list on stdin is for models with one input: use --input NAME=FILE without `-`."
            )
        return files
    if nul and "-" not in inputs and not lists:
        raise UsageError("--null is about lists: give `-` or --from-file too.")
    if column is not None and not lists:
        raise UsageError("--column is about tables: give --from-file LIST.csv or LIST.parquet too.")
    if not lists and "-" not in inputs:
        if not inputs:
            raise UsageError("give at least one image, folder or array, or `-` for a list on stdin.")
        return inputs
    from layerprobe.sources.opening import open_source

    stdin = sys.stdin.buffer if "-" in inputs else None
    return open_source(inputs, lists=lists, nul=nul, column=column, stdin=stdin, limit=limit)


def _as_json(report: RunReport) -> dict[str, Any]:
    import dataclasses

    plain = dataclasses.asdict(dataclasses.replace(report, statistics=None))
    if report.statistics is not None:
        from layerprobe.cli.stats import as_plain

        plain["statistics"] = {name: as_plain(layer) for name, layer in report.statistics.items()}
    return plain


def _tell(report: RunReport) -> None:
    """What went wrong, what was assumed, and the closing line."""
    for failure in report.failures[:10]:
        say(f"row {failure.index} failed: {failure.key}: {failure.reason}")
    if report.failed > 10:
        say(f"... and {report.failed - 10} more; `error` in the output has them all")
    for note in report.notes:
        say(note)
    if report.statistics is not None:
        from layerprobe.cli.stats import render

        click.echo(render(report.statistics, channels=False), err=True)
    broken = f", {report.failed} failed" if report.failed else ""
    total = report.seconds["total"]
    waits = ", ".join(f"{stage} {report.seconds.get(stage, 0):.2f} s" for stage in WAITS)
    say(
        f"{report.rows} row{'s' * (report.rows != 1)}{broken} in {total:.2f} s, "
        f"{report.rows / total:.1f} rows/s, bound by {report.bound_by} ({waits}) -> {escape(report.output)}"
    )
