"""Recurrent layers and cells: LSTM, GRU and RNN, also bidirectional, projected and packed, as one operator each."""

from typing import Any

from attnscope.ops.elementwise import ACTIVATIONS
from attnscope.ops.operation import Arguments, Formula, register

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""Products of the input, and of the hidden state, with a weight matrix."""
UPDATE = {
    # c' = σ(f)·c + σ(i)·tanh(g) and h' = σ(o)·tanh(c')
    "lstm": 3 * ACTIVATIONS["sigmoid"] + 2 * ACTIVATIONS["tanh"] + 4,
    # n = tanh(x + σ(r)·h) and h' = (h − n)·σ(z) + n
    "gru": 2 * ACTIVATIONS["sigmoid"] + ACTIVATIONS["tanh"] + 5,
    "rnn_tanh": ACTIVATIONS["tanh"],
    "rnn_relu": ACTIVATIONS["relu"],
}
"""FLOPs of one element of the hidden state after the products, without the sums of the products and biases."""
HAS_BIASES_AT = 12
"""The index of `has_biases` among the arguments of oneDNN's layer."""


def _element(kind: str, has_biases: bool) -> int:
    """Return the FLOPs of one element of the hidden state; UPDATE has the sum of the products for `n` of a GRU."""
    sums = GATES[kind] - (kind == "gru")
    return sums + 2 * GATES[kind] * has_biases + UPDATE[kind]


def _layer_weights(arguments: Arguments) -> list[Any]:
    """Return the parameters of all layers and directions, which follow the states; a packed batch has sizes before."""
    return list(arguments[3] if isinstance(arguments[3], tuple | list) else arguments[2])


def _tokens(x: Any) -> int:
    """Return the number of steps of all sequences, from (steps, b, c), or (steps, c) if packed."""
    return int(x.numel() // x.shape[-1])


def _layers_macs(arguments: Arguments, out: Any) -> int:
    """Count the products of each step with all weight matrices, those of a projection included."""
    return _tokens(arguments[0]) * sum([weight.numel() for weight in _layer_weights(arguments) if weight.dim() == 2])


def _layers_flops(kind: str) -> Formula:
    def flops(arguments: Arguments, out: Any) -> int:
        weights = _layer_weights(arguments)
        biases = [weight for weight in weights if weight.dim() == 1]
        # a layer has the matrices of the input and of the hidden state, and maybe of the projection, (out, hidden)
        hidden = sum([weight.shape[0] // GATES[kind] for weight in _input_matrices(weights)])
        return _tokens(arguments[0]) * hidden * _element(kind, bool(biases))

    return flops


def _input_matrices(weights: list[Any]) -> list[Any]:
    """Return the first matrix of each layer and direction, which is followed by one or two others and the biases."""
    matrices = [weight for weight in weights if weight.dim() == 2]
    # without a projection, hidden matrices are (gates·hidden, hidden); a projection (out, hidden) makes it three
    gate_rows = weights[0].shape[0]
    is_projected = any(weight.shape[0] != gate_rows for weight in matrices)
    return matrices[:: 3 if is_projected else 2]


def _cell_macs(arguments: Arguments, out: Any) -> int:
    return _tokens(arguments[0]) * (arguments[2].numel() + arguments[3].numel())


def _cell_flops(kind: str) -> Formula:
    def flops(arguments: Arguments, out: Any) -> int:
        hidden = arguments[2].shape[0] // GATES[kind]
        has_biases = len(arguments) > 4 and arguments[4] is not None
        return _tokens(arguments[0]) * hidden * _element(kind, has_biases)

    return flops


def _onednn_macs(arguments: Arguments, out: Any) -> int:
    return _tokens(out[0]) * (arguments[1].numel() + arguments[2].numel())


def _onednn_flops(arguments: Arguments, out: Any) -> int:
    return int(out[0].numel() * _element("lstm", bool(arguments[HAS_BIASES_AT])))


for _kind in GATES:
    register(_kind, macs=_layers_macs, flops=_layers_flops(_kind))
    register(f"{_kind}_cell", macs=_cell_macs, flops=_cell_flops(_kind))
register("mkldnn_rnn_layer", macs=_onednn_macs, flops=_onednn_flops)
