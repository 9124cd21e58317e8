"""Recurrent layers."""

from typing import Any

from attnscope.ops.operation import Arguments, register


def _lstm_layer(arguments: Arguments, out: Any) -> int:
    steps_and_batch = out[0].numel() // out[0].shape[-1]
    return steps_and_batch * (arguments[1].numel() + arguments[2].numel())


register("mkldnn_rnn_layer", macs=_lstm_layer)
