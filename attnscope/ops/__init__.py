"""The registry of operations: what each costs, reads, writes, saves and leaves for the backward."""
