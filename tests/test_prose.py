"""The prose linter's reading of Python files: every sentence, at the line where it begins."""

from tests.prose.source import prose

SOURCE = '''"""A module.

Its second paragraph is
on two lines.
"""
# A comment that is
# one sentence.
name = "plain"
message = f"the {name} must be an integer"


def test_sums_are_exact():
    """Return a sum.

    Args:
        x: the first number.
    """
'''


def test_every_sentence_is_at_its_line(tmp_path):
    path = tmp_path / "source.py"
    path.write_text(SOURCE, encoding="utf-8")
    lines = dict(enumerate(prose(path).splitlines(), start=1))
    assert lines[1] == "- A module."
    assert lines[3] == "- Its second paragraph is on two lines."
    assert lines[6] == "- A comment that is one sentence."
    assert lines[8] == ""  # a name is not a sentence
    assert lines[9] == "- the `x` must be an integer"
    assert lines[12] == "- sums are exact."
    assert lines[13] == "- Return a sum."
    assert lines[16] == "- `x`: the first number."


def test_a_paragraph_of_markdown_is_one_line(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("# Title\n\nOne sentence\non two lines.\n\n    code stays\n    as it is\n", encoding="utf-8")
    assert prose(path).splitlines() == [
        "# Title",
        "",
        "One sentence on two lines.",
        "",
        "",
        "    code stays",
        "    as it is",
    ]
