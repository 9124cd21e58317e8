"""Build, run, time and verify a module: hooks, clocks, timing, noise, peaks, memory, verification."""
