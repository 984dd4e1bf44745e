"""What 10 million and a billion images cost, from what `layerprobe bench` measures, for docs/scale.md.

    python benchmarks/cost.py

Nothing is measured at that size: time grows in proportion to the images (scaling.py), and so do bytes. The
short form measures one layer and leaves the page as it is.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from itertools import starmap

import photos
from measure import ROOT, arguments, has_bfloat16, layerprobe, machine, timed
from models import made

PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- made by benchmarks/cost.py -->\n", "<!-- end of what benchmarks/cost.py made -->\n"
SIZES = {"10 million": 10_000_000, "1 billion": 1_000_000_000}
MACHINES = 100
IMAGES, ROUNDS = 64, 3
"""At most: a rate is the median of so many rounds."""
UNITS = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
BFLOAT16 = ("--precision", "bfloat16")


@dataclass(frozen=True)
class Case:
    """One layer of one model."""

    title: str
    model: str
    layer: str
    options: tuple[str, ...] = ()


CASES = (
    Case("MobileNetV2, last map, averaged", "MobileNetV2", "out_relu", ("--pool", "gap")),
    Case("ResNet50, last map, averaged", "ResNet50", "conv5_block3_out", ("--pool", "gap")),
    Case("the same, `--precision bfloat16`", "ResNet50", "conv5_block3_out", ("--pool", "gap", *BFLOAT16)),
    Case("VGG16, conv5_3", "VGG16", "block5_conv3"),
    Case("the same, `--dtype float16`", "VGG16", "block5_conv3", ("--dtype", "float16")),
    Case("VGG16, conv1_2", "VGG16", "block1_conv2"),
    Case("the same, `--dtype float16`", "VGG16", "block1_conv2", ("--dtype", "float16")),
)


@dataclass(frozen=True)
class Measured:
    """What bench says of a case."""

    case: Case
    rate: float
    """Images per second, end to end."""
    row_bytes: int
    bound_by: str


def measured(case: Case, images: int, rounds: int) -> Measured:
    """Bench one case."""
    print(f"  {case.model} {case.layer} {' '.join(case.options)}", file=sys.stderr, flush=True)
    given = [made(case.model).path, photos.folder(images), "--layer", case.layer, "--limit", images]
    with tempfile.TemporaryDirectory() as scratch:
        how = ["--rounds", rounds, "--output", scratch, *case.options, "--json"]
        _, told = timed(layerprobe("bench", *given, *how))
    (found,) = json.loads(told)
    return Measured(case, found["rates"]["end to end"], found["row_bytes"], found["bound_by"])


def amount(size: float) -> str:
    """Bytes, to three digits."""
    unit, name = next(((unit, name) for unit, name in UNITS if size >= unit), (1, "B"))
    return f"{size / unit:.3g} {name}"


def spent(hours: float) -> str:
    """Time, to two digits or so."""
    time, unit = (60 * hours, "min") if hours < 2 else (hours, "h") if hours < 48 else (hours / 24, "days")
    return f"{time:.2g} {unit}" if time < 10 else f"{time:,.0f} {unit}"


def table(columns: list[str], lines: list[list[str]]) -> list[str]:
    """Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *lines)]


def of_size(name: str, count: int, found: list[Measured], photo: float) -> list[str]:
    """What so many images cost.

    Args:
        name: Of the number.
        count: How many.
        found: Rates and bytes.
        photo: Bytes of an image.
    """
    columns = ["", "machine-hours", f"time of {MACHINES} machines", "written", "all of them write"]
    lines = []
    for one in found:
        hours = count / one.rate / 3600
        written = amount(count * one.row_bytes)
        together = amount(MACHINES * one.rate * one.row_bytes)
        lines.append([one.case.title, f"{hours:,.0f}", spent(hours / MACHINES), written, f"{together}/s"])
    return ["", f"**{name} images**, of which {amount(count * photo)} are read:", "", *table(columns, lines)]


def rendered(found: list[Measured], photo: float) -> str:
    """All that the script puts into the page; see `of_size`."""
    where = machine()
    columns = ["", "images/s", "bound by", "bytes of a row", "reads", "writes"]
    rates = []
    for one in found:
        reads, writes = (f"{amount(one.rate * size)}/s" for size in (photo, one.row_bytes))
        size = amount(one.row_bytes)
        rates.append([one.case.title, f"{one.rate:.3g}", one.bound_by, size, reads, writes])
    sizes = starmap(lambda name, count: of_size(name, count, found, photo), SIZES.items())
    lines = [
        f"Measured on {where['cores']} cores ({where['processor']}, {where['system']}), "
        f"with photos of 500 x 375, {amount(photo)} each. One machine:",
        "",
        *table(columns, rates),
        *(line for one in sizes for line in one),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    options = arguments("cost.py", __doc__)
    images, rounds = min(options.images, IMAGES), min(options.rounds, ROUNDS)
    cases = CASES[: 1 if options.short else None]
    if not has_bfloat16():
        cases = [case for case in cases if "bfloat16" not in case.options]
    found = [measured(case, images, rounds) for case in cases]
    files = list(photos.folder(images).iterdir())
    told = rendered(found, sum(file.stat().st_size for file in files) / len(files))
    print(told)
    if not options.short:
        text = PAGE.read_text()
        PAGE.write_text(text.partition(BEGIN)[0] + BEGIN + told + END + text.partition(END)[2])


if __name__ == "__main__":
    main()
