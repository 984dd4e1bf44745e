"""Put the measured figures into the README: one line per claim, from the JSON files under `results`.

python benchmarks/table.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from measure import RESULTS, ROOT, Row

SCRIPTS = (
    "startup",
    "throughput",
    "limits",
    "against_keract",
    "writing",
    "scaling",
    "fast_decode",
    "memory",
    "million",
    "cluster",
    "kill",
    "kill_cluster",
)
"""In the order of the table."""

README = ROOT / "README.md"
BEGIN, END = "<!-- made by benchmarks/table.py -->\n", "<!-- end of what benchmarks/table.py made -->\n"


def rendered(found: Sequence[dict]) -> str:
    """Markdown: where the figures are from, and the table.

    Args:
        found: What `measure.report` wrote, one per script.

    Raises:
        SystemExit: The scripts did not run on one machine with one set of packages.
    """
    measured = [
        one for one in found if one["rounds"] is not None
    ] or found  # Others count, whatever the machine.
    first = measured[0]
    if any(one[what] != first[what] for one in measured for what in ("machine", "versions", "rounds")):
        raise SystemExit("the results are of several machines, versions or rounds: run all.py again")
    machine = first["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    lines = [
        f"Medians of {first['rounds']} rounds, {max(one['date'] for one in measured)}, "
        f"on {machine['cores']} cores ({machine['processor']}, {machine['system']}), "
        f"Python {machine['python']}, {packages}.",
        "",
        "| | layerprobe | compared with | ratio |",
        "|---|---|---|---|",
    ]
    for one in found:
        for row in one["rows"]:
            claim, ours, theirs, against, ratio = Row(**row).cells()
            lines.append(f"| {claim} | {ours} | {f'{theirs}: {against}' if theirs else ''} | {ratio} |")
    return "\n".join(lines) + "\n"


def replaced(readme: str, table: str) -> str:
    """The README's text with another table between the two markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table}{END}{after}"


def results() -> list[dict]:
    """What the scripts found, as far as they have been run."""
    paths = [RESULTS / f"{script}.json" for script in SCRIPTS]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def main() -> None:
    README.write_text(replaced(README.read_text(), rendered(results())))


if __name__ == "__main__":
    main()
