"""The analyses, each in one function: explore, compare, look_at_windows, diff."""
