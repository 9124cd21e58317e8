"""Random command lines, saved runs and config files: each ends with a result or a line, never with a traceback.

`python -m tests.fuzz [--lines N] [--files N] [--seed S]` prints each fault.
"""
