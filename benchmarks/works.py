"""Eight works of a transformer, and what each counting tool prints for each: `python -m benchmarks.works`.

It writes the table of docs/works.md. A tool that is not installed keeps its column:
`python -m pip install -e ".[test,counters]"` installs all.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PAGE = Path(__file__).parents[1] / "docs" / "works.md"
B, H, N, D = 2, 3, 49, 32
C = H * D


class Function(nn.Module):
    """A module whose forward is a function of its inputs."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the function's result."""
        return self.function(*inputs)


class Project(nn.Module):
    """A projection that calls `F.linear` with a parameter of its own, as torchvision's Swin does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * C, C))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (b, n, c) projected to (b, n, 3c)."""
        return F.linear(x, self.weight)


class SelfAttention(nn.Module):
    """torch's MultiheadAttention of a sequence to itself, which takes a fused path in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(C, H, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention of x (b, n, c)."""
        return self.attention(x, x, x, need_weights=False)[0]


def _tokens() -> Tensor:
    return torch.randn(B, N, C)


def _heads(count: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(B, H, N, D) for _ in range(count))


WORKS: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]], int]] = {
    "`nn.Linear(c, 3c)`": (lambda: nn.Linear(C, 3 * C), lambda: (_tokens(),), B * N * C * 3 * C),
    "`F.linear(x, weight)`": (Project, lambda: (_tokens(),), B * N * C * 3 * C),
    "`nn.Conv2d(3, c, 4, 4)`": (
        lambda: nn.Conv2d(3, C, 4, 4),
        lambda: (torch.randn(B, 3, 28, 28),),
        B * 7 * 7 * C * 3 * 4 * 4,
    ),
    "`q @ k.mT`": (lambda: Function(lambda q, k: q @ k.mT), lambda: _heads(2), B * H * N * N * D),
    "`einsum(q, k)`": (
        lambda: Function(lambda q, k: torch.einsum("bhnd,bhmd->bhnm", q, k)),
        lambda: _heads(2),
        B * H * N * N * D,
    ),
    "`scaled_dot_product_attention`": (
        lambda: Function(F.scaled_dot_product_attention),
        lambda: _heads(3),
        2 * B * H * N * N * D,
    ),
    "`nn.MultiheadAttention`, evaluation": (
        SelfAttention,
        lambda: (_tokens(),),
        B * N * C * 4 * C + 2 * B * H * N * N * D,
    ),
    "`nn.LayerNorm(c)`": (lambda: nn.LayerNorm(C), lambda: (_tokens(),), 0),
}
"""The works: a module, its inputs, and its exact MACs by hand."""


def attnscope_macs(module: nn.Module, *inputs: Tensor) -> int | None:
    """Return the MACs of attnscope's trace."""
    import attnscope

    return attnscope.trace(module, *inputs).totals.macs


def fvcore_flops(module: nn.Module, *inputs: Tensor) -> int:
    """Return fvcore's "flops" with its default formulas."""
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return int(analysis.tracer_warnings("none").total())


def flop_counter(module: nn.Module, *inputs: Tensor) -> int:
    """Return the FLOPs of torch's FlopCounterMode."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return int(counter.get_total_flops())


def thop_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Return thop's MACs."""
    import thop

    return int(thop.profile(module, inputs, verbose=False)[0])


def ptflops_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Return ptflops' MACs, by its default backend, which calls a module with one argument."""
    import ptflops

    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, given: tuple[Tensor, ...]) -> Tensor:
            return self.module(*given)

    quiet = {"as_strings": False, "print_per_layer_stat": False, "verbose": False}
    return int(ptflops.get_model_complexity_info(Single(), (1,), input_constructor=lambda _: inputs, **quiet)[0])


def torchinfo_adds(module: nn.Module, *inputs: Tensor) -> int:
    """Return torchinfo's mult-adds."""
    import torchinfo

    return int(torchinfo.summary(module, input_data=inputs, verbose=0).total_mult_adds)


def torchlens_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Return torchlens' MACs of the forward."""
    import torchlens

    return int(torchlens.trace(module, list(inputs)).total_macs_forward)


def calflops_flops(module: nn.Module, *inputs: Tensor) -> int:
    """Return calflops' FLOPs. It replaces functions of torch and does not restore all of them, so that a second figure
    would be too large.
    """
    import calflops

    class Given(nn.Module):
        """The module with a parameter, since calflops takes the device from one."""

        def __init__(self) -> None:
            super().__init__()
            self.module, self.parameter = module, nn.Parameter(torch.zeros(()))

        def forward(self, *given: Tensor) -> Tensor:
            return self.module(*given)

    quiet = {"print_results": False, "print_detailed": False, "output_as_string": False}
    with unchanged(torch, torch.Tensor, F):
        return int(calflops.calculate_flops(Given().eval(), args=list(inputs), **quiet)[0])


@contextlib.contextmanager
def unchanged(*owners: Any) -> Iterator[None]:
    """Restore the names of modules and classes after a with block."""
    before = [(owner, dict(vars(owner))) for owner in owners]
    try:
        yield
    finally:
        for owner, names in before:
            for name, value in names.items():
                if vars(owner).get(name) is not value:
                    setattr(owner, name, value)


TOOLS: Mapping[str, Callable[..., int | None]] = {
    "attnscope": attnscope_macs,
    "fvcore": fvcore_flops,
    "FlopCounterMode": flop_counter,
    "thop": thop_macs,
    "ptflops": ptflops_macs,
    "torchinfo": torchinfo_adds,
    "calflops": calflops_flops,
    "torchlens": torchlens_macs,
}
"""The tools, and the function that returns the figure that each prints."""


def figure(tool: str, work: str) -> str | None:
    """Return what a tool prints for a work, "error" if it fails; None if it is not installed."""
    build, inputs, _ = WORKS[work]
    torch.manual_seed(0)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return f"{TOOLS[tool](build().eval(), *inputs()):,}"
        except ModuleNotFoundError:
            return None
        except Exception:
            return "error"


def written() -> dict[str, dict[str, str]]:
    """Return the figures of the page: those of each work by tool."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", text, re.MULTILINE)]
    return {row[0]: dict(zip(rows[0][2:], row[2:], strict=True)) for row in rows[2:] if row[0] in WORKS}


def table() -> str:
    """Return the table, with the figures of the page for tools that are not installed."""
    before = written()
    lines = ["| work | exact MACs | " + " | ".join(TOOLS) + " |\n", "|---|" + "---:|" * (len(TOOLS) + 1) + "\n"]
    # tools outside, since torchlens replaces torch's functions, which ptflops then does not find
    columns = {tool: [figure(tool, work) for work in WORKS] for tool in TOOLS}
    for index, (work, (_, _, exact)) in enumerate(WORKS.items()):
        cells = [column[index] or before.get(work, {}).get(tool, "?") for tool, column in columns.items()]
        lines.append(f"| {work} | {exact:,} | {' | '.join(cells)} |\n")
    return "".join(lines)


def main() -> None:
    """Write the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        re.sub(r"^\| work \|(?:.*\n)(?:\|.*\n)*", lambda _: table(), text, flags=re.MULTILINE), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
