"""`layerprobe doctor`."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from layerprobe.cli.console import as_text, emit, escape, only_our_own_lines, say
from layerprobe.cli.extract import PARTIAL
from layerprobe.cli.info import line
from layerprobe.cli.model_options import model_options, read_custom, read_lambdas
from layerprobe.cli.running_options import device_option, engine_option, size_option

if TYPE_CHECKING:
    from layerprobe.diagnosis.examination import Diagnosis
    from layerprobe.diagnosis.ranking import Ranked


@click.command()
@click.argument("model", type=click.Path(readable=False))
@click.argument("images", nargs=-1, required=True, type=click.Path(readable=False))
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Look at so many images, spread over all.",
)
@size_option
@engine_option
@device_option
@click.option("--workers", type=click.IntRange(1), help="Decoding threads. [default: one per processor]")
@model_options
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
@click.pass_context
def doctor(
    ctx: click.Context,
    /,
    model: str,
    images: tuple[str, ...],
    custom: tuple[str, ...],
    lambdas: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Which preprocessing MODEL was trained with, and what is wrong with it or with IMAGES.

    IMAGES are such as it was trained on. They are prepared in every common way, and what then arrives at the
    first BatchNormalization layers is compared with the statistics that these keep of training.
    """
    from layerprobe.diagnosis.examination import doctor as examine

    with only_our_own_lines():
        found = examine(
            model, images, custom_objects=read_custom(custom), lambdas=read_lambdas(lambdas), **options
        )
    emit(json.dumps(_as_json(found), indent=2) if as_json else "\n".join(_lines(found)))
    for failure in found.failures:
        say(f"image {failure.index} failed: {failure.key}: {failure.reason}")
    ctx.exit(PARTIAL if found.failures else 0)


def _lines(found: Diagnosis) -> Iterator[str]:
    spread = ", spread over the list" if found.images + len(found.failures) < found.listed else ""
    yield line("images", f"{found.images} of {found.listed} looked at{spread}")
    if found.presets:
        yield line("compared", f"what arrives at {', '.join(found.layers)}, with what has in training")
        yield ""
        yield _table(found.presets, [one.preset for one in found.presets], "preprocess")
    if found.resizing:
        yield ""
        crop = any(one.preprocessing.crop != "none" for one in found.resizing)
        names = [
            f"{one.preprocessing.resize}{f', crop {one.preprocessing.crop}' if crop else ''}"
            for one in found.resizing
        ]
        yield _table(found.resizing, names, f"resize, with {found.preprocessing.preset}")
    if found.presets:
        yield ""
    yield line("evidence", {"none": "no evidence"}.get(found.evidence, found.evidence))
    yield line("preprocessing", f"{found.command}: {found.preprocessing.reason}")
    if found.ties:
        yield line("as good", "; ".join(found.ties))
    for note in found.notes:
        yield line("note", note)
    yield line("to use it", f"layerprobe extract {shlex.quote(found.model)} {found.command} ...")
    for warning in found.warnings:
        yield line("warning", warning)


def _table(ranked: Sequence[Ranked], names: Sequence[str], title: str) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(title)
    for heading in ("divergence", "times the best", "standard errors above"):
        table.add_column(heading, justify="right")
    for name, one in zip(names, ranked, strict=True):
        table.add_row(escape(name), f"{one.divergence:.3g}", f"{one.times:,.2f}", _errors(one.errors))
    return as_text(table)


def _errors(number: float) -> str:
    """Standard errors; of images that are all alike there are as many as one likes."""
    return f"{number:.1f}" if number < 1000 else ">999"


def _as_json(found: Diagnosis) -> dict[str, Any]:
    plain = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return plain | {
        "failures": [dataclasses.asdict(failure) for failure in found.failures],
        "presets": [_ranked(one) for one in found.presets],
        "resizing": [_ranked(one) for one in found.resizing],
        "preprocessing": dataclasses.asdict(found.preprocessing),
        "command": found.command,
    }


def _ranked(one: Ranked) -> dict[str, Any]:
    numbers = {"divergence": one.divergence, "times": one.times, "errors": one.errors}
    return {"command": one.command, **_finite(numbers), "layers": _finite(one.layers)}


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has neither NaN nor infinity."""
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}
