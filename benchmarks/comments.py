"""Figures of shape comments: wrong comments found among those planted in libraries, and comments of the libraries flagged.

    python -m benchmarks.comments [timm] [torchvision] [vit_pytorch] [transformers]

Each network runs on meta. A right comment is changed in the cached source, not on disk: two of its axes are swapped, one
is left out, or one is doubled. The code stays the same, so the comment becomes wrong. At least 95% of the changed comments
that something contradicts must be found, and no other comment may be flagged because of a change. A changed comment that
nothing contradicts is right for some sizes of its names, with which the code and all other comments of the function
agree: `(2*B, C)` for 2×96, if nothing else says B. It cannot be found, and has figures of its own.

The comments that are flagged without a change are listed, to be judged by hand.
"""

import linecache
import random
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.core.axes import Shape
from attnscope.tracing.comments.axes import Axis
from attnscope.tracing.comments.following import CommentCheck
from attnscope.tracing.comments.planning import Watch, watches_in
from attnscope.tracing.run import run_watched
from benchmarks.trace import TIMM, TORCHVISION

ROUNDS = 6
"""Comments of one function are changed in different runs, so that the others bind the names."""
MORE_TIMM = """
    nest_tiny csatv2 crossvit_9_240 volo_d1_224

    inception_v4 naflexvit_base_patch16_gap lambda_resnet26t botnet26t_256

    halonet26t tiny_vit_5m_224 mobilenetv4_hybrid_medium samvit_base_patch16

    vit_small_patch16_rope_mixed_224 coatnet_0_rw_224 vit_small_patch16_dinov3_qkvb vit_relpos_small_patch16_224

    mambaout_femto efficientvim_m1
""".split()  # noqa: SIM905
VIT_PYTORCH = """
    vit simple_vit deepvit simple_vit_with_qk_norm parallel_vit vit_with_patch_merger vit_for_small_dataset rvt

    vit_nd_rotary vit_nd_pope attn_residual_with_dca_simple_vit normalized_vit
""".split()  # noqa: SIM905
TRANSFORMERS = """
    ViT Beit Dinov2 Swin Swinv2 Pvt Segformer ConvNext

    MobileViT MobileViTV2 Levit GLPN Swin2SR PoolFormer Falcon Bloom

    StableLm DeformableDetr RTDetr VideoMAE Mask2Former SamVision PatchTST PatchTSMixer

    DistilBert XLNet
""".split()  # noqa: SIM905
NOTHING = "nothing"
CODE = 1000
"""More than the number of comments of a function."""
Place = tuple[str, int]
Inputs = tuple[Any, ...]
Network = Callable[[], tuple[nn.Module, Inputs]]


@dataclass(frozen=True)
class Right:
    """A right comment, and its shape in one call."""

    watch: Watch
    axes: tuple[Axis, ...]
    shape: Shape


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    libraries = {"timm": timm, "torchvision": torchvision, "vit_pytorch": vit_pytorch, "transformers": transformers}
    random.seed(0)
    for library in [name for name in sys.argv[1:] if name in libraries] or [
        name for name in libraries if find_spec(name)
    ]:
        figures(library, dict(libraries[library]()))


def figures(library: str, networks: dict[str, Network]) -> None:
    """Print the figures of one library."""
    flagged: dict[Place, str] = {}
    seen: set[Place] = set()
    planted: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    others: set[Place] = set()
    for name, network in networks.items():
        try:
            with torch.device("meta"):
                module, inputs = network()
            check = checked(module.eval(), inputs)
        except Exception as error:
            print(f"{name}: not traced: {type(error).__name__}")
            continue
        for place, wrong in check.wrong.items():
            flagged.setdefault(
                place, f"{name} {place[0]}:{place[1]} # {wrong.comment} | {wrong.says}, shape {wrong.made}"
            )
        right = {place: one for place, one in right_comments(check).items() if place not in seen}
        seen |= check.checked
        for kind in (swapped, left_out, doubled):
            for turn in range(ROUNDS):
                changes = {place: text for place in sorted(right)[turn::ROUNDS] if (text := kind(right[place]))}
                if not changes:
                    continue
                after = with_comments(changes, module, inputs)
                others |= after.wrong.keys() - changes.keys() - check.wrong.keys()
                for place in changes:
                    group = kind.__name__, contradicted_by(place, after)
                    planted[group] += 1
                    found[group] += place in after.wrong
                    if place not in after.wrong and "-v" in sys.argv:
                        print("missed", group, place, changes[place], right[place].shape)
    print(f"{library}: {len(seen)} comments checked, {len(flagged)} flagged")
    for line in flagged.values():
        print("   ", line)
    for group in sorted(planted):
        print(f"    {group[0]}, contradicted by {group[1]}: {found[group]} of {planted[group]} found")
    known = [sum(count for (_, by), count in counts.items() if by != NOTHING) for counts in (found, planted)]
    print(f"    all that something contradicts: {known[0]} of {known[1]}")
    print(f"    right comments flagged because of them: {sorted(others)}")


