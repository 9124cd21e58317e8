"""MaxViT: blocks of an MBConv, block attention and grid attention."""
