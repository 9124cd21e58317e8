"""Foundations that every subpackage may import: axis letters, sizes, optional arithmetic and errors."""
