"""Steps of Video Swin's attention: those of Swin, along one more axis.

Axis letters are those of `attnscope.attentions.swin.steps`. In addition:

- z y x volume of tokens without padding; o r s windows in time, down and across.
- l p q frames, height and width of a window, clipped to the volume.
- n query tokens and m key tokens of a window, both l·p·q.
- v t u rows of the bias table in time, down and across, for the window that is not clipped.
"""

from dataclasses import replace

from attnscope.attentions import steps as shared
from attnscope.attentions.heads import letters
from attnscope.attentions.swin import steps as swin
from attnscope.attentions.swin3d.spec import Swin3DSpec
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step

VOLUME = {"y": "z y", "(r p)": "(o l) (r p)", "r": "o r", "p": "l p", "t": "v t"}
"""Replacement of letters in the steps of an image."""
DOCS = {
    "pad": "pad the end of each axis with zeros to a multiple of the window",
    "shift": "roll the volume back in time, up and to the left, so that windows cross the previous layer's borders",
    "partition": "partition the volume into windows of several frames, each a short sequence",
    "reverse": "merge the windows into the volume: the inverse of partition",
    "unshift": "roll the volume back: the inverse of shift",
}
"""Meaning of the steps that differ from those of an image."""


def plan(spec: Swin3DSpec) -> Plan:
    """Return the steps that this Spec runs, in order; padding, shift and mask only if the volume needs them."""
    grid = spec.windows
    (o, r, s), (frames, p, q), (z, y, x) = grid.counts, grid.window, grid.sides
    v, t, u = (2 * side - 1 for side in spec.window)
    n = grid.keys
    sizes = {
        "b": spec.batch,
        "z": z,
        "y": y,
        "x": x,
        "o": o,
        "r": r,
        "s": s,
        "l": frames,
        "p": p,
        "q": q,
        "n": n,
        "m": n,
    }
    sizes |= {"v": v, "t": t, "u": u, **letters(spec.dim, spec.heads, None)}
    steps = [in_volume(step) for step in swin.steps_of(spec)]
    return Plan.of(steps, sizes, spec.itemsize, holds=shared.HELD)


def in_volume(step: Step) -> Step:
    """Return a step of attention in windows of an image for those of a volume."""
    doc, why = DOCS.get(step.name, step.doc), step.why.replace("the image", "the video").replace("grid", "volume")
    return replace(step.spelled(**VOLUME), doc=doc, why=why)
