"""NAT and DiNAT: stages of blocks with neighbourhood attention, joined by convolutions."""
