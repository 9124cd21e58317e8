"""The questions, a function each: explore, compare, windows, diff."""
