"""SAM's image encoder, a plain ViT with windows and decomposed relative positions."""
