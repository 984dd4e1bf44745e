"""`layerprobe stats`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from layerprobe.cli.console import as_text, emit, escape

if TYPE_CHECKING:
    from rich.table import Table

    from layerprobe.statistics import LayerStatistics

BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 24


@click.command()
@click.argument("outputs", nargs=-1, required=True, type=click.Path(readable=False))
@click.option("-l", "--layer", "layers", multiple=True, metavar="NAME", help="Only this layer; repeats.")
@click.option("--channels", is_flag=True, help="A line for every channel.")
@click.option("--json", "as_json", is_flag=True, help="One object on stdout, with every channel.")
def stats(outputs: tuple[str, ...], layers: tuple[str, ...], channels: bool, as_json: bool) -> None:
    """Mean, variance, range, zeros and histogram of each layer in OUTPUTS, all of them together.

    Several OUTPUTS are shards of one run. Failed rows are left out. A channel that is 0 everywhere is dead.
    """
    from layerprobe.statistics import output_statistics

    found = output_statistics(outputs, layers)
    if as_json:
        emit(json.dumps({name: as_plain(layer) for name, layer in found.items()}, indent=2))
    else:
        emit(render(found, channels))


def render(found: Mapping[str, LayerStatistics], channels: bool) -> str:
    """Draw a table: a line for each layer, or for each channel."""
    table = _table("channel" if channels else "channels")
    for name, layer in found.items():
        for row in _channel_rows(layer) if channels else [_layer_row(layer)]:
            table.add_row(escape(name), *row)
    odd = [
        f"{escape(name)}: {int(layer.nan.sum()):,} values are NaN, {int(layer.infinite.sum()):,} infinite"
        for name, layer in found.items()
        if layer.nan.any() or layer.infinite.any()
    ]
    rows = next((layer.rows for layer in found.values()), 0)
    return "\n".join([as_text(table), f"{rows:,} rows", *odd])


def _table(channels: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("layer", overflow="fold")
    for name in (channels, "mean", "std", "min", "max", "zeros", "dead"):
        table.add_column(name, justify="right")
    if channels == "channels":
        table.add_column("from min to max")
    return table


def _layer_row(layer: LayerStatistics) -> list[str]:
    """All channels as one: the variance is that of all values."""
    from layerprobe.statistics import linear_histogram

    total = int(layer.count.sum())
    if not total:
        return [str(len(layer.count)), *["-"] * 6, ""]
    mean, variance, low, high = layer.overall
    numbers = (mean, variance**0.5, low, high)
    bars = _bars(linear_histogram(layer, WIDTH).tolist())
    dead = int((layer.dead & (layer.count > 0)).sum())
    return [str(len(layer.count)), *map(_number, numbers), _share(layer.zeros.sum() / total), str(dead), bars]


def _channel_rows(layer: LayerStatistics) -> Iterator[list[str]]:
    for channel, count in enumerate(layer.count.tolist()):
        numbers = (layer.mean, layer.variance**0.5, layer.minimum, layer.maximum)
        shown = [_number(float(values[channel])) if count else "-" for values in numbers]
        share = _share(layer.zeros[channel] / count) if count else "-"
        yield [str(channel), *shown, share, "dead" if count and layer.dead[channel] else ""]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _bars(counts: list[float]) -> str:
    """A histogram in one line; whatever is there at all shows."""
    step = max(counts) / (len(BARS) - 1) or 1.0
    return "".join(BARS[max(1, round(count / step))] if count else BARS[0] for count in counts)


def as_plain(layer: LayerStatistics) -> dict[str, Any]:
    """Every channel's numbers as lists, and the bins of the histogram that hold any."""
    from layerprobe.statistics import bin_edges

    bins = [(bin_edges(number), int(count)) for number, count in enumerate(layer.histogram) if count]
    bins.sort()
    per_channel = ("count", "nan", "infinite", "mean", "variance", "minimum", "maximum", "zeros", "dead")
    return {
        "rows": layer.rows,
        **{name: [_plain(value) for value in getattr(layer, name).tolist()] for name in per_channel},
        "histogram": [{"from": min(edges), "to": max(edges), "count": count} for edges, count in bins],
    }


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and value != value else value
