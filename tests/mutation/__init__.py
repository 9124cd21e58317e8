"""Mutation testing: change the code in one place, and see whether a test fails.

`python -m tests.mutation [FILES…] [--sample N] [--seed S]` prints the score of each file and lists the mutants that no test
noticed. See CONTRIBUTING.md for the last scores.

mutmut 3 and cosmic-ray were tried first. mutmut changes function bodies alone, so that no threshold and no declaration at
the top of a module is tested, and it skips decorated functions; cosmic-ray starts Python and torch for each mutant.
"""
