"""Recurrent layers."""

from typing import Any

from attnscope.ops.elementwise import ACTIVATIONS
from attnscope.ops.operation import Arguments, register

GATES = 4
HAS_BIASES_AT = 12
"""The index of `has_biases` among the arguments of oneDNN's layer."""


def _lstm_macs(arguments: Arguments, out: Any) -> int:
    """Count the products of each input and each hidden state with the weights of all gates."""
    steps_and_batch = out[0].numel() // out[0].shape[-1]
    return steps_and_batch * (arguments[1].numel() + arguments[2].numel())


def _lstm_flops(arguments: Arguments, out: Any) -> int:
    """Count the FLOPs that the unfused layer has: c' = σ(f)·c + σ(i)·tanh(g) and h' = σ(o)·tanh(c').

    Each gate is the sum of two matrix products, each with its bias if the layer has biases.
    """
    gates = GATES * (1 + 2 * bool(arguments[HAS_BIASES_AT]))
    functions = 3 * ACTIVATIONS["sigmoid"] + 2 * ACTIVATIONS["tanh"]
    return out[0].numel() * (gates + functions + 4)  # three products and a sum


register("mkldnn_rnn_layer", macs=_lstm_macs, flops=_lstm_flops)
