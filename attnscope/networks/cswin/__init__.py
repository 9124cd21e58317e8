"""CSWin: stages of blocks with cross-shaped windows."""
