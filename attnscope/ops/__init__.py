"""The registry of operations: MACs, FLOPs, bytes, allocations, saved tensors and backward of each, without torch.

`OPERATIONS` has one declaration for each operator, by its aten name; importing this package declares all of them. Plans
run operations on abstract tensors (`attnscope.ops.tape`), traces price real calls, and counters price a traced graph.
All three read the same declarations.
"""

from attnscope.ops import (
    attention,
    convolution,
    elementwise,
    matmul,
    movement,
    normalization,
    recurrent,
    reduction,
)
from attnscope.ops.operation import OPERATIONS, Operation, find

__all__ = [
    "OPERATIONS",
    "Operation",
    "attention",
    "convolution",
    "elementwise",
    "find",
    "matmul",
    "movement",
    "normalization",
    "recurrent",
    "reduction",
]
