"""ViT and DeiT: patch embedding, class token, blocks with global attention."""
