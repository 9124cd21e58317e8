"""Dtypes by name, without importing torch."""

DTYPE_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
SYNONYMS = {
    "half": "float16",
    "fp16": "float16",
    "bf16": "bfloat16",
    "float": "float32",
    "single": "float32",
    "fp32": "float32",
    "double": "float64",
    "fp64": "float64",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    "char": "int8",
    "byte": "uint8",
    "cfloat": "complex64",
}
"""Other words for dtypes, which errors suggest the names for."""


def dtype_name(dtype: object) -> str:
    """Return the name of a dtype, such as `float32`, from a name or a `torch.dtype`."""
    return str(dtype).removeprefix("torch.")
