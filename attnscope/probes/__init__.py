"""What one run of a module can tell: its shapes, its counts, its time. One file each."""
