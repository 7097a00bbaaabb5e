"""Dotted options over nested dataclasses: listing, strict conversion, errors that name the nearest right option."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import inspect
import math
import textwrap
import types
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from cluster.config.fields import DERIVED, is_harmless
from cluster.errors import ConfigError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a nested configuration: dotted name, type, value and the comment behind it in the source."""

    name: str
    type: Any
    value: Any
    comment: str


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the most similar known word, or the list of all where none is similar."""
    known = list(known)
    # Only the last part may have been given: --steps for --pretrain.steps.
    last, part = {name: name.rsplit(".", 1)[-1] for name in known}, word.lstrip("-").rsplit(".", 1)[-1]
    matches = [name for name in known if last[name] == part] if "." not in word else []
    matches = matches or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not matches:
        close = difflib.get_close_matches(part, last.values(), n=1, cutoff=0.75)
        matches = [name for name in known if close and last[name] == close[0]]
    if matches:
        return f"; did you mean {' or '.join(matches[:3])}?"
    return f" (known: {', '.join(known)})" if len(known) <= 12 else ""


def options(config: Any, prefix: str = "") -> Iterator[Option]:
    """Every leaf field of a nested dataclass, in order."""
    kind: type = type(config)
    hints, comments = field_types(kind), field_comments(kind)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from options(value, f"{prefix}{field.name}.")
        elif _part_type(hints[field.name]):
            for name, part in value.items():
                yield from options(part, f"{prefix}{name}.")
        else:
            yield Option(prefix + field.name, hints[field.name], value, comments.get(field.name, ""))


@cache
def field_types(cls: type) -> dict[str, Any]:
    """The type of each field of a dataclass: once a class, for what is written in it has to be evaluated."""
    return get_type_hints(cls)


@cache
def _part_type(kind: Any) -> type | None:
    """The dataclass of a field that is a table of named parts; the names stand in options in place of the field's."""
    entry = get_args(kind)[-1] if get_origin(kind) is dict else None
    return entry if isinstance(entry, type) and dataclasses.is_dataclass(entry) else None


@cache
def field_comments(cls: type) -> dict[str, str]:
    """The comment of each field of a dataclass: behind it, in lines above it, or as a string under it."""
    comments: dict[str, str] = {}
    for base in cls.__bases__:
        comments |= field_comments(base) if dataclasses.is_dataclass(base) else {}
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    body = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        assert node.end_lineno is not None, "what is parsed has its place"
        above: list[str] = []
        row = node.lineno - 2
        while row >= 0 and lines[row].strip().startswith("#"):
            above.insert(0, lines[row].strip().lstrip("# "))
            row -= 1
        behind = lines[node.end_lineno - 1][node.end_col_offset :].strip()
        under = following.value if isinstance(following, ast.Expr) else None
        if behind.startswith("#"):
            comments[node.target.id] = behind.lstrip("# ")
        elif isinstance(under, ast.Constant) and isinstance(under.value, str):
            comments[node.target.id] = " ".join(under.value.split())
        else:
            comments[node.target.id] = " ".join(above)
    return comments


