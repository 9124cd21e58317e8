"""Kernels of attention by name. No torch."""

KERNELS = {
    "eager": "every step on its own",
    "sdpa": "torch's fused scaled_dot_product_attention, by the backend that it chooses",
    "flash": "its FlashAttention",
    "efficient": "its memory-efficient attention, on CUDA",
    "math": "its plain one, which other backends are held against",
    "flex": "FlexAttention, compiled",
    "compile": "the steps as torch.compile fuses them",
}
RUN_EVERYWHERE = ("eager", "sdpa")
COMPILED = ("flex", "compile")
"""Kernels that a compiler makes, which takes seconds."""
RECOMPUTING = ("sdpa", "flash", "efficient")
"""Kernels that keep no scores and compute them again in the backward."""
