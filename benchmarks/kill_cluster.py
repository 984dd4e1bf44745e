"""Lose nodes of a Ray cluster and the driver in the middle of runs, resume each, and compare.

    python benchmarks/kill_cluster.py [--runs 20] [--images 2000] [--seed 0]

A real cluster of several nodes on this machine. In each run the raylet of a node is killed at a random
moment, which ends the node's workers too, and then the driver, at another; the same command with `--resume`
does the rest. Every output must equal, bit for bit, that of one process that was never interrupted.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
from interrupting import (
    DONE,
    SECONDS,
    Kind,
    Place,
    Sample,
    Wrong,
    ended,
    expect,
    finish,
    sample_of,
    wait,
    write_images,
)

KINDS = (Kind("hdf5", "out.h5"), Kind("npz", "out.npz"), Kind("npy", "out"))


def interrupted(nodes: Any, place: Place, chance: random.Random) -> tuple[bool, bool]:
    """One run; gives whether the node was lost while rows were left to do, and whether the driver was."""
    total = len(place.sample.reference["paths"])  # type: ignore[arg-type]
    node = nodes.add_node(num_cpus=1)
    driver = place.start("--cluster", nodes.address, "--workers", "1:3")
    wait(driver, SECONDS, lambda: place.rows >= total * chance.uniform(0.02, 0.5))
    lost = driver.poll() is None
    nodes.remove_node(node, allow_graceful=False)
    wait(driver, SECONDS, lambda: place.rows >= total * chance.uniform(0.5, 0.98))
    driver.send_signal(signal.SIGKILL)
    code, told = ended(driver, SECONDS)
    expect(code, told, [DONE, -signal.SIGKILL])
    finish(place, "--cluster", nodes.address)
    return lost, code != DONE


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="One run of 300 images; not for the README.")
    options = parser.parse_args()
    options.rounds = None
    if options.short:
        options.runs, options.images = 1, 300
    return options


def main() -> None:
    from ray.cluster_utils import Cluster

    options = parsed()
    equal, nodes_lost, drivers_lost, wrong = 0, 0, 0, list[str]()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=1)
        with tempfile.TemporaryDirectory(prefix="layerprobe-kill-") as scratch:
            folder = Path(scratch)
            write_images(folder / "images", options.images)
            samples: dict[str, Sample] = {}
            for run in range(options.runs):
                kind = KINDS[run % len(KINDS)]
                if kind.name not in samples:
                    samples[kind.name] = sample_of(kind, folder / "images", folder / kind.name)
                place = Place(folder / str(run), samples[kind.name])
                place.folder.mkdir()
                try:
                    found = interrupted(nodes, place, random.Random(f"{options.seed} {run}"))
                    nodes_lost, drivers_lost = nodes_lost + found[0], drivers_lost + found[1]
                    equal += 1
                except Wrong as error:
                    wrong.append(f"run {run}, {kind.name}: {error}")
                print(f"{run + 1} runs, {equal} equal {wrong[-1:]}", file=sys.stderr, flush=True)
    finally:
        nodes.shutdown()
    beside = f"{nodes_lost} nodes and {drivers_lost} drivers were lost in the middle"
    row = measure.Row(
        "runs on a cluster that lost a node and the driver: equal in the end", "outputs",
        [equal], [options.runs], beside,
    )  # fmt: skip
    measure.report("kill_cluster.py", [row], options)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
