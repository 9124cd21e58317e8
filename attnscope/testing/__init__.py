"""Test battery for attentions: the tests that all attentions of attnscope pass, for attentions in any folder.

    class TestMine(AttentionBattery):
        specs = MySpec(), MySpec(heads=4, batch=2), MySpec(kernel="sdpa")

Each check is also a function of one Spec, such as `hold_macs(spec)`, for tests with random Specs. A check that fails
raises an AssertionError with the step, the predicted value, the real value, and a hint.
"""

from attnscope.testing.backward import hold_backward_macs, hold_backward_memory
from attnscope.testing.battery import AttentionBattery
from attnscope.testing.counts import hold_elementwise_flops, hold_macs, hold_trace
from attnscope.testing.execution import hold_operators, hold_parameters, hold_steps
from attnscope.testing.memory import hold_memory, hold_saved
from attnscope.testing.modules import hold_module
from attnscope.testing.neighbourhood import hold_neighbourhood
from attnscope.testing.screens import hold_json, hold_screens

__all__ = [
    "AttentionBattery",
    "hold_backward_macs",
    "hold_backward_memory",
    "hold_elementwise_flops",
    "hold_json",
    "hold_macs",
    "hold_memory",
    "hold_module",
    "hold_neighbourhood",
    "hold_operators",
    "hold_parameters",
    "hold_saved",
    "hold_screens",
    "hold_steps",
    "hold_trace",
]
