"""Attention kernels by name, without torch."""

KERNELS = {
    "eager": "each step as separate operators",
    "sdpa": "torch's scaled_dot_product_attention, with the backend that torch selects",
    "flash": "its FlashAttention backend",
    "efficient": "its memory-efficient backend, on CUDA",
    "math": "its unfused reference backend",
    "flex": "FlexAttention, compiled",
    "compile": "the steps, fused by torch.compile",
}
RUN_EVERYWHERE = ("eager", "sdpa")
COMPILED = ("flex", "compile")
"""Kernels that are compiled before their first run, which takes seconds."""
RECOMPUTING = ("sdpa", "flash", "efficient")
"""Kernels that do not save the scores and recompute them in the backward."""
