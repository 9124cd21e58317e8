"""Counting a network, with other counters in the same run: the MACs of each, and attnscope's time over theirs.

python -m benchmarks.counting
"""

import sys
import warnings
from collections.abc import Callable

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import attnscope
from attnscope.profiling import process
from benchmarks.ratios import HEAD, Ratio, of_calls

NAME = "swin_base_patch4_window7_224"
SPEC = attnscope.SwinNetworkSpec(dim=128, heads=4, depths=(2, 2, 18, 2))
PAIRS = 5


def main() -> None:
    """Print the ratios of the MACs and of the times."""
    from fvcore.nn import FlopCountAnalysis

    process.pin_allocator()
    warnings.simplefilter("ignore")  # fvcore and torch warn about their own deprecated parts
    torch.set_num_threads(1)
    on_cpu, image = timm.create_model(NAME).eval(), torch.randn(1, 3, 224, 224)
    with torch.device("meta"):
        on_meta, meta_image = timm.create_model(NAME).eval(), torch.empty(1, 3, 224, 224)

    def fvcore() -> int:
        with torch.no_grad():
            analysis = FlopCountAnalysis(on_cpu, image).unsupported_ops_warnings(False)
            return int(analysis.uncalled_modules_warnings(False).tracer_warnings("none").total())

    def mode() -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            on_meta(meta_image)
        return int(counter.get_total_flops()) // 2

    def traced() -> int | None:
        return attnscope.trace(on_meta, meta_image).totals.macs

    def planned() -> int | None:
        return attnscope.explore(SPEC, time=False).totals.macs

    anchors = {"fvcore": fvcore, "FlopCounterMode": mode}
    if (lens := torchlens(on_cpu, image)) is not None:
        anchors["torchlens"] = lens
    print(HEAD)
    for anchor, count in anchors.items():
        exact = {} if anchor == "fvcore" else {"bar": 1.0, "least": 1.0}  # fvcore adds LayerNorm
        print(Ratio(f"MACs of Swin-B: `trace` over {anchor}", [(traced() or 0) / count()] * 2, **exact))
    bars = {"fvcore": 0.5, "FlopCounterMode": 3.0}
    for anchor, count in anchors.items():
        bar = {"bar": bars[anchor]} if anchor in bars else {}
        print(of_calls(f"seconds to count Swin-B: `trace` on meta over {anchor}", traced, count, pairs=PAIRS, **bar))
    print(of_calls("seconds to count Swin-B: `explore` over fvcore", planned, fvcore, pairs=PAIRS))


def torchlens(model: torch.nn.Module, image: torch.Tensor) -> Callable[[], int] | None:
    """Return a function that counts the MACs with torchlens; None if it is not installed."""
    try:
        import torchlens
    except ModuleNotFoundError:
        print("torchlens is not installed", file=sys.stderr)
        return None
    return lambda: int(torchlens.trace(model, image).total_macs_forward)


if __name__ == "__main__":
    main()
