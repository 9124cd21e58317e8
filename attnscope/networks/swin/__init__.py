"""Swin and Swin V2: patches, stages of blocks with windowed attention, merging between them."""
