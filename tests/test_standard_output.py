"""Stdout has the result of a command alone. What modules, libraries and subprocesses write is on stderr."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

FILE = """
import atexit, ctypes, os, subprocess, sys
from torch import nn

os.write(1, b"NOISE\\n")
atexit.register(print, "NOISE")
atexit.register(os.write, 1, b"NOISE\\n")
early = sys.stdout

class Noisy(nn.Linear):
    def __init__(self, fails=False):
        super().__init__(4, 4)
        self.itself, self.fails = self, fails

    def forward(self, x):
        print("NOISE")
        print("NOISE", file=sys.__stdout__)
        print("NOISE", file=early)
        os.write(1, b"NOISE\\n")
        os.system("echo NOISE")
        subprocess.run([sys.executable, "-c", "print('NOISE')"])
        ctypes.CDLL(None).printf(b"NOISE\\n")
        if self.fails:
            raise ValueError("in the end")
        return super().forward(x)

    def __del__(self):
        print("NOISE")
        os.write(1, b"NOISE\\n")
"""
NOISES = 12
"""Lines that a module which runs once writes."""


def parse(form, text):
    """Return the MACs of a result, or whether it is a page."""
    if form == "json":
        return json.loads(text)["totals"]["macs"]
    return [row["macs"] for row in csv.DictReader(io.StringIO(text))] if form == "csv" else "</html>" in text


@pytest.fixture
def run(tmp_path):
    """Return a function that runs the command in a new process, in the folder of the file."""
    (tmp_path / "noisy.py").write_text(FILE)

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "attnscope", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.skipif(sys.platform != "linux", reason="the library of C has another name")
@pytest.mark.parametrize("form", ["json", "csv", "html", "table", "mermaid"])
def test_what_a_module_writes_is_on_stderr(run, form):
    done = run("trace", "noisy.py:Noisy", "--input", "2,4", "--format", form)
    assert (done.returncode, "NOISE" in done.stdout) == (0, False), done.stderr
    assert done.stderr.count("NOISE") == NOISES
    assert parse(form, done.stdout) == {"json": 32, "csv": ["32", "32"], "html": True}.get(form, False)


@pytest.mark.skipif(sys.platform != "linux", reason="the library of C has another name")
def test_a_timed_or_failing_module_or_contender_writes_to_stderr(run):
    timed = run("trace", "noisy.py:Noisy", "--input", "2,4", "--json", "--time", "--budget", "0.01")
    assert parse("json", timed.stdout) == 32
    assert timed.stderr.count("NOISE") > NOISES
    failed = run("trace", "noisy.py:Noisy", "--arg", "fails=true", "--input", "2,4", "--json")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "in the end" in failed.stderr
    compared = run("compare", "noisy.py:Noisy", "torch.nn:Identity", "--input", "2,4", "--json")
    assert json.loads(compared.stdout)["command"].startswith("attnscope compare")
