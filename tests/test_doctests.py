"""The examples in the docstrings of public names run, and every public function has one."""

import doctest
import inspect

import pytest

import attnscope

FUNCTIONS = [name for name in attnscope.__all__ if inspect.isfunction(getattr(attnscope, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_has_an_example_that_runs(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(attnscope, name), name, globs={})
    assert test.examples
    failed, _ = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test)
    assert failed == 0