def checked(module: nn.Module, inputs: Inputs) -> CommentCheck:
    return run_watched(torch.device("meta"), None, module, lambda device: (inputs, {})).comments


def right_comments(check: CommentCheck) -> dict[Place, Right]:
    """Return the comments that fit in every call, without those that allow alternatives."""
    right: dict[Place, Right] = {}
    for seen in check.judged:
        for watch, each in seen:
            place = (watch.file, watch.comment_line)
            if (
                watch.is_evidence
                or place in check.wrong
                or len(each.options) > 1
                or watch.position
                or not each.fits({})
            ):
                continue
            axes = each.options[0]
            fitting = [shape for shape in each.shapes if replace(each, shapes=(shape,)).fits({})]
            if not any(axis.is_ellipsis for axis in axes) and fitting and watch.names:
                right[place] = Right(watch, axes, fitting[-1])
    return right


def contradicted_by(place: Place, check: CommentCheck) -> str:
    """Return what contradicts a changed comment in some call of its function."""
    others = [
        sum(all(not other.fits(sizes) for sizes in fitting) for watch, other in seen if watch is not changed)
        if (fitting := each.fits({}))
        else CODE
        for seen in check.judged
        for changed, each in seen
        if place == (changed.file, changed.comment_line) and not changed.is_evidence
    ]
    most = max(others, default=CODE)
    return "the code" if most >= CODE else ("several comments" if most > 1 else ("one comment" if most else NOTHING))


def with_comments(changes: dict[Place, str], module: nn.Module, inputs: Inputs) -> CommentCheck:
    """Return the check of a network if comments are changed in the cached source."""
    before = {file: linecache.getlines(file) for file, _ in changes}
    try:
        for file, lines in before.items():
            changed = list(lines)
            for (other, line), text in changes.items():
                if other == file:
                    changed[line - 1] = re.sub("#.*", lambda _, text=text: f"# {text}", changed[line - 1], count=1)
            linecache.cache[file] = (sum(map(len, changed)), None, changed, file)
        watches_in.cache_clear()
        return checked(module, inputs)
    finally:
        linecache.clearcache()
        watches_in.cache_clear()


def swapped(right: Right) -> str | None:
    """Return the comment with two axes of different sizes in each other's place."""
    pairs = [
        (a, b)
        for a in range(len(right.shape))
        for b in range(a)
        if right.shape[a] != right.shape[b] and right.axes[a].tree is not None and right.axes[b].tree is not None
    ]
    if not pairs:
        return None
    a, b = random.choice(pairs)
    texts = [axis.text for axis in right.axes]
    texts[a], texts[b] = texts[b], texts[a]
    return rewritten(right, texts)


def left_out(right: Right) -> str | None:
    """Return the comment without one axis."""
    texts = [axis.text for axis in right.axes]
    places = [
        place
        for place in range(len(texts))
        if any(
            axis.names for other, axis in enumerate(right.axes) if other != place
        )  # numbers alone may leave out the batch
    ]
    return rewritten(right, texts, without=random.choice(places)) if len(texts) > 2 and places else None


