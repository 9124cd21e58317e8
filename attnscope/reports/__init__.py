"""Results as plain data in base units, with saving and loading."""
