"""Running a module: building, hooks, clocks, timing, noise, peaks, memory, verification."""
