"""XCiT's block: cross-covariance attention, local patch interaction and an MLP."""
