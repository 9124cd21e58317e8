"""Test battery as a class for pytest."""

from collections.abc import Sequence
from typing import Any, ClassVar

from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError
from attnscope.testing.backward import hold_backward_macs, hold_backward_memory
from attnscope.testing.counts import hold_elementwise_flops, hold_macs, hold_trace
from attnscope.testing.execution import hold_operators, hold_parameters, hold_steps
from attnscope.testing.memory import hold_memory, hold_saved
from attnscope.testing.modules import hold_module
from attnscope.testing.neighbourhood import hold_neighbourhood
from attnscope.testing.screens import hold_json, hold_screens


class AttentionBattery:
    """Base class of the tests of an attention: a subclass has a name that begins with Test, and sets `specs`.

    Choose Specs whose axes have different sizes, so that swapped axes are detected. Together, the Specs must run every
    step of the attention.
    """

    specs: ClassVar[Sequence[Spec]]
    """Specs to test; small ones keep the tests fast."""

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Run each test once for each Spec; pytest calls this hook.

        Raises:
            UsageError: if the class has no Specs.
        """
        if not getattr(self, "specs", ()):
            raise UsageError(
                f"{type(self).__name__} has no specs; give it Specs to test: specs = MySpec(), MySpec(batch=2)"
            )
        for values, name in ((self.specs, "spec"), ((True, False), "input_grad")):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values, ids=[_name(value) for value in values])

    def test_steps(self, spec: Spec) -> None:
        hold_steps(spec)

    def test_parameters(self, spec: Spec) -> None:
        hold_parameters(spec)

    def test_operators(self, spec: Spec) -> None:
        hold_operators(spec)

    def test_macs(self, spec: Spec) -> None:
        hold_macs(spec)

    def test_elementwise_flops(self, spec: Spec) -> None:
        hold_elementwise_flops(spec)

    def test_trace(self, spec: Spec) -> None:
        hold_trace(spec)

    def test_memory(self, spec: Spec) -> None:
        hold_memory(spec)

    def test_saved(self, spec: Spec) -> None:
        hold_saved(spec)

    def test_backward_macs(self, spec: Spec, input_grad: bool) -> None:
        hold_backward_macs(spec, input_grad)

    def test_backward_memory(self, spec: Spec, input_grad: bool) -> None:
        hold_backward_memory(spec, input_grad)

    def test_module(self, spec: Spec) -> None:
        hold_module(spec)

    def test_neighbourhood(self, spec: Spec) -> None:
        hold_neighbourhood(spec)

    def test_json(self, spec: Spec) -> None:
        hold_json(spec)

    def test_screens(self, spec: Spec) -> None:
        hold_screens(spec)


def _name(value: Any) -> str:
    if not isinstance(value, Spec):
        return "input_grad" if value else "no_input_grad"
    changed = [f"{name}={each}" for name, each in value.as_dict().items() if each != _default(value, name)]
    return f"{value.name}({','.join(changed)})"


def _default(spec: Spec, name: str) -> object:
    return type(spec).__dataclass_fields__[name].default
