"""Twins: stages of locally-grouped and sub-sampled attention, with positions from a depthwise convolution."""