def type_name(kind: Any) -> str:
    """A type as --help shows it: 'int', 'fp32|bf16', 'float,float', 'mlm=FLOAT,...'."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "|".join(str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return "|".join("none" if value is type(None) else type_name(value) for value in arguments)
    if origin is tuple:
        return f"{type_name(arguments[0])},..." if Ellipsis in arguments else ",".join(map(type_name, arguments))
    if origin is dict:
        return f"{type_name(arguments[0])}={type_name(arguments[1])},..."
    return kind.__name__


def show(value: Any) -> str:
    """A value as it can be typed behind its option."""
    if isinstance(value, dict):
        return ",".join(f"{key}={show(entry)}" for key, entry in value.items()) or "''"
    if isinstance(value, (tuple, list)):
        return ",".join(map(show, value)) or "''"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return str(value) if value != "" else "''"


def convert(kind: Any, value: Any, name: str) -> Any:
    """`value`, the text of an option or an entry of a YAML file, as the type `kind`; ConfigError if it is none."""
    origin, arguments = get_origin(kind), get_args(kind)

    def wrong() -> ConfigError:
        text = value if isinstance(value, str) else show(value) if not isinstance(value, dict) else "a table"
        return ConfigError(f"--{name} {text!r} is not of the type {type_name(kind)}")

    if origin is Literal:
        for choice in arguments:
            if not isinstance(value, bool) and str(value) == str(choice):
                return choice
        raise ConfigError(f"--{name} {value!r} is not a choice{nearest(str(value), map(str, arguments))}")
    if origin in (Union, types.UnionType):
        if type(None) in arguments and (value is None or value == "none"):
            return None
        *others, last = (argument for argument in arguments if argument is not type(None))
        for other in others:
            with contextlib.suppress(ConfigError):
                return convert(other, value, name)
        return convert(last, value, name)
    if origin is tuple:
        items = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise wrong()
        if Ellipsis in arguments:
            return tuple(convert(arguments[0], item, name) for item in items)
        if len(items) != len(arguments):
            raise wrong()
        return tuple(convert(part, item, name) for part, item in zip(arguments, items, strict=True))
    if origin is dict:
        return _convert_table(arguments, value, name, wrong)
    if kind is bool and (isinstance(value, bool) or value in ("true", "false")):
        return value in (True, "true")
    if kind is str and isinstance(value, str):
        return value
    if kind in (int, float) and not isinstance(value, bool) and isinstance(value, (str, int, float)):
        try:
            number = kind(value)
        except ValueError:
            raise wrong() from None
        if not math.isfinite(number) or (kind is int and not isinstance(value, str) and number != value):
            raise wrong()
        return number
    raise wrong()


def _convert_table(arguments: tuple, value: Any, name: str, wrong) -> dict:
    if isinstance(value, str):
        entries = [entry.partition("=") for entry in value.split(",") if entry.strip()]
        if not all(sign for _, sign, _ in entries):
            raise wrong()
        value = {key.strip(): text.strip() for key, _, text in entries}
    if not isinstance(value, dict):
        raise wrong()
    table = {}
    for key, entry in value.items():
        if get_origin(arguments[0]) is Literal and key not in get_args(arguments[0]):
            known = [f"--{name}.{choice}" for choice in get_args(arguments[0])]
            raise ConfigError(f"unknown option --{name}.{key}{nearest(f'--{name}.{key}', known)}")
        table[key] = convert(arguments[1], entry, f"{name}.{key}")
    return table


def override(config: T, changes: Iterable[tuple[str, Any]], refuse: Iterable[str] = ()) -> T:
    """The configuration with dotted options changed, all at once. ConfigError for an unknown option or a wrong type.

    An entry of a table can be set alone (--pretrain.ratios.mlm 8); the table as a whole (--pretrain.ratios mlm=8,fda=2)
    replaces all entries. `refuse` lists options that exist but are not the user's to set.
    """
    known = {option.name: option for option in options(config)}
    values: dict[str, Any] = {}
    for name, value in changes:
        table, _, key = name.rpartition(".")
        if name in refuse:
            raise ConfigError(f"--{name} cannot be set: it is read from the data")
        if name in known:
            values[name] = convert(known[name].type, value, name)
        elif table in known and get_origin(known[table].type) is dict:
            current = values.get(table, known[table].value)
            values[table] = {**current, **convert(known[table].type, {key: value}, table)}
        else:
            choices = [f"--{option}" for option in known if option not in refuse]
            raise ConfigError(f"unknown option --{name}{nearest('--' + name, choices)}")
    tree: dict = {}
    for name, value in values.items():
        *path, last = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return _rebuild(config, tree)


def _rebuild(config: Any, changes: dict, prefix: str = "") -> Any:
    """`config` with a tree of converted values; a part that refuses its values does so under its option's name."""
    kind: type = type(config)
    values, hints = {}, field_types(kind)
    tables = [field for field, kind in hints.items() if _part_type(kind)]
    for name, value in changes.items():
        if name in hints:
            current = getattr(config, name)
            values[name] = _rebuild(current, value, f"{prefix}{name}.") if dataclasses.is_dataclass(current) else value
            continue
        table = next(field for field in tables if name in getattr(config, field))
        parts = values.get(table, getattr(config, table))
        values[table] = {**parts, name: _rebuild(parts[name], value, f"{prefix}{name}.")}
    try:
        return dataclasses.replace(config, **values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"--{prefix}{error}") from None


def to_dict(config: Any) -> dict:
    """Nested plain dicts, lists and scalars, as YAML writes them."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, dict):
            return {key: plain(entry) for key, entry in value.items()}
        return [plain(entry) for entry in value] if isinstance(value, (tuple, list)) else value

    return plain(config)


def from_dict(config: T, values: Any) -> T:
    """`config` with the fields that nested dicts name replaced; unknown names and wrong types raise ConfigError."""
    return _rebuild(config, _convert_tree(config, values, ""))


def _convert_tree(config: Any, values: Any, prefix: str) -> dict:
    if not isinstance(values, dict):
        raise ConfigError(f"--{prefix.rstrip('.')}: a table of options is expected, not {values!r}")
    of: type = type(config)
    hints, tree = field_types(of), {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            known = [f"--{prefix}{field}" for field in hints]
            raise ConfigError(f"unknown option --{name}{nearest('--' + name, known)}")
        part = getattr(config, key)
        if dataclasses.is_dataclass(part):
            tree[key] = _convert_tree(part, value, f"{name}.")
        elif kind := _part_type(hints[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"--{name}: a table of options is expected, not {value!r}")
            tree[key] = {
                entry: _rebuild(kind(), _convert_tree(kind(), values, f"{entry}."), f"{entry}.")
                for entry, values in value.items()
            }
        else:
            tree[key] = convert(hints[key], value, name)
    return tree


def to_yaml(config: Any) -> str:
    """The configuration as YAML, fields in order."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def differences(one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    """(dotted option, value in one, value in the other) of every option in which they differ; None where it is not."""
    values, others = ({option.name: option.value for option in options(config)} for config in (one, other))
    names = dict.fromkeys([*values, *others])
    return [(name, values.get(name), others.get(name)) for name in names if values.get(name) != others.get(name)]


def deciding(config: Any) -> dict[str, Any]:
    """Every option, by its dotted name, that decides what is learnt: not how fast, where, or what is looked at."""
    return {
        one.name: to_dict(one.value)
        for one in options(config)
        if one.name != "name" and one.name not in DERIVED and not is_harmless(one.name)
    }