def doubled(right: Right) -> str | None:
    """Return the comment with one axis of a name twice as large."""
    places = [place for place, axis in enumerate(right.axes) if axis.is_name and right.shape[place]]
    if not places:
        return None
    place = random.choice(places)
    texts = [axis.text for axis in right.axes]
    texts[place] = f"2*{texts[place]}"
    return rewritten(right, texts)


def rewritten(right: Right, texts: list[str], without: int | None = None) -> str | None:
    """Return the comment with other texts of its axes, and the same words and separators."""
    separated = r"(\s*[,x×]\s*|\s+)".join(f"({re.escape(axis.text)})" for axis in right.axes)
    matches = list(re.finditer(separated, right.watch.comment))
    if not matches:
        return None
    last = matches[-1]
    parts = list(last.groups())
    parts[::2] = texts
    if without is not None:
        del parts[2 * without : 2 * without + 2]
        parts = parts[:-1] if len(parts) % 2 == 0 else parts
    return right.watch.comment[: last.start()] + "".join(parts) + right.watch.comment[last.end() :]


def image(size: int = 224, *more: int) -> Tensor:
    return torch.empty(*(more or (2,)), 3, size, size)


def timm() -> Iterator[tuple[str, Network]]:
    import timm

    def network(name: str) -> tuple[nn.Module, Inputs]:
        model = timm.create_model(name)
        return model, (torch.empty(2, *model.pretrained_cfg.get("input_size", (3, 224, 224))),)

    for name in dict.fromkeys((*TIMM, *MORE_TIMM)):
        yield name, lambda name=name: network(name)


def torchvision() -> Iterator[tuple[str, Network]]:
    from torchvision import models

    for name in (*TORCHVISION, "googlenet", "inception_v3"):
        size = 299 if name == "inception_v3" else 224
        yield name, lambda name=name, size=size: (models.get_model(name), (image(size),))
    for name in ("mvit_v1_b", "mvit_v2_s", "swin3d_t"):
        yield name, lambda name=name: (models.get_model(name), (torch.empty(1, 3, 16, 224, 224),))
    yield "raft_small", lambda: (models.optical_flow.raft_small(), (image(128), image(128)))


def vit_pytorch() -> Iterator[tuple[str, Network]]:
    from importlib import import_module
    from inspect import isclass, signature

    sizes = {"image_size": 64, "patch_size": 16, "num_classes": 10, "dim": 64, "depth": 2, "heads": 4, "mlp_dim": 128}

    def network(name: str) -> tuple[nn.Module, Inputs]:
        file = import_module(f"vit_pytorch.{name}")
        classes = [each for each in vars(file).values() if isclass(each) and each.__module__ == file.__name__]
        whole = [each for each in classes if "num_classes" in signature(each).parameters][-1]
        taken = signature(whole).parameters
        arguments = {key: value for key, value in sizes.items() if key in taken}
        if "ndim" in taken:
            arguments |= {"ndim": 3, "input_shape": (8, 32, 32), "patch_size": (2, 8, 8)}
            return whole(**arguments), (torch.empty(1, 3, 8, 32, 32),)
        return whole(**arguments), (image(64),)

    for name in VIT_PYTORCH:
        yield name, lambda name=name: network(name)


def transformers() -> Iterator[tuple[str, Network]]:
    import transformers

    texts = {"Falcon", "Bloom", "StableLm", "DistilBert", "XLNet"}
    inputs = {"VideoMAE": (1, 16, 3, 224, 224), "SamVision": (1, 3, 1024, 1024), "PatchTST": (2, 64, 3)}

    def network(name: str) -> tuple[nn.Module, Inputs]:
        settings = {"context_length": 64, "num_input_channels": 3} if name.startswith("PatchTS") else {}
        config = getattr(transformers, f"{name}Config")(**settings)
        for key in ("num_hidden_layers", "n_layers"):
            if name in texts and hasattr(config, key):
                setattr(config, key, 2)
        module = getattr(transformers, f"{name}Model")(config)
        if name in texts:
            return module, (torch.ones(2, 16, dtype=torch.long),)
        return module, (torch.empty(inputs.get(name, inputs["PatchTST"] if settings else (1, 3, 224, 224))),)

    for name in TRANSFORMERS:
        yield name, lambda name=name: network(name)


if __name__ == "__main__":
    main()
