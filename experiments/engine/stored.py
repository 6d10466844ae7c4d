"""Configurations as JSON, by cattrs."""

import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from jaxup.files import InputError

WAS_FLAT = types.MappingProxyType({"was_flat": True})
"""Field metadata of a dataclass whose fields older versions stored beside each other, where it stands now."""

_RETIRED = (
    "smoke",
)  # fields of older versions that a preset has replaced; the values it set are stored with the others
_CONVERTER = cattrs.Converter(unstruct_collection_overrides={tuple: list})


def to_json(value: Any) -> Any:
    """Turns a configuration into what `json` can write; each dataclass also records the name of its class.

    Args:
        value: a dataclass instance, or a field's value: nested dataclasses, tuples, lists, dicts, paths,
            plain values.

    Returns:
        Dicts, lists and plain values. The key "class" cannot collide with a field, since it is a keyword.

    Example:
        >>> to_json((Path("runs/a"), 0.5, None))
        ['runs/a', 0.5, None]
    """
    return _CONVERTER.unstructure(value)


def from_json(annotation: Any, data: Any, name: str = "config") -> Any:
    """Turns JSON back into a configuration; the inverse of `to_json`.

    Args:
        annotation: the dataclass, or a field's type.
        data: what `to_json` returned. Fields that are missing take their defaults.
        name: what the value is called in error messages.

    Returns:
        An instance of `annotation`.

    Raises:
        InputError: a field is unknown, has no value and no default, or has a value of another type.

    Example:
        >>> from_json(tuple[int, ...], [4, 8])
        (4, 8)
    """
    try:
        return _CONVERTER.structure(data, annotation)
    except Exception as error:  # cattrs gathers what it finds in groups, and adds where it was
        reason, _, path = cattrs.transform_error(error, "", _reason)[0].rpartition(" @ ")
        raise InputError(name + path + reason) from error


def _reason(error: BaseException, annotation: Any) -> str:
    """What follows the path of a value in an error message."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f".{min(error.extra_fields)}: {error.cl.__name__} has no such field"
    return ": missing" if isinstance(error, KeyError) else f": {error}"


def _expect(kind: Any) -> Callable[[Any, Any], Any]:
    """Takes values of a plain type as they are; nothing is converted."""

    def structure(data: Any, _: Any) -> Any:
        if type(data) is not kind and not (kind is float and type(data) is int):
            raise InputError(f"expected {kind.__name__}, got {data!r}")
        return kind(data) if kind is float else data

    return structure


def _path(data: Any, _: Any) -> Path:
    return Path(_expect(str)(data, str))


def _literal(data: Any, annotation: Any) -> Any:
    if data not in get_args(annotation):
        raise InputError(f"expected one of {', '.join(map(str, get_args(annotation)))}, got {data!r}")
    return data


def _tuple_hook(annotation: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    kinds = get_args(annotation)
    each = kinds[0] if kinds[1:] == (...,) else None

    def structure(data: Any, _: Any) -> Any:
        if not isinstance(data, list):
            raise InputError(f"expected a list, got {data!r}")
        if each is not None:
            return tuple(converter.structure(data, list[each]))  # type: ignore[valid-type]
        if len(kinds) != len(data):
            raise InputError(f"expected {len(kinds)} values, got {len(data)}")
        return tuple(converter.structure(item, kind) for item, kind in zip(data, kinds, strict=True))

    return structure


def _union_hook(annotation: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Dataclasses by their names, the rest by trying."""
    members: tuple[Any, ...] = get_args(annotation)
    named: dict[str, Any] = {getattr(m, "__name__", ""): m for m in members if is_dataclass(m)}

    def structure(data: Any, _: Any) -> Any:
        if isinstance(data, dict) and data.get("class") in named:
            return converter.structure(data, named[data["class"]])
        for member in members:
            if member not in named.values():
                try:
                    return converter.structure(data, member)
                except Exception:  # of whatever kind: it is none of this member
                    continue
        raise InputError(f"{data!r} is of no type in {' | '.join(str(m) for m in members)}")

    return structure


def _from_dataclass_hook(cls: Any) -> Callable[[Any], dict[str, Any]]:
    to_dict = make_dict_unstructure_fn(cls, _CONVERTER)
    return lambda value: {"class": cls.__name__, **to_dict(value)}


def _dataclass_hook(cls: Any) -> Callable[[Any, Any], Any]:
    from_dict = make_dict_structure_fn(cls, _CONVERTER, _cattrs_forbid_extra_keys=True)

    def structure(data: Any, _: Any) -> Any:
        if not isinstance(data, dict):
            raise InputError(f"expected the fields of {cls.__name__}, got {data!r}")
        return from_dict(_as_today(cls, data), cls)

    return structure


def _as_today(cls: Any, data: dict[str, Any]) -> dict[str, Any]:
    """The fields that an older version stored, in the places where they are now."""
    names = {field.name for field in fields(cls)}
    data = {key: value for key, value in data.items() if key != "class" and (key in names or key not in _RETIRED)}
    for field in fields(cls):
        if field.metadata.get("was_flat"):
            inner = {f.name for f in fields(field.type)} - names  # type: ignore[arg-type]
            moved = {key: data.pop(key) for key in list(data) if key in inner}
            data |= {field.name: moved} if moved else {}
    return data


for _kind in (bool, int, float, str, types.NoneType):
    _CONVERTER.register_structure_hook(_kind, _expect(_kind))
_CONVERTER.register_structure_hook(Path, _path)
_CONVERTER.register_unstructure_hook(Path, str)
_CONVERTER.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _literal)
_CONVERTER.register_structure_hook_factory(lambda kind: get_origin(kind) is tuple, _tuple_hook)
_CONVERTER.register_structure_hook_factory(lambda kind: get_origin(kind) in (Union, types.UnionType), _union_hook)
_CONVERTER.register_structure_hook_factory(is_dataclass, _dataclass_hook)
_CONVERTER.register_unstructure_hook_factory(is_dataclass, _from_dataclass_hook)
