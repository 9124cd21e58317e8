"""The docstrings of public names: each has an example that runs, and speaks of every argument."""

import doctest
import inspect
import re

import pytest

import attnscope

FUNCTIONS = [name for name in attnscope.__all__ if inspect.isfunction(getattr(attnscope, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_has_an_example_that_runs(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(attnscope, name), name, globs={})
    assert test.examples
    failed, _ = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test)
    assert failed == 0


CALLED = {name: getattr(attnscope, name) for name in attnscope.__all__} | {
    f"attentions.{name}": getattr(attnscope.attentions, name) for name in attnscope.attentions.__all__
}
"""All public names; those that are called with arguments are functions and modules."""


@pytest.mark.parametrize(
    "name", [name for name, of in CALLED.items() if inspect.isfunction(of) or hasattr(of, "forward")]
)
def test_a_docstring_speaks_of_every_argument(name):
    docstring = inspect.getdoc(CALLED[name]) or ""
    assert [
        each for each in inspect.signature(CALLED[name]).parameters if not re.search(rf"\b{each}\b", docstring)
    ] == []
