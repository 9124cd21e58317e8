"""Attention of the queries of one rank to the keys of all ranks, which travel around a ring (Liu et al., arXiv 2310.01889).

The softmax is computed block by block (Milakov and Gimelshein, arXiv 1805.02867). Autograd keeps all blocks, and sends
the gradients of keys and values around the ring in the other direction.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from attnscope.plan.mesh import Shards
from attnscope.sharding.moves import Ranks, padded, passed_on

KEYS = 2
"""The axis of tokens in keys and values, (b, h, m, d)."""


def ring_attention(
    q: Tensor, k: Tensor, v: Tensor, shards: Shards, ranks: Ranks, score: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return the output of each head for the queries of this rank, (b, h, n, d).

    Args:
        q: the queries of this rank, (b, h, n, d).
        k, v: its keys and values, (b, h, m, d).
        shards: the number of tokens of each rank.
        ranks: the ranks.
        score: computes scaled products of queries and keys.
    """
    k, v = (padded(each, KEYS, max(shards)) for each in (k, v))
    found: tuple[Tensor, Tensor, Tensor] | None = None
    for turn in range(ranks.count):
        size = shards[(ranks.own - turn) % ranks.count]
        found = with_block(found, score(q, k.narrow(KEYS, 0, size)), v.narrow(KEYS, 0, size))
        if turn < ranks.count - 1:
            k, v = passed_on(k, ranks), passed_on(v, ranks)
    assert found is not None
    mixed, total, _ = found
    return mixed / total


def with_block(
    before: tuple[Tensor, Tensor, Tensor] | None, scores: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weighted sum of values, the sum of weights and the largest score so far, with one more block of keys.

    Args:
        before: the same without the block; None for the first one.
        scores: scores of the block, (b, h, n, m).
        v: values of the block, (b, h, m, d).
    """
    most = scores.detach().amax(-1, keepdim=True)
    if before is not None:
        most = torch.maximum(before[2], most)
    weights = (scores - most).exp()
    mixed, total = weights @ v, weights.sum(-1, keepdim=True)
    if before is None:
        return mixed, total, most
    factor = (before[2] - most).exp()
    return before[0] * factor + mixed, before[1] * factor + total, most
