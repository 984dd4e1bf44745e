"""Run every benchmark, one after the other, and put the figures into the README.

    python benchmarks/all.py
    python benchmarks/all.py --short

It takes about 25 minutes, and kill.py half an hour more; measure on a machine that does nothing else. The
short form, one round of a few photos, shows in minutes that the scripts work. It leaves out the README;
keract, whose environment takes longer than that; and the interrupted runs, which the tests have.
"""

from __future__ import annotations

import subprocess
import sys
import time

import table
from measure import HERE, arguments

LONG = ("against_keract", "kill", "kill_cluster")
"""What the short form leaves out; the tests interrupt runs, too."""
WITHOUT_ROUNDS = ("kill", "kill_cluster")
"""What measures nothing and has options of its own."""


def main() -> None:
    options = arguments("all.py", __doc__)
    for script in table.SCRIPTS:
        if options.short and script in LONG:
            continue
        print(f"\n== {script}.py", flush=True)
        started = time.perf_counter()
        given = sys.argv[1:] if script not in WITHOUT_ROUNDS else ["--short"] * options.short
        subprocess.run([sys.executable, HERE / f"{script}.py", *given], check=True)
        print(f"({time.perf_counter() - started:.0f} s)", flush=True)
    if not options.short:
        table.main()


if __name__ == "__main__":
    main()
