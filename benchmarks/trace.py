"""Figures of `attnscope.trace`: speed against other counters, times against the untouched forward, and MACs.

    python -m benchmarks.trace [speed] [recognition] [times] [macs]

* speed: time to trace timm's Swin-B on meta, over fvcore's FlopCountAnalysis on the CPU (at most 0.5) and over torch's
  FlopCounterMode on meta (at most 2). fvcore cannot run on meta.
* recognition: time to trace networks on meta over that without attention: neither the record of the flow of tensors nor
  the search in it (at most 1.15).
* times: the sum of the rows' times over the untouched forward, for timm's ViT-B and Swin-T (0.95 to 1.05).
* macs: the MACs of timm and torchvision networks against FlopCounterMode's without the native fast path (equal).
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from unittest import mock

import attnscope
from attnscope.profiling import process

ROUNDS = 5
TIMM = """
    vit_tiny_patch16_224 vit_base_patch16_224 deit3_small_patch16_224 deit_tiny_distilled_patch16_224
    beit_base_patch16_224 eva02_tiny_patch14_224 cait_xxs24_224 xcit_nano_12_p16_224 swin_tiny_patch4_window7_224

    swin_small_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 pvt_v2_b0 twins_pcpvt_small
    twins_svt_small pit_ti_224 levit_128s mvitv2_tiny maxvit_tiny_tf_224 coatnet_0_rw_224 convnext_tiny resnet50

    regnetx_002 efficientnet_b0 mobilenetv3_small_100 mobilevit_s crossvit_tiny_240 nest_tiny volo_d1_224
    efficientformer_l1 edgenext_xx_small davit_tiny gcvit_xxtiny focalnet_tiny_srf poolformer_s12 mixer_s32_224

    hiera_tiny_224 fastvit_t8 coat_tiny visformer_tiny
""".split()  # noqa: SIM905
RECOGNIZED = ("swin_base_patch4_window7_224", "vit_base_patch16_224", "maxvit_tiny_tf_224", "cait_xxs24_224")
TORCHVISION = """
    swin_t swin_v2_t vit_b_32 maxvit_t convnext_tiny resnet18 mobilenet_v3_small shufflenet_v2_x0_5
""".split()  # noqa: SIM905


def main() -> None:
    names = sys.argv[1:] or ["speed", "recognition", "times", "macs"]
    process.pin_allocator()
    import torch

    warnings.simplefilter("ignore")  # fvcore and torch warn about their own deprecated parts
    torch.set_num_threads(1)
    for name, figure in (("speed", speed), ("recognition", recognition), ("times", times), ("macs", macs)):
        if name in names:
            figure()


def speed() -> None:
    import timm
    import torch
    from fvcore.nn import FlopCountAnalysis
    from torch.utils.flop_counter import FlopCounterMode

    name = "swin_base_patch4_window7_224"
    on_cpu, x = timm.create_model(name).eval(), torch.randn(1, 3, 224, 224)
    with torch.device("meta"):
        on_meta, meta_x = timm.create_model(name).eval(), torch.empty(1, 3, 224, 224)

    def with_fvcore() -> None:
        with torch.no_grad():
            FlopCountAnalysis(on_cpu, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()

    def with_torch() -> None:
        with torch.no_grad(), FlopCounterMode(display=False):
            on_meta(meta_x)

    ours, fvcore, mode = side_by_side(lambda: attnscope.trace(on_meta, meta_x), with_fvcore, with_torch)
    print(f"trace of Swin-B on meta: {ours:.2f} s")
    print(f"  over fvcore {fvcore:.2f} s: {ours / fvcore:.2f} (at most 0.5)")
    print(f"  over FlopCounterMode {mode:.2f} s: {ours / mode:.2f} (at most 2)")


def recognition() -> None:
    import timm
    import torch

    from attnscope.tracing import report
    from attnscope.tracing.flow.record import Flow
    from attnscope.tracing.recognition import Recognized

    for name in RECOGNIZED:
        with torch.device("meta"):
            model, x = timm.create_model(name).eval(), torch.empty(1, 3, 224, 224)

        def with_attention(model: torch.nn.Module = model, x: torch.Tensor = x) -> None:
            assert attnscope.trace(model, x).attentions

        def without(model: torch.nn.Module = model, x: torch.Tensor = x) -> None:
            with (
                mock.patch.object(report, "find_attention", return_value=Recognized()),
                mock.patch.object(Flow, "add"),
            ):
                assert not attnscope.trace(model, x).attentions

        found, alone = side_by_side(with_attention, without)
        print(f"{name}: {found:.2f} s with recognition, over without {found / alone:.2f} (at most 1.15)")


def side_by_side(*runs: Callable[[], object]) -> list[float]:
    """Return the median seconds of each run; the runs are interleaved."""
    samples: list[list[float]] = [[] for _ in runs]
    for index in range(ROUNDS + 1):
        for run, seconds in zip(runs, samples, strict=True):
            start = time.perf_counter()
            run()
            if index:  # the first round is the warm-up
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in samples]


def times() -> None:
    import timm
    import torch

    for name in ("vit_base_patch16_224", "swin_tiny_patch4_window7_224"):
        model, x = timm.create_model(name).eval(), torch.randn(1, 3, 224, 224)
        for _ in range(3):
            report = attnscope.trace(model, x, time=True, budget=5)
            ratio = report.time.steps_sum_s / report.time.whole_interquartile_mean_s
            print(f"{name}: sum of rows / forward {ratio:.3f} (0.95 to 1.05), {report.time.clean_runs} clean runs")


def macs() -> None:
    import timm
    import torch
    import torchvision
    from torch.utils.flop_counter import FlopCounterMode

    torch.backends.mha.set_fastpath_enabled(False)
    equal = 0
    networks = [(timm.create_model, name) for name in TIMM] + [
        (torchvision.models.get_model, name) for name in TORCHVISION
    ]
    for build, name in networks:
        with torch.device("meta"):
            model = build(name).eval().requires_grad_(False)
            x = torch.empty(1, *getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))
        with FlopCounterMode(display=False) as counter:
            model(x)
        report = attnscope.trace(model, x)
        equal += 2 * report.totals.macs == counter.get_total_flops()
        if 2 * report.totals.macs != counter.get_total_flops():
            print(f"{name}: {report.totals.macs:,} MACs, FlopCounterMode {counter.get_total_flops() / 2:,}")
        if report.uncounted:
            print(f"{name}: unknown: {', '.join(entry.op for entry in report.uncounted)}")
    print(f"MACs equal FlopCounterMode's as integers: {equal} of {len(networks)} networks")


if __name__ == "__main__":
    main()
