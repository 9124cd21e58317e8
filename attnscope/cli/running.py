"""How a module is run: the flags that all commands share which can measure, and what is settled before torch comes."""

from collections.abc import Mapping
from typing import Annotated

import typer

from attnscope.cli.flags import MEASURE, RUN, Needs, choices, number, option, whole
from attnscope.core.errors import UsageError, quoted
from attnscope.profiling.options import DEVICES

ALLOCATORS = ("pinned", "default")

DeviceFlag = Annotated[str, option(group=RUN, **choices(DEVICES), help=f"Where to run: {', '.join(DEVICES)}.")]
BudgetFlag = Annotated[
    float,
    option(
        group=MEASURE,
        callback=number("budget"),
        metavar="X",
        help="Seconds to spend on each measurement (up to 3× on a busy machine).",
    ),
    Needs("time"),
]
ThreadsFlag = Annotated[
    int,
    option(
        group=RUN,
        callback=whole("threads"),
        metavar="N",
        help="CPU threads; with one, times are reliable on a busy machine too.",
    ),
]
SeedFlag = Annotated[
    int, option(group=RUN, callback=whole("seed"), metavar="N", help="Random seed for weights and inputs.")
]
AllocFlag = Annotated[
    str,
    option(
        group=RUN,
        **choices(ALLOCATORS),
        help="pinned keeps freed memory, for steady times; default leaves it to the system.",
    ),
]


def check_allocator(alloc: str) -> None:
    """Raises a UsageError where there is no such allocator."""
    if alloc not in ALLOCATORS:
        raise UsageError(f"{{alloc}} {quoted(alloc)} is unknown; there is: {', '.join(ALLOCATORS)}")


def hold_strictly(faults: Mapping[str, bool]) -> None:
    """Exit with 1 where any fault is there, and say which on stderr: what was found may have gone to a file."""
    if found := [fault for fault, there in faults.items() if there]:
        typer.echo(f"attnscope: {' and '.join(found)}, which --strict refuses", err=True)
        raise typer.Exit(1)


def start_torch(alloc: str) -> None:
    """Settle how memory is allocated, and import torch."""
    from attnscope.profiling import process

    if alloc == "pinned":
        process.pin_allocator()
    process.import_torch()
    import logging

    # the compiler tells there that a CUDA toolkit has no GPU, which nobody asked
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # the compiler logs there the traceback of an error that it raises too
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
