"""EfficientViT's block: multi-scale linear attention and an MBConv."""
