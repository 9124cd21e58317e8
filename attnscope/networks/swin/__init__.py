"""Swin and Swin V2: patch embedding, stages of blocks with windowed attention, patch merging between stages."""
