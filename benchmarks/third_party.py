"""MACs of third-party networks against FlopCounterMode's, each in a process of its own.

    python -m benchmarks.third_party [timm] [torchvision] [hf] [NAME...]

* timm: one network of each module. torchvision: all networks. hf: all types of transformers, with their default configs.
* NAME: single targets, such as hf:clip.

FlopCounterMode runs inside the trace, on the same module, inputs and device. The page lists differences and failures
with their errors, so that one can see whose they are: many default configs of transformers cannot be built or run.
"""

import sys
import warnings
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from attnscope.core.errors import in_a_line
from attnscope.tracing import trace
from attnscope.tracing.options import TraceOptions
from attnscope.tracing.targets import find_target

SECONDS = 60
"""The longest that one target may take, including the import of its library."""
BYTES = 6 * 2**30
"""The most memory of one target."""
OPTIONS = TraceOptions(
    time=False, device=None, group="op", depth=None, submodule=None, budget=0.01, threads=1, seed=0, command=None
)  # fmt: skip


def names_of(library: str) -> list[str]:
    """Return the targets of a library, or the single target with this name."""
    if library == "timm":
        import timm

        families = {timm.model_entrypoint(name).__module__: name for name in reversed(timm.list_models())}
        return [f"timm:{name}" for name in families.values()]
    if library == "torchvision":
        import torchvision

        return [f"torchvision:{name}" for name in torchvision.models.list_models()]
    if library == "hf":
        from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

        return [f"hf:{name}" for name in MODEL_MAPPING_NAMES]
    return [library]


def verdict(name: str) -> tuple[str, str]:
    """Trace a target, and return "equal", "differs" or "failed", with the figures or the error."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    build, run, flops = trace.built, trace.run_watched, []

    def frozen(*args: Any, **kwargs: Any) -> Any:
        return build(*args, **kwargs).requires_grad_(False)  # the module tracker of FlopCounterMode refuses gradients

    def counted(*args: Any, **kwargs: Any) -> Any:
        with FlopCounterMode(display=False) as counter:
            found = run(*args, **kwargs)
        flops.append(counter.get_total_flops())
        return found

    trace.built, trace.run_watched = frozen, counted
    try:
        report = trace.trace_target(find_target(name, {}), OPTIONS)
    except Exception as error:
        return "failed", in_a_line(error)
    macs = report.totals.macs
    if macs is not None and 2 * macs == flops[-1]:
        return "equal", f"{macs:,}"
    return "differs", f"{macs} MACs, FlopCounterMode {flops[-1] / 2:,}"


def send_verdict(name: str, pipe: Connection) -> None:
    """Send the verdict about a target, within the memory of one target."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    warnings.simplefilter("ignore")
    pipe.send(verdict(name))


def verdict_apart(name: str) -> tuple[str, str]:
    """Return the verdict of a process of its own, which ends after SECONDS."""
    ours, theirs = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(target=send_verdict, args=(name, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(SECONDS) else ("failed", f"took longer than {SECONDS} s")
    except EOFError:
        return "failed", "the process died"
    finally:
        process.kill()
        process.join()


def main() -> None:
    found: Counter[str] = Counter()
    for library in sys.argv[1:] or ["timm", "torchvision", "hf"]:
        for name in names_of(library):
            what, detail = verdict_apart(name)
            found[what] += 1
            if what != "equal" or library == name:
                print(f"{name}: {what}: {detail}", flush=True)
    print(f"of {found.total()} targets: {', '.join(f'{count} {what}' for what, count in found.most_common())}")


if __name__ == "__main__":
    main()
