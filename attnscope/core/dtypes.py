"""Dtypes by name. No torch."""

DTYPE_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}


def dtype_name(dtype: object) -> str:
    """`float32`, whether that is the name or torch's own type."""
    return str(dtype).removeprefix("torch.")
