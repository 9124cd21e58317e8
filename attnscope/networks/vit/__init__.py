"""ViT and DeiT: patches, blocks with global attention, a class token."""
