"""Rates of links between devices and of devices, from their data sheets: `50GB/s,5us` and `60TFLOPS,2TB/s`."""

import re
from dataclasses import dataclass

from attnscope.core.errors import UsageError, did_you_mean, quoted

PREFIXES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Link:
    """A link between ranks.

    Args:
        name: its name, or the text of the flag.
        bytes_per_s: bytes that one rank can send in a second.
        latency_s: seconds of a message in addition; data sheets of the presets do not give it.
        source: where the rate comes from.
    """

    name: str
    bytes_per_s: float
    latency_s: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class Device:
    """The peak rates of a device.

    Args:
        name: its name, or the text of the flag.
        flops_per_s: FLOPs per second of matmuls.
        bytes_per_s: bytes of memory traffic per second.
        source: where the rates come from.
    """

    name: str
    flops_per_s: float
    bytes_per_s: float
    source: str = ""


LINKS = {
    each.name: each
    for each in (
        Link("nvlink3", 300e9, source="NVIDIA A100 data sheet: 600 GB/s in both directions"),
        Link("nvlink4", 450e9, source="NVIDIA H100 data sheet: 900 GB/s in both directions"),
        Link("nvlink5", 900e9, source="NVIDIA B200 data sheet: 1.8 TB/s in both directions"),
        Link("pcie4", 31.5e9, source="PCI Express 4.0: 16 GT/s × 16 lanes, 128b/130b"),
        Link("pcie5", 63.0e9, source="PCI Express 5.0: 32 GT/s × 16 lanes, 128b/130b"),
        Link("ethernet10", 1.25e9, source="IEEE 802.3ae: 10 Gbit/s"),
        Link("ethernet100", 12.5e9, source="IEEE 802.3ba: 100 Gbit/s"),
        Link("ethernet400", 50e9, source="IEEE 802.3bs: 400 Gbit/s"),
    )
}
"""Links by their names in `--link`, with the bytes of one direction."""

FLOAT32, HALF = ("float32",), ("float16", "bfloat16")
DEVICES: dict[str, dict[tuple[str, ...], Device]] = {
    "a100": {
        FLOAT32: Device("a100", 19.5e12, 2.039e12, "NVIDIA A100 80GB SXM data sheet, FP32"),
        HALF: Device("a100", 312e12, 2.039e12, "NVIDIA A100 80GB SXM data sheet, BF16 without sparsity"),
    },
    "h100": {
        FLOAT32: Device("h100", 67e12, 3.35e12, "NVIDIA H100 SXM data sheet, FP32"),
        HALF: Device("h100", 989.5e12, 3.35e12, "NVIDIA H100 SXM data sheet, BF16 without sparsity"),
    },
}
"""Devices by their names in `--peak`, each with its rates by dtype."""


def parse_link(text: str) -> Link:
    """Parse `50GB/s`, `50GB/s,5us`, `nvlink4` or `nvlink4,5us`.

    Raises:
        UsageError: the name is unknown, or a rate or a time has another form.
    """
    rate, _, latency = text.partition(",")
    if rate in LINKS:
        name, per_s, source = rate, LINKS[rate].bytes_per_s, LINKS[rate].source
    else:
        found = _rate(rate, "B/s")
        if found is None:
            fix = did_you_mean(rate, LINKS) if rate.isalnum() and not rate[:1].isdigit() else "such as 50GB/s,5us"
            raise UsageError(f"{{link}} must be a rate and a latency, or a name (got {quoted(text)}); {fix}")
        name, per_s, source = text, found, "given"
    seconds = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|ms|us|µs|ns)", latency.strip()) if latency else None
    if latency and seconds is None:
        raise UsageError(f"{{link}} must have a latency such as 5us after the comma (got {quoted(latency)})")
    return Link(name, per_s, float(seconds[1]) * SECONDS[seconds[2]] if seconds else 0.0, source)


def parse_device(text: str, dtype: str) -> Device:
    """Parse `60TFLOPS,2TB/s` or `h100`, whose rate depends on the dtype.

    Raises:
        UsageError: the name is unknown, it has no rate for the dtype, or a rate has another form.
    """
    if text in DEVICES:
        found = next((device for dtypes, device in DEVICES[text].items() if dtype in dtypes), None)
        if found is None:
            raise UsageError(f"{{peak}} {text} has no rate for {{dtype}} {dtype}; give one, such as 60TFLOPS,2TB/s")
        return found
    compute, _, memory = text.partition(",")
    flops, per_s = _rate(compute, "FLOPS"), _rate(memory.strip(), "B/s")
    if flops is None or per_s is None:
        fix = did_you_mean(text, DEVICES) if text.isalnum() and not text[:1].isdigit() else "such as 60TFLOPS,2TB/s"
        raise UsageError(f"{{peak}} must be FLOPS and a memory bandwidth, or a name (got {quoted(text)}); {fix}")
    return Device(text, flops, per_s, "given")


def spell_link(link: Link) -> str:
    """Return the text that `parse_link` parses to a link: its name, or its rates if the name is not known."""
    latency = f",{link.latency_s * 1e6:g}us" if link.latency_s and link.name in LINKS else ""
    text = f"{link.name}{latency}"
    try:
        known = parse_link(text)
    except UsageError:
        known = None
    return text if known == link else f"{link.bytes_per_s:.0f}B/s,{link.latency_s * 1e9:.0f}ns"


def spell_device(device: Device, dtype: str) -> str:
    """Return the text that `parse_device` parses to a device: its name, or its rates if the name is not known."""
    try:
        known = parse_device(device.name, dtype)
    except UsageError:
        known = None
    return device.name if known == device else f"{device.flops_per_s:.0f}FLOPS,{device.bytes_per_s:.0f}B/s"


def usual_device(dtype: str) -> str:
    """Return the text of a device that has a rate for a dtype."""
    return "h100" if any(dtype in dtypes for dtypes in DEVICES["h100"]) else "60TFLOPS,2TB/s"


def _rate(text: str, unit: str) -> float | None:
    """Return a positive rate such as `50GB/s`; None for a text of another form."""
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*([kMGTP]?){re.escape(unit)}", text.strip())
    rate = float(found[1]) * PREFIXES[found[2]] if found and len(text) < 40 else 0.0
    return rate or None
