"""PVT v2: stages of blocks with spatial-reduction attention, whose MLPs have a depthwise convolution."""
