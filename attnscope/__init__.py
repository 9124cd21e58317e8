"""attnscope: a microscope for vision attention.

    import attnscope
    report = attnscope.explore(attnscope.SwinSpec(window=7, shift=True))
    print(report.totals.macs)

The modules are ordinary `nn.Module`s; whatever needs torch is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnscope.analyses.compare import compare
    from attnscope.analyses.explore import explore
    from attnscope.analyses.windows import look_at_windows
    from attnscope.attentions.cross.attention import CrossAttention
    from attnscope.attentions.cross.spec import CrossSpec
    from attnscope.attentions.swin.attention import WindowAttention, window_partition, window_reverse
    from attnscope.attentions.swin.spec import SwinSpec
    from attnscope.attentions.swinv2.attention import WindowAttentionV2
    from attnscope.attentions.swinv2.spec import SwinV2Spec
    from attnscope.attentions.vit.attention import ViTAttention
    from attnscope.attentions.vit.spec import ViTSpec
    from attnscope.core.errors import AttnscopeError, DeviceError, UsageError
    from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
    from attnscope.networks.vit.spec import ViTNetworkSpec
    from attnscope.profiling.steps import trace_steps
    from attnscope.render import notebook
    from attnscope.reports.comparison import Comparison
    from attnscope.reports.report import Report, TraceReport
    from attnscope.reports.windows import WindowsReport
    from attnscope.tracing.trace import trace

__version__ = "0.1.0"

_HOME = {
    "AttnscopeError": "core.errors",
    "Comparison": "reports.comparison",
    "CrossAttention": "attentions.cross.attention",
    "CrossSpec": "attentions.cross.spec",
    "DeviceError": "core.errors",
    "Report": "reports.report",
    "SwinNetworkSpec": "networks.swin.spec",
    "SwinSpec": "attentions.swin.spec",
    "SwinV2NetworkSpec": "networks.swin.spec",
    "SwinV2Spec": "attentions.swinv2.spec",
    "TraceReport": "reports.report",
    "UsageError": "core.errors",
    "ViTAttention": "attentions.vit.attention",
    "ViTNetworkSpec": "networks.vit.spec",
    "ViTSpec": "attentions.vit.spec",
    "WindowAttention": "attentions.swin.attention",
    "WindowAttentionV2": "attentions.swinv2.attention",
    "WindowsReport": "reports.windows",
    "compare": "analyses.compare",
    "explore": "analyses.explore",
    "look_at_windows": "analyses.windows",
    "notebook": "render",
    "trace": "tracing.trace",
    "trace_steps": "profiling.steps",
    "window_partition": "attentions.swin.attention",
    "window_reverse": "attentions.swin.attention",
}

__all__ = [
    "AttnscopeError",
    "Comparison",
    "CrossAttention",
    "CrossSpec",
    "DeviceError",
    "Report",
    "SwinNetworkSpec",
    "SwinSpec",
    "SwinV2NetworkSpec",
    "SwinV2Spec",
    "TraceReport",
    "UsageError",
    "ViTAttention",
    "ViTNetworkSpec",
    "ViTSpec",
    "WindowAttention",
    "WindowAttentionV2",
    "WindowsReport",
    "compare",
    "explore",
    "look_at_windows",
    "notebook",
    "trace",
    "trace_steps",
    "window_partition",
    "window_reverse",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'attnscope' has no attribute {name!r}")
    return getattr(import_module(f"attnscope.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
