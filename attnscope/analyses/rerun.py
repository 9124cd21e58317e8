"""Two saved runs -> the commands that measure them again, and their reports. Does not import torch."""

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from attnscope import attentions, networks
from attnscope.attentions.spec import Spec, own_fields
from attnscope.core.errors import UsageError, literal
from attnscope.core.text import visible
from attnscope.profiling.fresh_processes import Command, Progress, run_in_turn
from attnscope.reports.loading import parse_report
from attnscope.reports.report import Report

KEPT = "ATTNSCOPE_ATTENTION"
"""The only variable of attnscope that a repeated run gets; the others would change its options."""
LONGEST_WORD = 100
"""Characters of a word of a command line; the system refuses zero bytes and very long words."""


def rerun_in_turn(
    runs: tuple[Report, Report],
    names: tuple[str, str],
    words: tuple[Sequence[str], Sequence[str]],
    processes: int,
    progress: Progress | None = None,
) -> list[tuple[Report, Report]]:
    """Measure two saved runs again, in turn and in fresh processes, and return the reports of each pair of processes.

    Args:
        runs: the saved runs.
        names: the names of their files.
        words: their command lines, as `words_of` returns them.
        processes: the number of processes of each run.
        progress: called with the current process and the fraction that is done.

    Raises:
        UsageError: a run cannot be repeated by this version, or not on this machine.
        DeviceError: the device of a run is not available here, or does not have enough memory.
    """
    without = [name for name in os.environ if name.startswith("ATTNSCOPE_") and name != KEPT]
    first, other = (
        Command(name, of_run, without=without, problem=f"{name} cannot be run again: ")
        for name, of_run in zip(names, words, strict=True)
    )
    rounds = []
    for texts in run_in_turn((first, other), processes, progress):
        before, after = (parse_report(text, name) for text, name in zip(texts, names, strict=True))
        for saved, fresh, name in zip(runs, (before, after), names, strict=True):
            if spec_of(saved, name) != spec_of(fresh, name):
                raise UsageError(literal(f"{name} cannot be run again: this version has other options; save it again"))
        rounds.append((before, after))
    return rounds


def spec_of(report: Report, name: str) -> Spec:
    """Return the Spec of a saved run.

    Args:
        report: the saved run.
        name: the name of its file, for errors.

    Raises:
        UsageError: the attention is unknown, or its Spec has other fields in this version.
    """
    values: dict[str, Any] = dict(report.spec)
    try:
        kind = networks.spec_class if "network" in values else attentions.spec_class
        spec_class: type[Spec] = kind(str(values.pop("network" if "network" in values else "attention")))
        unknown = [field for field in values if field not in own_fields(spec_class)]
        if unknown:
            raise UsageError(f"{spec_class.title} has no field {literal(unknown[0])}; save the run again")
        return spec_class(**values)
    except (UsageError, KeyError) as error:
        reason = str(error) if isinstance(error, UsageError) else f"attention {error} is unknown"
        raise UsageError(literal(f"{name} cannot be run again: {reason}")) from None


def words_of(report: Report, name: str, budget: float) -> list[str]:
    """Return the command line, after `attnscope`, that measures a saved run again.

    The flags of all fields and options are given if they differ from the defaults of the command. A run that was saved
    without times has the default device and threads.

    Raises:
        UsageError: the run cannot be repeated.
    """
    environment: Mapping[str, Any] = report.environment
    device = str(environment.get("device", "auto")).partition(":")[0]
    if device == "meta":
        raise UsageError(literal(f"{name} ran on meta, which computes nothing; save it with --device cpu"))
    words = shlex.split(spec_of(report, name).command())[1:]
    words += ["--device", device, "--threads", str(environment.get("threads", 1)), "--budget", str(budget)]
    words += ["--seed", str(environment.get("seed", 0)), "--alloc", str(environment.get("allocator", "pinned"))]
    if report.backward:
        words += ["--backward", "--input-grad" if report.backward.input_grad else "--no-input-grad"]
    for word in words:
        if len(word) > LONGEST_WORD or visible(word) != word:
            raise UsageError(literal(f"{name} cannot be run again: {word[:LONGEST_WORD]} is not a value of a flag"))
    return words + (["--kernels"] if report.compares_all_kernels else [])
