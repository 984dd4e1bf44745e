"""`layerprobe cam`."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import click

from layerprobe.cli.console import emit, only_our_own_lines, say
from layerprobe.cli.looking_options import looking_options, run_options
from layerprobe.cli.named_inputs import read_named_inputs
from layerprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from layerprobe.class_maps.compute import MappedImage
    from layerprobe.protocols import Source

PARTIAL = 3
"""The exit code where some images were skipped."""


@click.command()
@click.option("-l", "--layer", metavar="NAME", help="Whose maps. [default: the last with feature maps]")
@click.option("--class", "classes", multiple=True, metavar="N|NAME", help="For which class; repeats.")
@click.option(
    "--top", type=click.IntRange(min=1), metavar="K", help="For the K classes with the highest scores."
)
@click.option(
    "--method",
    type=click.Choice(["auto", "cam", "gradcam", "gradcam++", "layercam"]),
    default="auto",
    show_default=True,
    help="auto: cam where it is exact, else gradcam.",
)
@click.option(
    "-o", "--output", type=click.Path(readable=False), help="x.png, a sheet for several images, or a folder."
)
@click.option("--overwrite", is_flag=True, help="Replace existing pictures.")
@click.option("--labels", metavar="FILE", help="The names of the classes: one a line, or JSON.")
@click.option("--output-layer", metavar="NAME", help="What gives the scores. [default: the model's output]")
@click.option("--input", "named", multiple=True, metavar="NAME=FILE", help="For models of several inputs.")
@click.option("--model", metavar="FILE", help="Of an output: the model, if it was moved.")
@click.option("--row", "rows", type=int, multiple=True, help="Rows of an output; repeats. [default: all]")
@click.option(
    "--scale",
    type=click.Choice(["shared", "class"]),
    default="shared",
    show_default=True,
    help="Equal colours for equal values in all maps of an image, or in each alone.",
)
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors on stderr.")
@looking_options
def cam(
    source: str,
    inputs: tuple[str, ...],
    named: tuple[str, ...],
    classes: tuple[str, ...],
    top: int | None,
    output: str | None,
    overwrite: bool,
    scale: str,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Show where on images a class is seen: SOURCE is a model with INPUTS, or an output of extract.

    Of an output the maps are made of the stored activations, and no network is run. Beside each picture its
    numbers are written, as .npz.
    """
    from layerprobe.class_maps.compute import cam as class_maps
    from layerprobe.class_maps.writing import open_pictures

    if classes and top is not None:
        raise UsageError("--class names the classes, --top takes the highest scores: give one of them.")
    with only_our_own_lines():
        given = _inputs(inputs, named)
        how = run_options(options, of_model=bool(inputs or named))
        with class_maps(source, given, classes=classes, top=top or 1, **how) as maps:
            pictures = open_pictures(maps, output, overwrite=overwrite, scale=scale, beside=[source, *inputs])
            told, count = [], 0
            for found in maps:
                count += 1
                if as_json:
                    told.append(_as_json(found))
                path = pictures.add(found)
                if not quiet and (path or maps.rows == 1):
                    say(_in_words(found) + (f" -> {path}" if path else ""))
            for failure in maps.failures:
                say(f"skipped {failure.key}: {failure.reason}")
            for note in () if quiet else maps.found.notes:
                say(note)
            path = pictures.finish()
            if path and not quiet:
                say(f"{count} image{'s' * (count != 1)} -> {path}")
    if as_json:
        found_out = {"layer": maps.found.layer, "method": maps.found.method, "output": maps.found.output}
        failed = [{"path": failure.key, "reason": failure.reason} for failure in maps.failures]
        emit(json.dumps({**found_out, "images": told, "failed": failed}, indent=2))
    if maps.failures:
        raise click.exceptions.Exit(PARTIAL)


def _inputs(
    inputs: Sequence[str], named: Sequence[str]
) -> Source | Sequence[str] | Mapping[str, Sequence[str]]:
    if named and inputs:
        raise UsageError("give every input of the model with --input, or all of them without it.")
    if named:
        return read_named_inputs(named)
    if "-" not in inputs:
        return inputs
    from layerprobe.sources.opening import open_source

    return open_source(inputs, stdin=sys.stdin.buffer)


def _as_json(found: MappedImage) -> dict[str, Any]:
    maps = [
        {
            "class": one.number,
            "name": one.name,
            "score": _number(one.score),
            "probability": _number(one.probability),
            "peak": list(one.peak),
        }
        for one in found.maps
    ]
    return {"path": found.key, "size": list(found.image.size), "maps": maps}


def _number(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity."""
    return None if value is None or not math.isfinite(value) else value


def _in_words(found: MappedImage) -> str:
    """The image, and where its classes have their peaks."""
    peaks = []
    for one in found.maps:
        x, y = one.peak
        peaks.append(f"{one.name} at {x}, {y}" if one.on_image[y, x] > 0 else f"{one.name} nowhere")
    return f"{found.key}: {'; '.join(peaks)}"
