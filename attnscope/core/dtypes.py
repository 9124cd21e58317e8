"""Dtypes by name, without importing torch."""

DTYPE_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}


def dtype_name(dtype: object) -> str:
    """Return the name of a dtype, such as `float32`, from a name or a `torch.dtype`."""
    return str(dtype).removeprefix("torch.")
