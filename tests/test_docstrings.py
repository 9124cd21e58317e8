"""Docstrings: those of functions begin with a verb in the imperative, those of classes with a noun."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("attnscope", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py"))

VERBS = frozenset(
    re.findall(
        r"\w+",
        """
    Accept Add Allocate Answer Append Apply Arrange Assemble Ask Assign Attend Average Begin Bind Bisect Break Build
    Calculate Call Cast Change Check Choose Classify Clear Clip Close Collect Combine Compare Compile Complete Compute
    Concatenate Construct Continue Convert Convolve Copy Count Create Crop Cut Declare Decode Decorate Define Delete
    Derive Describe Detach Detect Determine Disable Discard Display Divide Draw Drop Embed Enable End Ensure Enter
    Enumerate Estimate Evaluate Execute Exit Expand Explain Explore Export Express Extend Extract Fail Fill Filter Find
    Fit Flatten Fold Follow Format Gather Generate Get Give Go Group Guard Hand Handle Hash Hide Hold Identify Ignore
    Import Include Infer Initialize Insert Install Interpolate Inspect Invert Iterate Join Keep Label Launch Leave Limit
    List Load Locate Look Make Map Mark Mask Match Measure Merge Mix Move Multiply Name Normalize Note Obtain Offer Omit
    Open Order Outline Override Pad Parse Partition Pass Permute Pick Pin Place Plan Plot Predict Prepare Price Print
    Process Produce Profile Project Propagate Provide Pull Push Put Quit Raise Read Recognize Record Recover Reduce
    Refuse Register Release Remove Rename Render Repeat Replace Report Request Require Reset Reshape Resize Resolve
    Restore Retain Return Reverse Rewrite Roll Round Run Save Scale Scatter Search Select Send Separate Set Shift Show
    Simplify Skip Sort Split Stack Start State Stop Store Stream Subtract Suggest Sum Summarize Suspend Switch Take Test
    Time Trace Track Train Translate Transpose Traverse Trim Truncate Try Turn Undo Unfold Update Use Validate Verify
    View Visit Wait Walk Warn Watch Weigh Widen Wrap Write Yield Zero
    """,
    )
)
"""The verbs that a docstring may begin with; a new one is added here."""

QUESTIONS = frozenset({"How", "What", "When", "Where", "Whether", "Which", "Who", "Whose", "Why"})


NOUNS = frozenset({"Order", "Place", "Plan", "Profile", "Report", "Shift", "Step", "Test", "Time", "Trace", "View"})
"""Words that are verbs and nouns, which a class's docstring may begin with."""


def definitions(path: Path, kind: type | tuple[type, ...]) -> Iterator[tuple[str, str]]:
    """Yield the place and the first word of each docstring of functions or classes in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, kind) and (docstring := ast.get_docstring(node)):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", docstring.split()[0].rstrip(",.:")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstring_of_a_function_begins_with_a_verb(path):
    assert [
        (place, word) for place, word in definitions(path, (ast.FunctionDef, ast.AsyncFunctionDef)) if word not in VERBS
    ] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstring_of_a_class_begins_with_a_noun(path):
    assert [
        (place, word)
        for place, word in definitions(path, ast.ClassDef)
        if word in VERBS | QUESTIONS and word not in NOUNS
    ] == []
