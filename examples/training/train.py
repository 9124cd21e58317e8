"""Train a small ViT and a small Swin on generated images, on the CPU:

    python -m examples.training.train

Each image has stripes in one of four directions, and the class is the direction. The loss falls from ln 4 = 1.39.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope import SwinNetworkSpec, ViTNetworkSpec

SIDE = 32
"""Height and width of an image, in pixels."""
SPECS = {
    "vit": ViTNetworkSpec(image=(SIDE, SIDE), patch=(8, 8), dim=32, heads=4, depth=2, classes=4),
    "swin": SwinNetworkSpec(image=(SIDE, SIDE), patch=(4, 4), dim=16, heads=2, depths=(2, 2), window=(4, 4), classes=4),
}


def batches(steps: int, size: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield generated images, (b, 3, height, width), and their classes, (b,)."""
    for _ in range(steps):
        classes = torch.randint(4, (size,))
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        across = torch.stack((y, x, y + x, y - x))[classes][:, None]
        phase = 6.28 * torch.rand(size, 1, 1, 1)
        images = torch.sin(0.8 * across + phase) + 0.3 * torch.randn(size, 3, SIDE, SIDE)
        yield images, classes


def train(network: nn.Module, steps: int, amp: bool = False, rate: float = 3e-3) -> list[float]:
    """Train a network, and return the loss of each step.

    Args:
        network: the network, or the result of torch.compile.
        steps: number of batches.
        amp: whether the forward runs in bfloat16 under autocast.
        rate: learning rate of AdamW.
    """
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    losses = []
    for images, classes in batches(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = F.cross_entropy(network(images).float(), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    """Train each network in float32, in bfloat16 and compiled, and print the first and the last losses."""
    for name, spec in SPECS.items():
        for how in ("float32", "bfloat16", "compiled"):
            torch.manual_seed(0)
            network = spec.build().train()
            losses = train(torch.compile(network) if how == "compiled" else network, 300, amp=how == "bfloat16")
            print(f"{name:<5} {how:<9} loss {losses[0]:.2f} → {sum(losses[-20:]) / 20:.3f}")


if __name__ == "__main__":
    main()
