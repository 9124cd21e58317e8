"""Tests of attention families, a file each: the battery, random Specs, and the reference implementation."""
