"""A folder with files of every kind: what commands expect, what they do not, and what the system refuses."""

import json
from pathlib import Path

from attnscope import ViTSpec, explore
from tests.fuzz.lines import Place

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.GELU())

    def forward(self, x):
        return self.layers(x)


class Raises(nn.Module):
    def forward(self, x):
        raise ValueError("two\\nlines \\x1b]0;title\\x07")


def build():
    return nn.MultiheadAttention(8, 2, batch_first=True)


NUMBER = 3
"""
CONFIG = "dim = 96\nheads = 3\ntokens = 50\n"


def place(folder: Path) -> Place:
    """Write the files into a folder."""
    run = explore(ViTSpec(dim=12, heads=3, tokens=5), time=False).to_json()
    written = {
        "run.json": run,
        "other.json": json.dumps({**json.loads(run), "title": "other"}),
        "list.json": "[]",
        "cut.json": run[: len(run) // 2],
        "empty": "",
        "config.toml": CONFIG,
        "wrong.toml": "dim = [1\n",
        "net.py": NETS,
        "broken.py": "def f(:\n",
        "raises.py": "raise RuntimeError('at import')\n",
    }
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "folder").mkdir()
    (folder / "link.json").symlink_to("link.json")  # to itself
    paths = (
        "missing",
        "no/such/folder/x.json",
        "folder",
        "folder/x.svg",
        "/dev/null",
        "/dev/full",
        f"{'a' * 300}.json",
    )
    files = (
        *written,
        "binary",
        "link.json",
        *paths,
        "x.txt",
        "x.csv",
        "x.md",
        "x.svg",
        "x.json",
        "x.pdf",
        "x.mmd",
        ".",
        "~",
    )
    names = ("Net", "Raises", "build", "NUMBER", "Missing", "")
    targets = (
        *(f"net.py:{name}" for name in names),
        "broken.py:Net",
        "raises.py:Net",
        "net.py",
        "torch.nn:GELU",
        *files,
    )
    return Place(folder, files, (*targets, "timm:vit_tiny_patch16_224", "timm:x", "hf:vit", "json:loads"))
