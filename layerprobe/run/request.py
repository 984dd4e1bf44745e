"""What a run was asked to do, checked before anything is loaded: model, inputs, output, options."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layerprobe import registry
from layerprobe.engines.cache import user_cache
from layerprobe.errors import UsageError
from layerprobe.formats.writing import check_compress
from layerprobe.options import ExtractOptions, ModelOptions
from layerprobe.records import TensorSpec
from layerprobe.run.clock import Clock
from layerprobe.run.failures import check_log
from layerprobe.run.feed import ArrayFeed, Feed, ImageFeed
from layerprobe.run.feeds import Feeds
from layerprobe.run.lengths import keys_of, length
from layerprobe.run.plan import (
    check_not_an_input,
    check_options,
    choose_output,
    choose_preprocessing,
    takes_images,
)
from layerprobe.run.probed_model import ProbedModel
from layerprobe.run.shards import parse_shard
from layerprobe.sources.opening import open_source

if TYPE_CHECKING:
    from layerprobe.protocols import LoadedModel, Source

    Inputs = Source | Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What a run shall do: its model opened, its inputs listed."""

    probed: ProbedModel
    sources: Mapping[str, Source]
    """By name of the model's input; "" where it has only one."""
    how: ExtractOptions


def open_request(
    model: str | os.PathLike[str] | Any,
    inputs: Inputs | Mapping[str, Inputs],
    layers: Sequence[str],
    needs: ModelOptions,
    options: Mapping[str, Any],
) -> Request:
    """Check what `extract` was given, but for the output; see there."""
    how = read_options(options)
    cache = user_cache() if how.cache else None
    probed = ProbedModel(model, layers, needs, how.engine, how.device, cache)
    return Request(probed, open_sources(inputs, how.limit), how)


def place_output(
    request: Request, inputs: Inputs | Mapping[str, Inputs], output: str | os.PathLike[str] | None
) -> tuple[str, str]:
    """Find the output's path and format, and check that what was asked for can be done with them.

    Args:
        request: The run.
        inputs: As they were given.
        output: Its path; None: named after the input.

    Returns:
        The path, and a name in `registry.WRITERS` or `registry.STREAMS`.
    """
    how, probed = request.how, request.probed
    keys = list(itertools.islice(keys_of(next(iter(request.sources.values()))), 2))
    shard = None if how.shard is None else parse_shard(how.shard)
    path, file_format = choose_output(None if output is None else os.fspath(output), keys, shard)
    check_not_an_input([path], itertools.chain([probed.path], _files_of(inputs, path)))
    if how.errors_to is not None:
        check_log(how.errors_to, path)
    if how.resume and (how.training or not probed.path):
        raise UsageError(
            "resume needs a model from a file, without training: it must do exactly what is left to do."
        )
    return path, file_format


def check_output_options(request: Request, file_format: str) -> None:
    """Raise UsageError for options that the format, or a stream of inputs, has no place for."""
    how = request.how
    if how.compress is not None:
        check_compress(file_format, how.compress)
    if how.processes == 1 and how.cluster is None:
        return
    what = None
    if how.compress is not None:
        what = "a compressed file: leave one of the two out, or compress afterwards with `layerprobe merge`"
    elif file_format in registry.STREAMS:
        what = f"a .{file_format} file: give -o NAME.h5, NAME.npz or a folder"
    elif None in map(length, request.sources.values()):
        what = "what is read as a stream: name files, folders or lists"
    if what is not None:
        who = "processes write" if how.cluster is None else "workers of a cluster write"
        raise UsageError(f"{who} to places of their rows, which there are not in {what}.")


def read_options(options: Mapping[str, Any]) -> ExtractOptions:
    """Check the fields of `ExtractOptions`; those that are not given have their defaults."""
    known = {field.name for field in dataclasses.fields(ExtractOptions)}
    for name in options:
        if name not in known:
            raise UsageError(f"extract has no option {name!r}: expected one of {', '.join(sorted(known))}.")
    checked = ExtractOptions(**options)
    check_options(checked)
    if checked.shard is None:
        return checked
    return dataclasses.replace(checked, shard=str(parse_shard(checked.shard, os.environ)))


def open_sources(inputs: Inputs | Mapping[str, Inputs], limit: int | None) -> dict[str, Source]:
    """By name of the model's input; "" where the model has only one."""
    if isinstance(inputs, Mapping):
        return {name: _open_source(given, limit) for name, given in inputs.items()}
    return {"": _open_source(inputs, limit)}


def _open_source(given: Inputs, limit: int | None) -> Source:
    return open_source(_names(given), limit=limit) if isinstance(given, str | Sequence) else given


def _files_of(inputs: Inputs | Mapping[str, Inputs], output: str) -> Iterator[str]:
    """The files that were named one by one, or in a list as the output is; it must not replace them."""
    called = os.path.basename(output), os.path.basename(os.path.realpath(output))
    for given in inputs.values() if isinstance(inputs, Mapping) else [inputs]:
        if isinstance(given, str | Sequence):
            yield from (name.split("::")[0] for name in _names(given))
        else:
            yield from (key for key in keys_of(given) if key.endswith(called))


def _names(given: str | Sequence[str]) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if not isinstance(name, str | os.PathLike):
            raise UsageError(
                f"inputs are paths of images or arrays; for arrays in memory there is `Probe`. "
                f"Received: {type(name).__name__}"
            )
    return [os.fspath(name) for name in names]


def find_feeds(
    probed: LoadedModel, sources: Mapping[str, Source], how: ExtractOptions, clock: Clock
) -> Feeds:
    """Match sources with the model's inputs, and say how each becomes rows."""
    specs = probed.inputs
    names = [spec.name for spec in specs]
    if set(sources) == {""} and len(specs) > 1:
        raise UsageError(
            f"the model has {len(specs)} inputs: give each with --input NAME=FILE, for {', '.join(names)}."
        )
    for name in sources:
        if name and name not in names:
            raise UsageError(
                f"the model has no input {name!r} that the layers need: they need {', '.join(names)}."
            )
    missing = [name for name in names if name not in sources and "" not in sources]
    if missing:
        raise UsageError(
            f"the model's input {missing[0]!r} is missing: give it with --input {missing[0]}=FILE."
        )
    feeds = [
        _feed(probed, spec, sources[spec.name if spec.name in sources else ""], how, clock) for spec in specs
    ]
    return Feeds(feeds, how.limit)


def _feed(probed: LoadedModel, spec: TensorSpec, source: Source, how: ExtractOptions, clock: Clock) -> Feed:
    if source.kind == "arrays":
        return ArrayFeed(spec, source, clock)
    if not takes_images(spec):
        shape = ", ".join(["N", *("any" if size is None else str(size) for size in spec.shape)])
        raise UsageError(
            f"input {spec.name!r} does not take images: give an array of shape ({shape}), "
            "as .npy, .npz or file.h5::dataset."
        )
    preprocessing = choose_preprocessing(how, spec, probed.info.layers)
    return ImageFeed(spec, source, preprocessing, how.max_pixels, clock)
