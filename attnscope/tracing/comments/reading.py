"""Read the shapes in a comment, such as `(B, N, 3*C)`, `x: [B, N, C] -> [B, C, N]` or `B x N x C`.

A text is read as a shape only if it can hardly mean anything else; all others are ignored.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from attnscope.tracing.comments.axes import ENGLISH, Axis, read_axis

AXIS_NAME = re.compile(
    r"[A-Za-z](?:\d|_|ʼ)?|[a-z]{1,2}[A-Z]{1,2}\d?|[A-Z][A-Za-z]|[hH][wW]|[A-Z][A-Za-z]{0,2}ʼ|(?:[A-Z]ʼ){2}|bsz?|hd|nh|ws|kk"
    r"|[A-Za-z]{1,2}_(?:[A-Za-z]{1,3}|\w*\d|in|out|old|new|sub|pad)"
)
"""Pattern of names that look like an axis: `B`, `n`, `B_`, `nW`, `Wh`, `hw`, `C_in`."""
AXIS_WORDS = frozenset(
    """
    batch batches bs bsz seq sequence len length lens num n dim dims dimension dimensions embed embedding emb

    hidden heads head nhead height width channels channel chans chan ch tokens token patches patch queries frames frame

    time classes features feature feat feats size windows groups points levels layers depth vocab grid images image views

    rows cols columns rank ndim experts blocks chunks steps samples boxes masks objects spatial dmodel hsz slots streams
    """.split()  # noqa: SIM905
)
"""Words in names that look like an axis: `batch_size`, `num_patches`, `embed_dim`."""
NO_AXES = frozenset(
    """
    x y z i j k u v q K V Q x0 x1 x2 y0 y1 y2

    cx cy t p f g e r s
    """.split()  # noqa: SIM905
)
"""Names of coordinates or tensors, not of axes, if a comment has no other names."""
COORDINATES = frozenset("x y z x0 x1 x2 y0 y1 y2 cx cy".split())  # noqa: SIM905
"""Names of coordinates, beside which `w` and `h` are those of a box."""
EXTENTS = frozenset("t h w H W height width time".split())  # noqa: SIM905
"""Names of extents, which a comment may list as the contents of a tensor."""
NO_RESULT = frozenset(
    """
    from expect expects expected input inputs instead like if unlike assume assumes not before was were original than where

    eg weight weights kernel bias either without range between need needs require requires should must can may values

    over across along on value coordinates coords indices order offsets type stride strides axes axis index ratio
    """.split()  # noqa: SIM905
)
"""Words before a shape that make it one of something else than of the result."""
CONDITIONS = frozenset("if or unless otherwise depending when else per optional optionally maybe".split())  # noqa: SIM905
"""Words after a shape that make it uncertain."""
OPERAND = re.compile(r"\s*(?:over|along|across|(?:is|are) not)\b")
"""Words after a shape that make it one of an operand: `sum of (B, N, C) over C`."""
FLOAT = re.compile(r"\d*\.\d+|[\d.]+[eE][+-]?\d+")
"""A number that is not a size."""
SHAPE_WORDS = re.compile(
    r"(?<![A-Za-z])(?:torch\.)?(?:[Ss]izes?|[Ss]hapes?|SHAPE|[Tt]ensors?|[Ff]orm[ae]|[Tt]ailles?|[Tt]amaños?|[Gg]rößen?"
    r"|[Dd]imensi(?:ón|ones|oni)|[Рр]азмер)(?![A-Za-z])"
)
"""Words for a shape, in several languages."""
ARROW = re.compile(r"\s*(?:[-=]{1,2}>|→|⇒|➜|⟶|\|->)\s*")
FULL_WIDTH = str.maketrans("（）［］【】，：＝、；。{}", "()[][],:=,;.()")
DIRECTIVE = re.compile(
    r"(?:type|noqa|pylint|mypy|ruff|fmt|isort|pragma|TODO|FIXME|https?)\b|.*https?://", re.IGNORECASE
)
MOST_WORDS = 4
"""Number of words before an arrow up to which they surely describe one operation."""
BATCH = frozenset({"B", "b", "bs", "bsz", "batch", "batch_size"})
"""Names of the number of images."""
FACTORS = range(3, 6)
"""Numbers of names that asterisks may separate as axes."""
COUNT = re.compile(r"(?:\d+\s*[x*]?|each|both|all|list of|tuple of)\s*$")
"""A number of tensors before their shape: `3 x [B, N, C]`."""
OPERATOR = re.compile(r"\s*(?:@|\*|\+|x|·|-|/)\s*")
LABEL = re.compile(r"^\s*([^:=()\[\],]*(?:\(\))?)\s*[:=]\s*")


@dataclass(frozen=True)
class Said:
    """A shape in a comment: the axes of each alternative, and the text before it, which may name a tensor.

    `is_result` is True if the comment says by an arrow that the shape is that of the result. `source` is then the shape
    before the first arrow, if there is one. `is_sure` is False if a comment of another number of axes may mean something
    else, such as one of numbers only. `is_labelled` is True if a colon or equals sign ends the text before the shape.
    """

    options: tuple[tuple[Axis, ...], ...]
    label: str = ""
    is_result: bool = False
    is_sure: bool = True
    is_labelled: bool = False
    source: tuple[Axis, ...] | None = None


@cache
def read_shapes(comment: str) -> tuple[Said, ...]:
    """Return the shapes that a comment says its statement has; of a chain of arrows, those after the last."""
    text = re.sub(r"\w+\[[\w.]+,\s*['\"]([^'\"]+)['\"]\]", r"[\1]", comment)  # Float[Tensor, "B N C"]
    text = text.translate(FULL_WIDTH).replace("`", "").strip().rstrip(".").strip()
    if not text or DIRECTIVE.match(text):
        return ()
    quoted = re.search(r"['\"]([^'\"]*->[^'\"]*)['\"]", text)
    parts = ARROW.split(quoted[1] if quoted else text)  # einops patterns are quoted
    said = tuple(_of_part(parts[-1], len(parts) > 1))
    if len(parts) == 1:
        return said
    if CONDITIONS & set(re.findall(r"[a-z]+", parts[0].lower())):
        return ()  # convert if necessary (B, C, H, W) -> (B, C, 1, H, W)
    before = "" if _bare(parts[-2].strip(), True) else " ".join(parts[:-1])
    before = re.sub(rf"(?<=[)\]]){OPERATOR.pattern}(?=[(\[])", " ", before)  # the x of a product is not the variable x
    words = _label(re.sub(r"\([^()]+\)|\[[^\[\]]+\]", "", before))
    is_short = len(re.findall(r"\w+", words)) <= MOST_WORDS
    sources = [each.options[0] for each in _of_part(parts[0], True) if len(each.options) == 1]
    source = sources[0] if len(sources) == 1 else None
    return tuple(
        replace(
            each,
            label=each.label or words,
            is_result=True,
            is_sure=each.is_sure and is_short and "@" not in parts[0],  # matrices of one image and head
            source=source,
        )
        for each in said
    )


def read_shape(comment: str) -> tuple[Axis, ...] | None:
    """Return the axes of a comment that says one shape, otherwise None."""
    said = read_shapes(comment)
    return said[0].options[0] if len(said) == 1 and len(said[0].options) == 1 else None


def _of_part(text: str, has_arrow: bool) -> Iterator[Said]:
    brackets = list(_brackets(text))
    if not any("," in text[start:end] for start, end in brackets) and (
        said := list(_without_brackets(text, has_arrow))
    ):
        yield from said  # b n (h d)
        return
    groups = [(start, end, axes) for start, end in brackets if (axes := _in_brackets(text, start, end)) is not None]
    found: list[Said] = []
    last = 0
    for start, end, axes in groups:
        between = text[last:start]
        joint = between.strip(" ,;").lower()
        if found and joint in ("or", "|", "/"):
            found[-1] = replace(found[-1], options=(*found[-1].options, axes))
        elif found and joint in ("to", "=", "becomes", "into"):
            found = [Said((axes,), found[0].label, True)]
        elif found and OPERATOR.fullmatch(between):
            return  # the operands of a product
        else:
            label = _label(between)
            is_labelled = between.rstrip().endswith((":", "="))
            words = set(re.findall(r"[a-z]+", label.lower()))
            if (words & NO_RESULT and not is_labelled) or re.search(r"\b(?:e\.g|i\.e)\b", label):
                found.append(Said((), label))
            else:
                found.append(Said((axes,), label, False, _is_sure(axes, between), is_labelled))
        last = end
    after = re.findall(r"[a-z]+", text[last:].lower())[:1]
    if OPERAND.match(text[last:].lower()):
        return
    if set(after) & CONDITIONS or (OPERATOR.match(text[last:] + "?") and re.match(r"\s*[@*+]", text[last:])):
        return
    yield from (said for said in found if said.options)


def _is_sure(axes: Sequence[Axis], before: str) -> bool:
    names = {name for axis in axes for name in axis.names}
    is_part = before.rstrip().endswith(" of")  # the class token of (B, N, C)
    return not (names <= EXTENTS or is_part) or bool(SHAPE_WORDS.search(before))


def _label(text: str) -> str:
    """Return the words before a shape without punctuation, `shape`, and a count of tensors."""
    text = COUNT.sub("", text.strip(" ,;:=-#").strip())
    text = re.sub(r"\.(?:shape|size\(\))$", "", text)
    text = SHAPE_WORDS.sub("", text).strip(" ,;:=-.")
    return re.sub(r"\b(?:has|have|with|is|are|of|in|the|now|a)$|^(?:of|the|now)\b", "", text).strip(" ,;:=-.")


def _brackets(text: str) -> Iterator[tuple[int, int]]:
    """Yield the outermost brackets that are not those of a call or an index."""
    depth = start = 0
    for place, letter in enumerate(text):
        if letter in "([":
            if depth == 0:
                start = place
            depth += 1
        elif letter in ")]" and depth:
            depth -= 1
            if depth == 0 and not (
                re.search(r"[A-Za-z0-9_)\]]$", text[:start])
                and not SHAPE_WORDS.search(text[max(0, start - 10) : start])
            ):
                yield start, place + 1


def _in_brackets(text: str, start: int, end: int) -> tuple[Axis, ...] | None:
    inner = text[start + 1 : end - 1].strip()
    while re.fullmatch(r"[(\[].*[)\]]", inner) and len(list(_brackets(inner))) == 1 and "," in inner:
        if next(iter(_brackets(inner))) != (0, len(inner)):
            break
        inner = inner[1:-1]  # torch.Size([2, 9, 64])
    is_named = bool(SHAPE_WORDS.search(text[max(0, start - 12) : start]))
    if "," in inner:
        parts = split(inner)
        if len(parts) == 1 and not inner.rstrip().endswith(","):
            return None
        return _axes(parts, all_axes=False, single=True, is_named=is_named)
    if re.search(r"(?:\s+x\s+|×)", inner):
        return _axes(re.split(r"\s+x\s+|\s*×\s*", inner), all_axes=False)
    if (compact := _compact(inner)) is not None:
        return compact
    if " " in inner and (words := _words(inner)) is not None:
        return _axes(words, all_axes=True, spaced=True, least=2)
    if is_named and re.fullmatch(r"\w+", inner):
        return _axes([inner], all_axes=True, single=True, is_named=True)
    return None


def _without_brackets(text: str, has_arrow: bool) -> Iterator[Said]:
    label = ""
    while match := LABEL.match(text):
        label, text = _label(match[1]) or label, text[match.end() :]
    label = label or ""
    if (factors := _factors(text.strip())) is not None:
        yield Said(factors, label, False, False, bool(label))
        return
    axes = _bare(text.strip(), has_arrow)
    if axes is not None:
        yield Said((axes,), label, False, _is_sure(axes, ""), bool(label))


def _factors(text: str) -> tuple[tuple[Axis, ...], ...] | None:
    """Return both readings of `B*C*N`: three axes, or one of that size; None if it is likely a count.

    The first name is that of images, and a count such as `N*N*C` has a name twice.
    """
    names = re.split(r"\s*\*\s*", text)
    are_axes = all(AXIS_NAME.fullmatch(name) or _has_axis_word(name) for name in names)
    if len(names) not in FACTORS or not are_axes or len({*names}) < len(names) or names[0] not in BATCH:
        return None
    axes, product = [read_axis(name) for name in names], read_axis(text)
    return None if None in axes or product is None else (tuple(axis for axis in axes if axis), (product,))


def _bare(text: str, has_arrow: bool) -> tuple[Axis, ...] | None:
    """Return the axes of a shape without brackets around it."""
    operand = r"(?:\([^()]*\)|[\w'.…-]+|\*)"
    # a line of stars has very many readings, so that the first one counts
    token = rf"(?>{operand}(?:\s*(?://?|\*\*?|\+)\s*{operand})*)"
    if match := re.match(rf"{token}(?:(?:\s+x\s+|\s*×\s*){token})+", text):
        return _axes(re.split(r"\s+x\s+|\s*×\s*", match[0]), all_axes=False)
    if (compact := _compact(text.split(" ")[0])) is not None:
        return compact
    if "," in text:
        parts = [re.sub(r"^(\d+)\s+[x×]\s+", r"\1*", part) for part in split(text)]  # 3 x C
        if not parts:
            return None
        last = re.match(r"((?>\S+(?:\s*[*/+-]\s*\S+)*))(?:\s+[^*/+=-].*)?$", parts[-1])
        if last is None:
            return None
        return _axes([*parts[:-1], last[1].rstrip(".")], all_axes=True, spaced=True)
    if has_arrow and re.fullmatch(r"[A-Z][A-Z0-9]{1,5}", text):
        return tuple(Axis(letter) for letter in text)  # NCHW -> NLC is about the order of axes, not their sizes
    words = _words(text)
    return (
        None
        if words is None
        else _axes(words, all_axes=True, spaced=True, least=2 if has_arrow or "..." in words else 3)
    )


def _words(text: str) -> list[str] | None:
    """Return the first words of `b h n (h d) scores`, which are axes; None if they are too few to be a shape."""
    words = []
    for word in re.findall(r"(?:\([^()]*\)|[^\s()])+|\S+", text):
        axis = read_axis(word, in_list=False)
        if (
            axis is None
            or word == "*"
            or not all(AXIS_NAME.fullmatch(name) or _has_axis_word(name) for name in axis.names)
        ):
            break
        words.append(word)
    rest = text[sum(len(word) for word in words) + max(len(words) - 1, 0) :].strip()
    if rest and (len(words) < 3 or re.match(r"[|,&]|(?:or|and)\b", rest)):
        return None
    return words


def _compact(text: str) -> tuple[Axis, ...] | None:
    """Return the axes of `BxNxC`."""
    parts = re.split("[x×]", text)
    if len(parts) < 3 or not re.fullmatch(r"[A-Za-z0-9_'*/+×]+", text):
        return None
    if not all(re.fullmatch(r"\d+|\d?[A-Z]\w?'?|[a-wyz]{1,2}|[A-Z](?:[*/+]\w+)+|nW|dim", part) for part in parts):
        return None
    return _axes(parts, all_axes=True)


def _axes(
    parts: Sequence[str],
    *,
    all_axes: bool,
    single: bool = False,
    spaced: bool = False,
    least: int = 2,
    is_named: bool = False,
) -> tuple[Axis, ...] | None:
    """Return the axes that are spelled by `parts`, or None if they do not look like a shape.

    Args:
        parts: the text of each axis.
        all_axes: True if every name must look like an axis, False if most of them must.
        single: True if one axis is enough.
        spaced: True if a space ends a name.
        least: smallest number of axes.
        is_named: True if the text before them says `shape`.
    """
    axes = [read_axis(part, in_list=not spaced) for part in parts]
    read = [axis for axis in axes if axis is not None]
    if any(map(FLOAT.fullmatch, parts)) or len(read) < len(axes) or len(read) < (1 if single else least):
        return None
    return tuple(read) if _is_shape(read, all_axes, is_named) else None


def _is_shape(axes: Sequence[Axis], all_axes: bool, is_named: bool) -> bool:
    """Return whether axes look like a shape: most of their names look like axes, and they are not coordinates."""
    names = {name.rsplit(".", 1)[-1].split("[")[0] for axis in axes for name in axis.names}
    if not names:
        numbers = [axis.number for axis in axes if axis.number is not None]
        if len(numbers) < len(axes) or 0 in numbers:
            return False
        large = any(number > 9 for number in numbers)
        return is_named or (len(axes) > 2 and large if all_axes else len(axes) > 2 or large)
    plain = all(axis.is_name for axis in axes)
    are_coordinates = names <= NO_AXES or (names <= NO_AXES | EXTENTS and names & COORDINATES)
    if are_coordinates and plain and not is_named:
        return False
    if len(names) > 1 and len({re.sub(r"\d+$", "", name) for name in names}) == 1:
        return False  # the elements x0, x1, x2
    if ENGLISH & {name.lower() for name in names if len(name) > 1}:
        return False
    like = [name for name in names if AXIS_NAME.fullmatch(name) or _has_axis_word(name)]
    if is_named:
        return bool(like) or len(axes) > 1
    return len(like) == len(names) if all_axes else 2 * len(like) > len(names)


def _has_axis_word(name: str) -> bool:
    return bool(AXIS_WORDS & {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)})


def split(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += letter in "(["
        depth -= letter in ")]"
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]
