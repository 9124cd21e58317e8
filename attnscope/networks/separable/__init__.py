"""MobileViT v2's block: separable attention and an MLP of 1×1 convolutions."""
