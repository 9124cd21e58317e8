"""Sharded attentions: the collectives of a plan around the steps of a module, on torch.distributed."""
