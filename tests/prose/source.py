"""The prose of a file as Markdown: each paragraph is one line, at the line number of its first line in the source."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

SENTENCE = re.compile(r"[A-Za-z]{2,},? [a-z]{2,}")
"""Two words next to each other; strings without them are names, formulas and formats."""

BLOCK = re.compile(r"([-*+>|#]|\d+\. |    |```)")
"""The beginning of a line that starts a block of Markdown of its own."""

ENTRY = re.compile(r"([\w*][\w*, ]*): (?=\S)")
"""The beginning of an entry of `Args:`."""

TEST_NAME = re.compile(r"test_(\w+)")
MARKUP = re.compile(r"\s*<\w+[ >]")
"""The beginning of HTML or SVG."""

VALUE = "`x`"


def prose(path: Path) -> str:
    """Return the prose of a Markdown file, or the comments, strings and test names of a Python file.

    Raises:
        SyntaxError: if a Python file cannot be parsed.
    """
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return "\n".join(_unfolded(source.splitlines())) + "\n"
    lines = [""] * (source.count("\n") + 1)
    for number, text in [*_comments(source), *_strings(source)]:
        for offset, paragraph in enumerate(
            _unfolded([ENTRY.sub(r"- `\1`: ", line.strip()) for line in text.splitlines()])
        ):
            if paragraph:
                before = lines[number - 1 + offset]
                lines[number - 1 + offset] = f"{before}. {paragraph}" if before else f"- {paragraph.lstrip('- ')}"
    return "\n".join(lines) + "\n"


def _unfolded(lines: list[str]) -> list[str]:
    """Return as many lines, each paragraph on its first line."""
    unfolded: list[str] = []
    start: int | None = None
    fenced = False
    for line in lines:
        fenced ^= line.startswith("```")
        if start is not None and line and not fenced and not BLOCK.match(line):
            unfolded[start] += f" {line.strip()}"
            unfolded.append("")
            continue
        unfolded.append(line)
        start = None if fenced or not line or line.startswith(("    ", "#", "|", "```")) else len(unfolded) - 1
    return unfolded


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the first line number and the text of each comment, of adjacent lines as one."""
    block, last = "", -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1:
            if SENTENCE.search(block):
                yield last - block.count("\n"), block
            block = ""
        block += ("\n" if block else "") + token.string.lstrip("#: ")
        last = token.start[0]
    if SENTENCE.search(block):
        yield last - block.count("\n"), block


def _strings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the first line number and the text of each string that is a sentence, and of each test's name."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.FunctionDef) and (name := TEST_NAME.fullmatch(node.name)):
            text = f"{name[1].replace('_', ' ')}."
        elif isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            text = "" if MARKUP.match(node.value) else node.value
        if SENTENCE.search(text):
            yield node.lineno, text
