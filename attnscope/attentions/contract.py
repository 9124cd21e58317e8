"""Contract of an attention's folder: the members of its Spec and the functions of its other files; free of torch."""

from dataclasses import Field, fields
from importlib import import_module
from pathlib import Path
from re import fullmatch
from typing import Any, get_args, get_origin

from attnscope.attentions.spec import KINDS, Spec, check_value, kind, own_fields
from attnscope.core.errors import UsageError, literal
from attnscope.core.sizes import count_sides


def check_contract(spec: type[Spec], file: Path) -> None:
    """Check the Spec defined in a file, and the functions in the other files of its folder.

    Raises:
        UsageError: if something is missing or has the wrong type.
        Exception: any exception that the folder's code raises for the default values.
    """
    try:
        _check_names(spec)
        for declared in own_fields(spec).values():
            _check_field(declared)
        _check_size_field(spec)
        _check_members(spec)
        _check_functions(spec, file.parent)
    except UsageError as error:
        raise UsageError(f"{literal(file)}: {spec.__name__} {error.args[0]}") from error.__cause__


def _check_names(spec: type[Spec]) -> None:
    """Check the class attributes, and that no field hides a member of Spec."""
    if any(isinstance(value, Field) for value in vars(spec).values()):
        raise UsageError("is not a dataclass; write @dataclass(frozen=True, kw_only=True) above it")
    common = {declared.name: declared for declared in fields(Spec)}
    for name, declared in own_fields(spec).items():
        if name in common and kind(declared) != kind(common[name]):
            raise UsageError(f"has a field {name}, whose type must be {spell_type(common[name].type)} as in every Spec")
        if name not in common and (hasattr(Spec, name) or name in Spec.__annotations__):
            raise UsageError(f"has a field {name}, which hides Spec.{name}; rename it, or declare {name}: ClassVar")
    for name in Spec.__annotations__:
        if not hasattr(Spec, name) and not isinstance(getattr(spec, name, None), str):
            raise UsageError(f'has no {name}; give it one: {name}: ClassVar[str] = "…"')
    for base in spec.__mro__[1:]:
        for name in vars(base).get("__annotations__", ()):
            if not hasattr(spec, name) and name not in own_fields(spec):
                raise UsageError(
                    f"has no {name}, which every {base.__name__} has; give it a field, or {name}: ClassVar = VALUE"
                )
    if not fullmatch(r"[a-z][a-z0-9_-]*", spec.name):
        raise UsageError(
            f"has the name {literal(repr(spec.name))}; it must be lowercase letters, digits, - and _, after a letter"
        )
    if not isinstance(spec.EXAMPLES, tuple | list) or not all(isinstance(each, str) for each in spec.EXAMPLES):
        example = f"attnscope {spec.name} --no-time"
        raise UsageError(f"has EXAMPLES that are not a tuple of commands; write ({example!r},)")


def _check_field(declared: Field[Any]) -> None:
    """Check that a field can become a flag, and that its default is valid."""
    name, default = declared.name, declared.default
    if not isinstance(declared.metadata.get("help"), str):
        written = f'{name}: {spell_type(declared.type)} = option(DEFAULT, "help")'
        raise UsageError(f"has a field {name} that is not declared with option(); write {written}")
    if kind(declared) not in KINDS:
        quotes = " in quotes (remove `from __future__ import annotations`)" if isinstance(declared.type, str) else ""
        kinds = "int, float, bool, str, Pair, Triple or Ints"
        raise UsageError(f"has a field {name} of the type {spell_type(declared.type)}{quotes}; it must be {kinds}")
    if default is None:
        return
    try:
        checked = check_value(declared, default)
    except UsageError as error:
        raise UsageError(f"has an invalid default: {error.args[0]}") from None
    if checked != default:
        raise UsageError(f"has the default {default!r} of {{{name}}}; it must be {checked!r}")


def spell_type(annotation: object) -> str:
    """Return the source text of a type."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _check_size_field(spec: type[Spec]) -> None:
    name, declared = spec.SIZE_FIELD, own_fields(spec)
    if name not in declared:
        raise UsageError(f"has the SIZE_FIELD {name!r}, which must be one of its fields: {', '.join(declared)}")
    if kind(declared[name]) is not int and not count_sides(kind(declared[name])):
        raise UsageError(f"has the SIZE_FIELD {name!r}, which is not a size; its type must be int, Pair or Triple")


def _check_members(spec: type[Spec]) -> None:
    """Check that all abstract members are defined, and that they return the declared types for the defaults."""
    required = sorted(Spec.__abstractmethods__)
    if missing := [name for name in required if name in spec.__abstractmethods__]:
        raise UsageError(
            f"does not define {', '.join(missing)}; see attnscope.attentions.spec.Spec for what each returns"
        )
    try:
        default = spec()
    except UsageError as error:
        raise UsageError(f"rejects its own defaults: {error.args[0]}") from error
    for name in (*required, "cautions"):
        member, declared = getattr(default, name), vars(Spec)[name]
        returned = member() if callable(member) else member
        function = declared.fget if isinstance(declared, property) else declared
        expected = function.__annotations__["return"]
        if not _is_of(returned, expected):
            raise UsageError(f"returns {literal(repr(returned))} as its {name}; return {spell_type(expected)}")
    command = default.next_command()[0]
    if len(command.split()) < 2 or command.split()[0] != "attnscope":
        raise UsageError(f'suggests the next command {literal(repr(command))}; give "attnscope COMMAND …"')


def _is_of(value: object, expected: Any) -> bool:
    """Return whether a value has a type, and its elements those in brackets."""
    # pydantic could check this, but importing it takes longer than importing everything else.
    kind, of = get_origin(expected) or expected, get_args(expected)
    if not isinstance(value, kind):
        return False
    if isinstance(value, dict):
        return all(_is_of(key, of[0]) and _is_of(each, of[1]) for key, each in value.items())
    if isinstance(value, list) or of[1:] == (...,):
        return all(_is_of(each, of[0]) for each in value)
    return not of or (len(value) == len(of) and all(map(_is_of, value, of)))


def _check_functions(spec: type[Spec], folder: Path) -> None:
    """Check that `plan(spec)` and `build(spec)` exist, without running the module's file, which imports torch."""
    steps = import_module(f"{spec.home()}.steps")
    if not callable(getattr(steps, "plan", None)):
        raise UsageError(f"needs a function plan(spec), which {literal(steps.__file__)} does not define")
    file = folder / f"{spec.MODULE_FILE}.py"
    code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
    if "build" not in code.co_names and ("*",) not in code.co_consts:
        raise UsageError(f"needs a function build(spec), which {literal(file)} does not define")
