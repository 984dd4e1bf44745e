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
    """Markdown: a table for each machine with one set of packages, below a line that says which.

    Args:
        found: What `measure.report` wrote, one per script.
    """
    groups: dict[str, list[dict]] = {}
    for one in found:
        measured = one["rounds"] is not None  # Others count, whatever the machine.
        same = {what: one[what] for what in ("machine", "versions", "rounds")} if measured else {}
        groups.setdefault(json.dumps(same), []).append(one)
    return "\n".join(line for group in groups.values() for line in (_origin(group), "", *_table(group), ""))


def _origin(group: Sequence[dict]) -> str:
    """Where and when the figures of a table are from."""
    first, last = group[0], max(one["date"] for one in group)
    if first["rounds"] is None:
        return f"Counted, not timed, up to {last}:"
    machine = first["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    return (
        f"Medians of {first['rounds']} rounds, {last}, on {machine['cores']} cores ({machine['processor']}, "
        f"{machine['system']}), Python {machine['python']}, {packages}:"
    )


def _table(group: Sequence[dict]) -> list[str]:
    """The lines of some scripts, with a heading."""
    lines = ["| | layerprobe | compared with | ratio |", "|---|---|---|---|"]
    for one in group:
        for row in one["rows"]:
            claim, ours, theirs, against, ratio = Row(**row).cells()
            lines.append(f"| {claim} | {ours} | {f'{theirs}: {against}' if theirs else ''} | {ratio} |")
    return lines


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
