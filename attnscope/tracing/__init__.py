"""Trace third-party modules: find them, isolate them, run them, recognize attention, and report."""
