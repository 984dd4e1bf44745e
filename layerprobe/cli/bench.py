"""`layerprobe bench`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from layerprobe.cli.console import as_text, emit, only_our_own_lines, say
from layerprobe.cli.model_options import model_options, read_custom, read_lambdas
from layerprobe.cli.running_options import ENGINES, engine_option, precision_option, size_option
from layerprobe.errors import UnavailableError

if TYPE_CHECKING:
    from layerprobe.bench.measure import BenchReport

STAGES = ("read", "decode", "preprocess", "input", "compute", "reduce", "write", "end to end")


@click.command()
@click.argument("model", type=click.Path(readable=False))
@click.argument("images", nargs=-1, type=click.Path(readable=False))
@click.option(
    "-l", "--layer", "layers", multiple=True, metavar="NAME", help="As for extract. [default: output]"
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(readable=False),
    default=".",
    metavar="DIR",
    help="Where to write. [default: .]",
)
@click.option("--limit", type=click.IntRange(1), help="So many images a round. [default: 128]")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Medians are of these.")
@size_option
@click.option("--crop", type=click.Choice(["none", "center", "pad"]), default="none", show_default=True)
@click.option("--preprocess", default="auto", show_default=True, metavar="HOW", help="As for extract.")
@click.option("--fast-decode", is_flag=True, help="Decode large JPEGs at 1/2, 1/4 or 1/8 of their size.")
@click.option(
    "--pool", type=click.Choice(["none", "gap", "gmp", "flatten"]), default="none", show_default=True
)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Rows at once. [default: 8; Keras 32; or what fits]"
)
@precision_option
@click.option("--workers", type=click.IntRange(1), help="Decoding threads. [default: one per processor]")
@engine_option
@click.option("--engines", "every", is_flag=True, help="Every engine that can run MODEL, side by side.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="A list of objects on stdout, one per engine.")
def bench(
    model: str,
    images: tuple[str, ...],
    layers: tuple[str, ...],
    folder: str,
    rounds: int,
    every: bool,
    as_json: bool,
    engine: str,
    **options: Any,
) -> None:
    """Measure how fast each stage of a run with MODEL is here, what bounds it, and what to change.

    IMAGES are files, folders, globs or arrays as for extract; without any, photographs are made up. What is
    written for measuring is gone afterwards.
    """
    reports = {}
    with only_our_own_lines():
        for name in ENGINES if every else (engine,):
            report = _measured(model, images, layers, folder, rounds, every, {**options, "engine": name})
            if report is not None:
                reports[str(report.engine["name"])] = report
    if not reports:
        raise UnavailableError("no engine can run this model: `layerprobe check` says what it needs.")
    if as_json:
        emit(json.dumps([dataclasses.asdict(report) for report in reports.values()], indent=2))
    else:
        emit("\n".join(_lines(reports)))


def _measured(
    model: str,
    images: Sequence[str],
    layers: Sequence[str],
    folder: str,
    rounds: int,
    forgiving: bool,
    options: Mapping[str, Any],
) -> BenchReport | None:
    """One engine's figures; None, and a line that says why, where `forgiving` and it cannot run the model."""
    from layerprobe.bench.measure import bench as measure
    from layerprobe.options import ModelOptions

    given = dict(options)
    needs = ModelOptions(
        read_custom(given.pop("custom")),
        given.pop("weights"),
        read_lambdas(given.pop("lambdas")),
        given.pop("max_memory"),
    )
    try:
        return measure(model, images, layers or ("output",), folder, rounds=rounds, needs=needs, **given)
    except UnavailableError as error:
        if not forgiving:
            raise
        say(f"not measured: {error}")
        return None


def _lines(reports: Mapping[str, BenchReport]) -> Iterator[str]:
    yield _table(reports)
    for name, report in reports.items():
        engine = ", ".join(
            str(value) for key, value in report.engine.items() if key not in ("name", "batch_size")
        )
        yield (
            f"{name}: {engine}, batches of {report.engine['batch_size']}, loaded in "
            f"{report.load_seconds:.2f} s; {report.rows} rows a round, {report.row_bytes:,} bytes each, "
            f"{report.workers} decoding threads"
        )
        share = report.rates["end to end"] / report.limit
        yield f"{name}: bound by {report.bound_by}; {share:.0%} of what its stages together allow"
        yield from (f"{name}: {sentence}" for sentence in report.advice)


def _table(reports: Mapping[str, BenchReport]) -> str:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("rows/s")
    for name in reports:
        table.add_column(name, justify="right")
    for stage in STAGES:
        rates = [report.rates.get(stage) for report in reports.values()]
        if any(rates):
            table.add_row(stage, *("" if rate is None else f"{rate:,.1f}" for rate in rates))
    return as_text(table)
