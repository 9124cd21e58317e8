"""Blocks of runs: the same forward and backward measured again, in this process or in a fresh one.

A process places its memory differently from the next one, which changes its times. Fresh processes sample this effect.
A block measures nothing else, so that a process takes little longer than importing torch.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope import attentions, networks
from attnscope.analyses.fused import build_fused
from attnscope.attentions.discovery import find_spec_class
from attnscope.attentions.spec import Spec
from attnscope.core.errors import AttnscopeError, literal
from attnscope.plan.plan import Plan
from attnscope.profiling import process
from attnscope.profiling.building import build, kernel_errors_explained, settled
from attnscope.profiling.fresh_processes import launch, reason
from attnscope.profiling.intervals import interval_of_run
from attnscope.profiling.options import RunOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attnscope.profiling.kernels import Contenders
    from attnscope.profiling.timing import Pairs, Yardsticks

PROGRAM = "from attnscope.analyses.blocks import main; main()"
"""The program of a fresh process."""


@dataclass(frozen=True)
class Block:
    """The runs of one block: pairs of the forward, and of the backward if it was requested.

    `has_backward` says for each step that ran whether it has a backward. `process` is the number of the process.
    """

    forward: "Pairs"
    backward: "Pairs | None" = None
    has_backward: Sequence[bool] = ()
    process: int = 0


def measure_blocks(
    spec: Spec,
    plan: Plan,
    module: "nn.Module",
    x: "tuple[Tensor, ...]",
    options: RunOptions,
    fused: "Contenders | None",
) -> list[Block]:
    """Measure a block in this process and one in each other process, and more while the interval is too wide.

    Args:
        spec: the attention or the network.
        plan: its plan.
        module, x: the module in this process and its inputs.
        options: the options, in which a device replaces "auto".
        fused: the module with the fused kernel that runs beside it, or None.

    Returns:
        The blocks, those of this process first; empty if nothing is timed.

    Raises:
        DeviceError: the kernel has no backward on this device.
    """
    if not options.measures_time:
        return []
    from attnscope.profiling.yardsticks import yardsticks_of

    start = time.perf_counter()
    yardsticks = yardsticks_of(plan.steps, x[0].device, options.threads)
    blocks = [measure_block(spec, module, x, options, fused, yardsticks)]
    while len(blocks) < options.processes or not _enough(blocks, options, time.perf_counter() - start):
        if options.processes > 1:
            if options.progress:
                options.progress(f"process {len(blocks) + 1}", min(1.0, len(blocks) / options.processes))
            blocks.append(replace(_fresh_block(spec, options), process=len(blocks)))
        else:
            blocks.append(measure_block(spec, module, x, options, fused, yardsticks))
    return blocks


def _enough(blocks: Sequence[Block], options: RunOptions, elapsed_s: float) -> bool:
    """Return whether the interval of the forward is as narrow as requested, or the budget is spent."""
    if options.until is None or elapsed_s >= options.budget:
        return True
    from attnscope.profiling.timing import merge

    pairs = merge([block.forward for block in blocks], [block.process for block in blocks])
    found = interval_of_run([run.total for run in pairs.wholes], pairs.process_runs)
    return found is not None and found.high - found.low <= 2 * options.until * found.low


def measure_block(
    spec: Spec,
    module: "nn.Module",
    x: "tuple[Tensor, ...]",
    options: RunOptions,
    fused: "Contenders | None",
    yardsticks: "Yardsticks",
) -> Block:
    """Measure a block of runs in this process; the arguments are those of `measure_blocks`."""
    from attnscope.profiling.backward import backward_pairs
    from attnscope.profiling.timing import step_pairs

    beside = list(fused.ready.values()) if fused else []
    forward = step_pairs(module, x, options.block_s, options.progress_of("the steps"), beside, yardsticks)
    if not options.backward:
        return Block(forward)
    progress = options.progress_of("the backward")
    with kernel_errors_explained(spec, x[0].device, backward=True):
        backward, went = backward_pairs(module, x, options.block_s, options.input_grad, progress, yardsticks)
    return Block(forward, backward, went)


def _fresh_block(spec: Spec, options: RunOptions) -> Block:
    """Measure a block of runs in a fresh process.

    Raises:
        AttnscopeError: the process failed; the message has the last line that it wrote.
    """
    from attnscope.profiling.timing import Pairs

    done = launch(PROGRAM, request=json.dumps(_request(spec, options)))
    if done.returncode:
        raise AttnscopeError(literal(f"a fresh process failed: {reason(done)}; run without --processes"))
    found = json.loads(done.stdout.splitlines()[-1])
    return Block(
        Pairs.from_plain(found["forward"]),
        Pairs.from_plain(found["backward"]) if found["backward"] else None,
        found["has_backward"],
    )


def _request(spec: Spec, options: RunOptions) -> dict[str, Any]:
    """Return the message to a fresh process: the Spec, the folder of its attention, the options and the allocator."""
    attention = spec.attention() if isinstance(spec, networks.ComposedSpec) else spec
    return {
        "is_network": spec is not attention,
        "name": spec.name,
        "folder": str(Path(sys.modules[type(attention).__module__].__file__ or "").parent),
        "values": spec.as_dict(),
        "options": {field.name: getattr(options, field.name) for field in fields(options) if field.name != "progress"},
        "allocator": process.allocator,
    }


def main() -> None:
    """Measure the block that the request on stdin describes, and write it to stdout: the program of a fresh process."""
    request = json.load(sys.stdin)
    if request["allocator"] == "pinned":
        process.pin_allocator()
    process.import_torch()
    import torch

    from attnscope.profiling.devices import find_device
    from attnscope.profiling.yardsticks import yardsticks_of

    name, options = request["name"], RunOptions(**request["options"])
    spec_class = find_spec_class(name) or attentions.load(request["folder"])
    if request["is_network"]:
        spec_class = networks.spec_class(name)
    spec = spec_class(**request["values"])
    device = find_device(options.device)
    with settled(options.threads, options.seed, device), torch.inference_mode(False):
        module, x = build(spec, device)
        fused = build_fused(spec, module, x, options)
        yardsticks = yardsticks_of(spec.plan().steps, device, options.threads)
        print(json.dumps(asdict(measure_block(spec, module, x, options, fused, yardsticks))))
