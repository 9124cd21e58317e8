"""What was found, as plain data in base units, with saving and loading."""
