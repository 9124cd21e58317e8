"""Options of a hierarchical network: stages of blocks, each on a coarser grid than the previous one."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from attnscope.attentions.complexity import MLP_RATIO, Complexity, Term
from attnscope.attentions.heads import Headed
from attnscope.attentions.spec import option, own_fields
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, over_stages, symbol
from attnscope.core.sizes import Ints, Pair, plural
from attnscope.networks.spec import DEEPEST, NetworkSpec
from attnscope.networks.stages import Stage

STRIDE = 4
"""Distance of two tokens of the first stage in pixels."""


@dataclass(frozen=True)
class Group:
    """Blocks of a stage that cost the same: the stage, their attention, and their number.

    `enters` is the embedding dimension that the stage's merging takes, 0 if the group does not begin with a merging.
    """

    stage: Stage
    attention: Headed
    count: int
    enters: int


@dataclass(frozen=True, kw_only=True)
class HierarchySpec(NetworkSpec):
    """Options of a network whose stages have multiples of the first stage's embedding dimension and heads.

    Convolutions make the tokens and merge them, so that a grid with an odd side is padded by one. A subclass gives the
    attention of a block, and the costs of the layers between the blocks.

    Raises:
        UsageError: if a value is out of range or contradicts another one.
    """

    STEM: ClassVar[int] = 7
    """Side of the kernel that makes the first tokens."""
    MERGING: ClassVar[int] = 3
    """Side of the kernel that merges tokens between stages."""
    PER_STAGE: ClassVar[tuple[str, ...]] = ("multiples",)
    """Fields with a number for each stage."""
    patch: ClassVar[Pair] = (STRIDE, STRIDE)  # type: ignore[misc]  # part of the architecture
    pad_image: ClassVar[bool] = True  # type: ignore[misc]

    dim: int = option(64, "Embedding dimension of the first stage.")
    heads: int = option(2, "Number of attention heads of the first stage.")
    multiples: Ints = option((1, 2, 4, 8), "Embedding dimension and heads of each stage, in those of the first one.")
    depths: Ints = option((3, 4, 6, 5), "Number of blocks of each stage.", high=DEEPEST)
    stage: int | None = option(
        None, "Stage to explore, counted from 1.", shown="all with --scope model, else 1", selects=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_image()
        for name in self.PER_STAGE:
            values, default = getattr(self, name), own_fields(type(self))[name].default
            if values is None or (values == default and len(values) >= len(self.depths)):
                continue  # the first numbers of a default apply
            if len(values) != len(self.depths):
                raise UsageError(
                    f"{{{name}}} must have {plural(len(self.depths), 'number')}, one for each stage of {{depths}} "
                    f"(got {len(values)})"
                )
        self.check_index("stage", self.stage, len(self.depths))
        if self.block is not None and self.stage is None and self.scope == "model":
            raise UsageError("{block} requires {stage}, because blocks are numbered within a stage; add {stage}")
        self.check_index("block", self.block, self.opened.depth)
        for stage in self.stages:
            self.hidden_of(stage)
            self.kinds(stage)  # raise errors of the attentions

    def check_image(self) -> None:
        """Check that the network takes the image; by default it takes any.

        Raises:
            UsageError: if it does not.
        """

    @property
    def image_is_padded(self) -> bool:
        """Return False: convolutions with a stride take any image."""
        return False

    @property
    def is_whole(self) -> bool:
        """Return whether the Spec describes the whole network."""
        return super().is_whole and self.stage is None

    @property
    def is_block(self) -> bool:
        """Return whether the Spec describes one block."""
        return self.scope == "block" or self.block is not None

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages; merging halves the grid, and rounds up."""
        return tuple(
            Stage(index, self.dim * multiple, self.heads * multiple, self._grid_of(index), (0, 0), depth)
            for index, (multiple, depth) in enumerate(zip(self.multiples, self.depths, strict=False))
        )

    def _grid_of(self, index: int) -> Pair:
        return -(-self.grid[0] // 2**index), -(-self.grid[1] // 2**index)

    @property
    def opened(self) -> Stage:
        """Return the selected stage, by default the first one."""
        return self.stages[(self.stage or 1) - 1]

    def before(self, stage: Stage) -> Stage:
        """Return the previous stage, or the first stage itself."""
        return self.stages[max(stage.index - 1, 0)]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input: images for a network, tokens for a part of it."""
        if self.is_whole:
            return self.image_shape
        if self.is_block:
            return self.attention().input_shape
        return self.input_of(self.opened)

    def input_of(self, stage: Stage) -> tuple[int, ...]:
        """Return the shape of a stage's input: by default the tokens of the previous stage."""
        return self.attention_of(self.before(stage), 0).input_shape

    def attention(self) -> Headed:
        """Return the attention of the selected block."""
        return self.attention_of(self.opened, (self.block or 1) - 1)

    def attention_of(self, stage: Stage, block: int) -> Headed:
        """Return the attention of a block, counted from 0; blocks with equal attentions are identical."""
        key = stage.index, self.kind_of(stage, block)
        if key not in self._attentions:
            self._attentions[key] = self.make_attention(stage, key[1])
        return self._attentions[key]

    @cached_property
    def _attentions(self) -> dict[tuple[int, int], Headed]:
        """Return the cache of attentions, by stage and kind."""
        return {}

    def kind_of(self, stage: Stage, block: int) -> int:
        """Return the number of the kind of a block's attention in its stage; by default all blocks are alike."""
        return 0

    @abstractmethod
    def make_attention(self, stage: Stage, kind: int) -> Headed:
        """Return the attention of a stage's blocks of one kind."""

    def title_of(self, attention: Headed) -> str:
        """Return what distinguishes an attention from the others of its stage, in a few words."""
        return attention.neighbourhood.describe()

    def hidden_of(self, stage: Stage) -> int:
        """Return the hidden size of the MLP in a stage."""
        return self.hidden(stage.dim)

    def kinds(self, stage: Stage) -> list[tuple[Headed, list[int]]]:
        """Return the different attentions of a stage, each with its blocks, counted from 0."""
        blocks: dict[Headed, list[int]] = {}
        for block in range(stage.depth):
            blocks.setdefault(self.attention_of(stage, block), []).append(block)
        return list(blocks.items())

    def of_size(self, size: int) -> "HierarchySpec":
        """Return a copy for images with `size` patches on each side."""
        return replace(self, image=(size * STRIDE, size * STRIDE))

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        (height, width), stage = self.image, self.opened
        if self.is_block:
            return [f"stage {stage.index + 1}, block {self.block or 1} of {stage.depth}", *self.attention().headline()]
        if not self.is_whole:
            words = [f"stage {stage.index + 1} of {len(self.depths)}", plural(stage.depth, "block")]
            return [*words, *self.attention_of(stage, stage.depth - 1).headline()]
        dims = "-".join(str(each.dim) for each in self.stages)
        return [f"{height}×{width} pixels", f"dim {dims}", f"{'-'.join(map(str, self.depths))} blocks"]

    def cautions(self) -> list[str]:
        """Return the notes of the attentions, each with its stage."""
        found: dict[str, list[str]] = {}
        for stage in self.stages if self.is_whole else [self.opened]:
            attentions = [self.attention()] if self.is_block else [attention for attention, _ in self.kinds(stage)]
            for note in dict.fromkeys(note for attention in attentions for note in attention.cautions()):
                found.setdefault(note, []).append(str(stage.index + 1))
        return [
            note if len(stages) == len(self.depths) or not self.is_whole else f"stage {', '.join(stages)}: {note}"
            for note, stages in found.items()
        ]

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if self.is_whole:
            deepest = max(self.stages, key=lambda stage: stage.depth)
            return self.command(stage=deepest.index + 1), "the steps of its deepest stage"
        return self.command(scope="model", stage=None, block=None), "the whole network"

    # Costs: closed forms, independent of the steps.

    @abstractmethod
    def stem_form(self) -> dict[str, int]:
        """Return the MACs of each step before the stages, for one image."""

    def merging_form(self, stage: Stage) -> dict[str, int]:
        """Return the MACs of each step between the previous stage and this one, for one image."""
        tokens, before = stage.grid[0] * stage.grid[1], self.before(stage)
        return {"downsample.merge": self.MERGING**2 * tokens * before.dim * stage.dim} if stage.index else {}

    def block_form(self, stage: Stage, attention: Headed) -> dict[str, int]:
        """Return the MACs of each step of a block."""
        mlp = self.batch * stage.grid[0] * stage.grid[1] * stage.dim * self.hidden_of(stage)
        form = {f"attn.{name}": macs for name, macs in attention.closed_form().items()}
        return {**form, "mlp.expand": mlp, "mlp.contract": mlp}

    def is_in(self, library: str) -> bool:
        """Return whether a library has the attention of every block."""
        return all(attention.is_in(library) for stage in self.stages for attention, _ in self.kinds(stage))

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step with MACs; identical blocks are listed once, as the first of them."""
        if self.is_block:
            return self.block_form(self.opened, self.attention())
        form: dict[str, int] = {}
        for stage in self.stages if self.is_whole else [self.opened]:
            path = self.path_of(stage)
            form |= {f"{path}{name}": self.batch * macs for name, macs in self.merging_form(stage).items()}
            for attention, blocks in self.kinds(stage):
                of_block = self.block_form(stage, attention)
                form |= {f"{self.path_of_block(stage, blocks[0])}.{name}": macs for name, macs in of_block.items()}
        if not self.is_whole:
            return form
        form |= {name: self.batch * macs for name, macs in self.stem_form().items()}
        return {**form, "head": self.batch * self.stages[-1].dim * self.classes}

    STAGES: ClassVar[str] = "stages"
    """Name of the list of stages in the module."""

    def path_of(self, stage: Stage) -> str:
        """Return the path of a stage in the module, with a dot; empty if it is the whole module."""
        return f"{self.STAGES}.{stage.index}." if self.is_whole else ""

    def path_of_block(self, stage: Stage, block: int) -> str:
        """Return the path of a block, counted from 0, in the module."""
        return f"{self.path_of(stage)}blocks.{block}"

    def macs(self) -> int:
        """Count the MACs for one image: those of the stem, of merging, of the blocks and of the head."""
        return self._network_cost(is_global=False).value

    def complexity(self) -> Complexity:
        """Return the formulas of the network or its part with its attention and with global attention."""
        own, reference = (self._cost(is_global) for is_global in (False, True))
        alone = self.attention().complexity()
        if alone.own == alone.reference and own.value == reference.value:
            return Complexity(self.batch, Term("global", own), Term("global", own), alone.saving)
        return Complexity(self.batch, Term(self.name, own), Term("global", reference), saving=alone.saving)

    @abstractmethod
    def attention_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of an attention, with variables that have a value for each group."""

    def global_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of global attention on the same tokens: 4hwC² + 2(hw)²C."""
        hw, C = tokens_of(groups), dims_of(groups)
        return 4 * hw * C**2 + 2 * hw**2 * C

    def mlp_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of an MLP, such as `8hwC²`."""
        hidden = tuple(self.hidden_of(group.stage) for group in groups)
        hw, C = tokens_of(groups), dims_of(groups)
        if hidden == tuple(MLP_RATIO * group.stage.dim for group in groups):
            return 2 * MLP_RATIO * hw * C**2
        return 2 * hw * C * symbol("E", *hidden)

    def merging_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of merging, `9hwCD`, where D is the embedding dimension before it, and 0 without merging."""
        entering = symbol("D", *(group.enters for group in groups), note="before merging")
        return self.MERGING**2 * tokens_of(groups) * dims_of(groups) * entering

    def between_cost(self, groups: Sequence[Group]) -> Expression | None:
        """Return the MACs of a stage outside its blocks: by default those of merging, or None."""
        return self.merging_cost(groups) if any(group.enters for group in groups) else None

    def groups(self, stages: Sequence[Stage]) -> list[Group]:
        """Return the groups of blocks that cost the same, in order."""
        found: list[Group] = []
        for stage in stages:
            enters = self.before(stage).dim if stage.index else 0
            for attention, blocks in self.kinds(stage):
                last = found[-1] if found else None
                if last and last.stage == stage and _costs(last.attention) == _costs(attention):
                    found[-1] = replace(last, count=last.count + len(blocks))
                else:
                    found.append(Group(stage, attention, len(blocks), enters))
                    enters = 0
        return found

    def _block_cost(self, groups: Sequence[Group], is_global: bool) -> Expression:
        attention = self.global_cost(groups) if is_global else self.attention_cost(groups)
        return attention + self.mlp_cost(groups)

    def _cost(self, is_global: bool) -> Expression:
        """Return the MACs of the network or its part, with global attention or its own."""
        if self.is_whole:
            return self._network_cost(is_global)
        if self.is_block:
            return self._block_cost([Group(self.opened, self.attention(), 1, 0)], is_global)
        return self._stages_cost([self.opened], is_global)

    def _stages_cost(self, stages: Sequence[Stage], is_global: bool) -> Expression:
        """Return the MACs of blocks and merging, summed over the groups."""
        groups = self.groups(stages)
        cost = symbol("L", *(group.count for group in groups), note="blocks") * self._block_cost(groups, is_global)
        if between := self.between_cost(groups):
            cost += between
        return over_stages(len(groups), cost) if len(groups) > 1 else cost

    def _network_cost(self, is_global: bool) -> Expression:
        groups = self.groups(self.stages)
        head = dims_of(groups).in_stage(len(groups)) * symbol("classes", self.classes)
        return self.stem_cost(groups) + self._stages_cost(self.stages, is_global) + head

    def stem_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs before the stages: a convolution of k × k pixels, 3k²hw₁C₁."""
        return 3 * self.STEM**2 * tokens_of(groups).in_stage(1) * dims_of(groups).in_stage(1)


def tokens_of(groups: Sequence[Group]) -> Expression:
    """Return the number of tokens of one image after the attention of each group."""
    return symbol("hw", *(group.stage.grid[0] * group.stage.grid[1] for group in groups))


def dims_of(groups: Sequence[Group]) -> Expression:
    """Return the embedding dimension of each group."""
    return symbol("C", *(group.stage.dim for group in groups))


def _costs(attention: Headed) -> tuple[tuple[str, int], ...]:
    return tuple(attention.closed_form().items())
