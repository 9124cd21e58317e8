"""Letters, sizes, optional arithmetic and errors: what every room may use."""
