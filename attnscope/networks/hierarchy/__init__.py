"""The parts that hierarchical networks share: stages of blocks on ever coarser grids."""
