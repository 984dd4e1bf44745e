"""`layerprobe check`."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from layerprobe.cli.console import emit, escape, only_our_own_lines
from layerprobe.cli.model_options import file_options, read_lambdas
from layerprobe.errors import UsageError
from layerprobe.options import ModelOptions

if TYPE_CHECKING:
    from layerprobe.modelfile.report import Report

DISAGREED = 4
"""Exit code when an engine differs from Keras."""

Key = TypeVar("Key", bound=Hashable)


@click.command()
@click.argument("model", type=click.Path(readable=False))
@click.argument("images", nargs=-1, type=click.Path(readable=False))
@click.option("--engines", is_flag=True, help="Run all engines, and compare every layer with Keras's.")
@file_options
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
def check(
    model: str,
    images: tuple[str, ...],
    engines: bool,
    weights: str | None,
    lambdas: tuple[str, ...],
    max_memory: int,
    as_json: bool,
) -> int:
    """Say what MODEL is, what loading it needs, and what in it is refused.

    The file alone is read, without TensorFlow; nothing in it is run. Exit code 0 if every layer can be
    extracted, 65 if something is refused (the others still can, where any are listed) or weights are missing.

    With --engines the model is run over IMAGES (or arrays; random numbers where none are given) by every
    engine. Exit code 4 if one that runs it differs from Keras in any layer.
    """
    if engines:
        return _check_engines(
            model, images, ModelOptions({}, weights, read_lambdas(lambdas), max_memory), as_json
        )
    if images:
        raise UsageError("IMAGES are for --engines: give it too, or leave them out.")
    from layerprobe.modelfile.report import check as check_model

    report = check_model(model, weights, lambdas=read_lambdas(lambdas), max_memory=max_memory)
    emit(json.dumps(_summary(report), indent=2) if as_json else "\n".join(_lines(report)))
    return 0 if report.complete else 65


def _check_engines(model: str, images: Sequence[str], options: ModelOptions, as_json: bool) -> int:
    from layerprobe.engine_check import check_engines

    with only_our_own_lines():
        result = check_engines(model, images, options)
    if as_json:
        # JSON has no infinity: what cannot be compared is null.
        differences = {
            engine: {layer: one if math.isfinite(one) else None for layer, one in layers.items()}
            for engine, layers in result.differences.items()
        }
        emit(json.dumps({**asdict(result), "differences": differences, "agreed": result.agreed}, indent=2))
        return 0 if result.agreed else DISAGREED
    names = list(result.differences)
    for layer in next(iter(result.differences.values()), {}):
        told = "  ".join(f"{engine} {result.differences[engine][layer]:.1e}" for engine in names)
        emit(f"{escape(layer):<32} {told}")
    for engine, problem in result.problems.items():
        emit(_line(engine, problem))
    verdict = "agree with" if result.agreed else "differ from"
    emit(
        _line(
            "verdict",
            f"{', '.join([*names, *result.distrusted]) or 'no engines'} {verdict} keras "
            f"({result.rows} rows, limit {result.limit:.0e})",
        )
    )
    return 0 if result.agreed else DISAGREED


def _summary(report: Report) -> dict[str, Any]:
    info = report.info
    return {
        "path": report.path,
        "file_format": report.file_format,
        "keras_version": report.keras_version,
        "sha256": report.sha256,
        "class_name": info.class_name if info is not None else None,
        "inputs": [asdict(spec) for spec in info.inputs] if info is not None else [],
        "complete": report.complete,
        "findings": [asdict(finding) for finding in report.findings],
        "layers": [
            {"address": layer.address, "class_name": layer.class_name, "problem": layer.problem}
            for layer in (info.layers if info is not None else ())
        ],
    }


def _lines(report: Report) -> Iterator[str]:
    version = f"Keras {report.keras_version}" if report.keras_version else "version of Keras not stated"
    yield _line("file", report.path)
    yield _line("format", f"{report.file_format}, {version}")
    yield _line("sha256", report.sha256)
    if report.info is not None:
        yield from _layers(report)
    for (level, message), places in _grouped(
        ((finding.level, finding.message), finding.place or "model") for finding in report.findings
    ):
        yield _line(level, f"{places}: {message}")
    if not any(finding.level == "refused" for finding in report.findings):
        yield _line("safety", "no known unsafe construct found")


def _layers(report: Report) -> Iterator[str]:
    """How many layers can be extracted, and which cannot, those with the same reason together."""
    assert report.info is not None
    layers = report.info.layers
    if not layers:  # of a subclassed model; a finding says what to do
        yield _line("model", f"{report.info.class_name}, whose layers the file does not list")
        return
    yield _line("model", f"{report.info.class_name}, {len(layers)} layers")
    for spec in report.info.inputs:
        yield _line("input", f"{spec.name} {tuple(spec.shape)} {spec.dtype}")
    blocked = [layer for layer in layers if layer.problem is not None]
    extractable = len(layers) - len(blocked) if report.weighted else 0
    yield _line("extractable", f"{extractable} of {len(layers)} layers")
    for reason, addresses in _grouped((layer.problem, layer.address) for layer in blocked):
        yield _line("not", f"{addresses}: {reason}")


def _grouped(pairs: Iterable[tuple[Key, str]]) -> list[tuple[Key, str]]:
    """Each key once, with the first of the names that have it."""
    groups: dict[Key, list[str]] = {}
    for key, name in pairs:
        groups.setdefault(key, []).append(name)
    shown = []
    for key, names in groups.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        shown.append((key, ", ".join(names[:3]) + more))
    return shown


def _line(name: str, text: str) -> str:
    return f"{name:<12} {escape(text)}"
