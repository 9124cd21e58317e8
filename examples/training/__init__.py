"""Training of a small ViT and a small Swin on generated images."""
