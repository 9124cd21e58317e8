"""Mutation testing: change the code in one place and check if a test fails.

`python -m tests.mutation [FILES…] [--sample N] [--seed S]` prints the score of each file and lists the mutants that no test
killed. See docs/mutation.md for the last scores.

mutmut 3 and cosmic-ray do not fit. mutmut only changes function bodies, so it tests neither thresholds nor declarations
at the top level of a module. It also skips decorated functions. cosmic-ray starts Python and torch for each mutant.
"""
