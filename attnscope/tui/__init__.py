"""The live explorer in the terminal: keys change a draft, and panes show its report."""
