"""The registry of operations: what each costs, reads, writes, allocates and saves, and its backward. No torch.

`OPERATIONS` has one declaration for each operator, by its aten name; importing this room declares them all. Plans run
operations on tensors without numbers (`attnscope.ops.tape`), traces price real calls, counters price a traced graph: all of
them read the same declarations.
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
