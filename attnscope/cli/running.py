"""The flags of all commands that measure, and the setup before torch is imported."""

from collections.abc import Mapping
from typing import Annotated

import typer

from attnscope.cli.flags import MEASURE, RUN, Needs, choices, option
from attnscope.cli.messages import say
from attnscope.core.errors import UsageError, quoted
from attnscope.core.reading import integer, number, percent
from attnscope.core.standard_output import reserve_stdout
from attnscope.profiling.intervals import FEWEST_SAMPLES
from attnscope.profiling.options import BUDGET_S, DEVICES, LIMIT_S

ALLOCATORS = ("pinned", "default")

BUDGET = option(
    group=MEASURE,
    callback=number("budget"),
    metavar="X",
    help="Seconds to spend on each measurement (up to 3× on a busy machine).",
)
PROCESSES = option(
    group=MEASURE,
    callback=integer("processes"),
    metavar="N",
    help=f"Number of processes of each run; from {FEWEST_SAMPLES} on, intervals are those between processes.",
)
DeviceFlag = Annotated[str, option(group=RUN, **choices(DEVICES), help=f"Device: {', '.join(DEVICES)}.")]
BudgetFlag = Annotated[float, BUDGET, Needs("time")]
InputGradFlag = Annotated[
    bool,
    option(
        "--input-grad/--no-input-grad",
        group=MEASURE,
        help="Compute the gradient of the input in the backward.",
    ),
    Needs("backward"),
]
LimitFlag = Annotated[
    float | None,
    option(
        group=MEASURE,
        callback=number("budget"),
        metavar="X",
        show_default=f"{BUDGET_S:g}; {LIMIT_S:g} with --until",
        help="Seconds to spend on each measurement (up to 3× on a busy machine).",
    ),
    Needs("time"),
]
ProcessesFlag = Annotated[int, PROCESSES, Needs("time")]
UntilFlag = Annotated[
    float | None,
    option(
        group=MEASURE,
        callback=percent("until"),
        metavar="X%",
        help="Measure until the forward is known within this percentage, such as 2%, or the budget is spent.",
    ),
    Needs("time"),
]
ThreadsFlag = Annotated[
    int,
    option(
        group=RUN,
        callback=integer("threads"),
        metavar="N",
        help="Number of CPU threads; with 1, times are reliable on a busy machine too.",
    ),
]
SeedFlag = Annotated[
    int, option(group=RUN, callback=integer("seed"), metavar="N", help="Random seed for weights and inputs.")
]
AllocFlag = Annotated[
    str,
    option(
        group=RUN,
        **choices(ALLOCATORS),
        help="Allocator: pinned (keeps freed memory, for steady times) or default (the system's).",
    ),
]


def check_allocator(alloc: str) -> None:
    """Raise a UsageError if the allocator is unknown."""
    if alloc not in ALLOCATORS:
        raise UsageError(f"{{alloc}} {quoted(alloc)} is unknown; available: {', '.join(ALLOCATORS)}")


def exit_on_faults(faults: Mapping[str, bool]) -> None:
    """Exit with code 1 if there are faults, and report them on stderr, since the output may be in a file."""
    if found := [fault for fault, occurred in faults.items() if occurred]:
        say(f"attnscope: --strict failed: {' and '.join(found)}; see the output")
        raise typer.Exit(1)


def start_torch(alloc: str) -> None:
    """Set the allocator, then import torch. From here on, stdout is for the result alone."""
    from attnscope.profiling import process

    reserve_stdout()
    if alloc == "pinned":
        process.pin_allocator()
    process.import_torch()
    import logging

    # The compiler warns here about a CUDA toolkit without a GPU, which does not matter to the user.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # The compiler logs the traceback of an error here and also raises the error.
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
