"""Edits of saved runs and config files: keys left out, values of other types, numbers that are huge or none."""

import json
import random
from typing import Any

VALUES = (None, True, -1, 0, 1.5, 10**30, float("nan"), float("inf"), "", "x", "\x1b[2J", [], [1], {}, {"a": 1})
CONFIG_VALUES = (
    "1",
    "0",
    "-5",
    "1.5",
    "nan",
    "inf",
    "true",
    '"x"',
    '""',
    '"7x7"',
    "[1, 2]",
    "[]",
    "{ a = 1 }",
    "1979-05-27",
)
CONFIG_KEYS = (
    "dim",
    "heads",
    "tokens",
    "kv-heads",
    "kv_heads",
    "window",
    "output",
    "format",
    "budget",
    "time",
    "x",
    "dtype",
)


def edited_run(rng: random.Random, text: str) -> str:
    """Return a saved run with one to three random edits; one in ten is also cut or has other characters."""
    data = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        _edit(rng, data)
    changed = json.dumps(data)
    if rng.random() < 0.1:
        at = rng.randrange(len(changed))
        changed = rng.choice((changed[:at], f"{changed[:at]}\x00{changed[at:]}", f"{changed[:at]}{changed[at + 1 :]}"))
    return changed


def config(rng: random.Random) -> str:
    """Return a random config file."""
    lines = [f"{rng.choice(CONFIG_KEYS)} = {rng.choice(CONFIG_VALUES)}" for _ in range(rng.randint(1, 3))]
    return "\n".join(([f"[{rng.choice(('vit', 'a.b', ''))}]"] if rng.random() < 0.1 else []) + lines) + "\n"


def _edit(rng: random.Random, data: Any) -> None:
    """Change one entry at a random depth."""
    while True:
        keys: Any = list(data) if isinstance(data, dict) else range(len(data))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(data[key], dict | list) and data[key] and rng.random() < 0.8:
            data = data[key]
            continue
        if rng.random() < 0.3:
            del data[key]
        else:
            data[key] = rng.choice(VALUES)
        return
