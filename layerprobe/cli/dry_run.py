"""`layerprobe extract --dry-run`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from layerprobe.cli.console import emit, say
from layerprobe.cli.info import line

if TYPE_CHECKING:
    from layerprobe.planning import Plan


def tell_plan(plan: Plan, as_json: bool) -> int:
    """Print a plan on standard output, and what would end it on standard error; gives the exit code."""
    emit(json.dumps(_plain(plan), indent=2) if as_json else "\n".join(_lines(plan)))
    if plan.problem is None:
        return 0
    say(str(plan.problem))
    return plan.problem.exit_code


def _plain(plan: Plan) -> dict[str, Any]:
    fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    problem, how = plan.problem, plan.preprocessing
    return fields | {
        "layers": [dataclasses.asdict(spec) for spec in plan.layers],
        "preprocessing": None if how is None else dataclasses.asdict(how),
        "problem": None if problem is None else {"exit_code": problem.exit_code, "message": str(problem)},
    }


def _lines(plan: Plan) -> Iterator[str]:
    from layerprobe.formats.disk import amount
    from layerprobe.formats.space import row_bytes
    from layerprobe.run.provenance import preprocessing_text

    yield line("output", f"{plan.output} ({plan.file_format}); until it is complete {plan.unfinished}")
    yield line("inputs", _inputs(plan))
    for spec in plan.layers:
        each = row_bytes(spec)
        whole = "" if plan.rows is None else f", {amount(each * plan.rows)} in all"
        yield line("layer", f"{spec.name}  {spec.shape}  {spec.dtype}  {amount(each)} a row{whole}")
    yield line("disk", _disk(plan))
    yield line("memory", f"about {amount(plan.memory)}")
    yield line("batches", f"{plan.batch_size} rows: {plan.batch_size_reason}")
    engine = plan.engine
    yield line(
        "engine", f"{engine['name']} on {engine['device']}, {engine['precision']}: {plan.engine_reason}"
    )
    how = plan.preprocessing
    yield line("preprocessing", preprocessing_text(None if how is None else dataclasses.asdict(how)))
    if plan.rows_done:
        yield line("resume", f"{plan.rows_done} of {plan.rows} rows are done")


def _inputs(plan: Plan) -> str:
    if plan.rows is None:
        return "a stream, of as many rows as come"
    named = plan.first if plan.rows == 1 else f"{plan.first} to {plan.last}"
    return f"{plan.rows} row{'s' * (plan.rows != 1)}, {named}"


def _disk(plan: Plan) -> str:
    from layerprobe.formats.disk import amount
    from layerprobe.registry import WITHOUT_RESERVE

    if plan.compress is not None and plan.bytes is not None:
        return (
            f"how much {plan.compress} leaves of {amount(plan.bytes)} is not known before; twice that is "
            f"needed, and {amount(plan.free)} are free"
        )
    if plan.file_format in WITHOUT_RESERVE and plan.needed is not None:
        return (
            f"at most {amount(plan.needed)} needed, how much zstd leaves of that is not known before; "
            f"{amount(plan.free)} are free"
        )
    if plan.needed is None:
        return f"what it takes is not known before; {amount(plan.free)} are free"
    return f"{amount(plan.needed)} needed, {amount(plan.free)} are free"
