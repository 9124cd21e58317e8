"""XCiT: blocks of cross-covariance attention, then blocks of class attention."""
