"""Signatures as config schemas: every argument written in YAML is checked against the class that takes it.

Works on plain Python values; `launch/compose.py` is what knows Hydra.
"""

from __future__ import annotations

import difflib
import enum
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from beartype.door import is_bearable, is_subhint

TARGET, PARTIAL = "_target_", "_partial_"
_WRITABLE = (bool, int, float, str, list, tuple, dict, Path, types.NoneType)


def build(node: Mapping[str, Any], key: str, runtime: Mapping[str, Any]) -> Any:
    """Build the object a checked `_target_` node describes, inner nodes first.

    Raises ValueError for whatever `check` raises for.
    """
    arguments = check(node, key, runtime)
    target = locate(node[TARGET], f"{key}.{TARGET}")
    built = {name: _build_inner(value, f"{key}.{name}") for name, value in arguments.items()}
    if node.get(PARTIAL, False):
        return functools.partial(target, **built, **runtime)
    return target(**built, **runtime)


def check(node: Mapping[str, Any], key: str, runtime: Collection[str] | None = ()) -> dict[str, Any]:
    """Return the node's arguments, converted to what the signature of its `_target_` asks for.

    `runtime` names the arguments that the program adds (None: unknown, so absent keys are not judged). Raises
    ValueError with the full key for an unknown or missing key, for a value of the wrong type, for a wrong `_target_`.
    """
    if TARGET not in node:
        raise ValueError(
            f"{key}: has no {TARGET}, so it names nothing to build; choose a preset or write {key}.{TARGET}=<class>"
        )
    target = locate(node[TARGET], f"{key}.{TARGET}")
    given = {name: value for name, value in node.items() if name not in (TARGET, PARTIAL)}
    return check_arguments(target, given, key, None if node.get(PARTIAL, False) else runtime)


def check_arguments(
    target: Callable[..., Any], given: Mapping[str, Any], key: str, runtime: Collection[str] | None = ()
) -> dict[str, Any]:
    """Check `given` against the signature of `target` and convert the values (see `convert`)."""
    parameters = inspect.signature(target).parameters
    # A dataclass may inherit fields from another module, whose names only the class itself still leads to.
    signed = target if is_dataclass(target) or not inspect.isclass(target) else target.__init__
    hints = typing.get_type_hints(signed)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    named = [
        name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL, p.POSITIONAL_ONLY)
    ]
    taken = set(runtime or ())
    for name in given:
        if name in taken:
            raise ValueError(f"{key}.{name}: is set by the program, remove it from the config")
        if name not in named and not open_ended:
            raise ValueError(unknown_key(key, name, [other for other in named if other not in taken], target))
    if runtime is not None:
        for name in named:
            required = parameters[name].default is inspect.Parameter.empty
            if required and name not in given and name not in taken and _writable(hints.get(name, Any)):
                kind = describe(hints.get(name, Any))
                raise ValueError(
                    f"{key}.{name}: required by {path_of(target)} and not set, write {key}.{name}=<{kind}>"
                )
    return {name: convert(value, hints.get(name, Any), f"{key}.{name}") for name, value in given.items()}


def build_settings(settings_class: type, given: Mapping[str, Any], key: str) -> Any:
    """Build a settings dataclass from plain values and call its `validate()` where it has one."""
    settings = settings_class(**check_arguments(settings_class, given, key))
    if hasattr(settings, "validate"):
        settings.validate()
    return settings


def convert(value: Any, hint: Any, key: str) -> Any:
    """Return `value` as `hint` wants it: int -> float, list -> tuple, str -> enum or Path, mapping -> dataclass.

    A mapping with a `_target_` is checked (not built). Raises ValueError naming `key`, the value and what is allowed.
    """
    if isinstance(value, Mapping) and TARGET in value:
        _check_inner(value, hint, key)
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return convert(value, arguments[0], key)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, hint, arguments, key)
    if isinstance(value, list) and (origin or hint) in (list, tuple, Sequence, Iterable, Collection):
        return _convert_list(value, hint, key)
    if isinstance(value, Mapping):
        if inspect.isclass(hint) and is_dataclass(hint):
            return build_settings(hint, value, key)
        if (origin or hint) in (dict, Mapping) and len(arguments) == 2:
            return {name: convert(item, arguments[1], f"{key}.{name}") for name, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if inspect.isclass(hint) and issubclass(hint, enum.Enum) and not isinstance(value, hint):
        return _convert_enum(value, hint, key)
    if (hint is int and isinstance(value, bool)) or not is_bearable(value, hint):
        raise mismatch(value, hint, key)
    return value


def _convert_union(value: Any, hint: Any, arms: tuple[Any, ...], key: str) -> Any:
    if value is None and types.NoneType in arms:
        return None
    arms = tuple(arm for arm in arms if arm is not types.NoneType)
    if len(arms) == 1 and value is not None:
        return convert(value, arms[0], key)
    exact = [arm for arm in arms if arm not in (float, Path)]
    for arm in (*exact, *(arm for arm in arms if arm not in exact)):
        try:
            return convert(value, arm, key)
        except ValueError:
            continue
    raise mismatch(value, hint, key)


def _convert_list(value: list[Any], hint: Any, key: str) -> Any:
    container, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if container is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise ValueError(f"{key}: got {value!r} ({len(value)} values), expected {len(arguments)}: {describe(hint)}")
        item_hints = arguments
    else:
        item_hints = (arguments[0] if arguments else Any,) * len(value)
    items = [convert(item, each, f"{key}[{i}]") for i, (item, each) in enumerate(zip(value, item_hints, strict=True))]
    return tuple(items) if container is tuple else items


def _convert_enum(value: Any, hint: type[enum.Enum], key: str) -> enum.Enum:
    for member in hint:
        if value == member.value or value == member.name:
            return member
    raise mismatch(value, hint, key)


def _check_inner(node: Mapping[str, Any], hint: Any, key: str) -> None:
    check(node, key)
    target = locate(node[TARGET], f"{key}.{TARGET}")
    if not node.get(PARTIAL, False) and not is_subhint(target, hint):
        raise ValueError(f"{key}.{TARGET}: got {node[TARGET]}, expected {describe(hint)}")


def _build_inner(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if TARGET in value:
            return build(value, key, {})
        return {name: _build_inner(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_build_inner(item, f"{key}[{i}]") for i, item in enumerate(value))
    return value


def locate(path: Any, key: str) -> type:
    """Import the class at a dotted path. Raises ValueError where there is none, naming a package that is missing."""
    if not isinstance(path, str) or "." not in path:
        raise ValueError(f"{key}: got {path!r}, expected the dotted path of a class")
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ValueError(f"{key}: got {path!r}, but there is no module {error.name!r}") from error
        raise ValueError(f"{key}: {path} needs the package {error.name!r}, which is not installed") from error
    target = getattr(module, name, None)
    if not inspect.isclass(target):
        names = [other for other, member in vars(module).items() if inspect.isclass(member)]
        raise ValueError(f"{key}: got {path!r}, but {module_name} has no class {name!r}{suggestion(name, names)}")
    return target


def mismatch(value: Any, hint: Any, key: str) -> ValueError:
    """Make the error for a value that does not fit `hint`."""
    return ValueError(
        f"{key}: got {value!r} ({type(value).__name__}), expected {describe(hint)}{suggestion(value, choices(hint))}"
    )


def unknown_key(key: str, name: str, allowed: Sequence[str], owner: Any) -> str:
    """Say that `key.name` does not exist and what does."""
    guess = suggestion(name, allowed)
    known = ", ".join(allowed) if allowed else "none"
    return f"{key}.{name}: no such key for {path_of(owner)}{guess} (allowed: {known})"


def suggestion(got: Any, allowed: Sequence[str]) -> str:
    """Return "; did you mean 'x'?" for the closest of `allowed`, or nothing."""
    close = difflib.get_close_matches(str(got), allowed, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def choices(hint: Any) -> list[str]:
    """List the values of a Literal or an Enum, the arms of a union included."""
    if typing.get_origin(hint) is typing.Literal:
        return [str(choice) for choice in typing.get_args(hint)]
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return [str(member.value) for member in hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [choice for arm in typing.get_args(hint) for choice in choices(arm)]
    return []


def describe(hint: Any) -> str:
    """Write a type the way a config author reads it."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(describe(arm) for arm in typing.get_args(hint))
    if choices(hint):
        return "one of " + ", ".join(repr(choice) for choice in choices(hint))
    if hint is types.NoneType:
        return "null"
    if hint is Any:
        return "value"
    if inspect.isclass(hint) and not typing.get_args(hint):
        return hint.__name__ if hint.__module__ == "builtins" else path_of(hint)
    return str(hint).replace("typing.", "").replace("collections.abc.", "")


def path_of(target: Any) -> str:
    """Return the dotted path of a class."""
    return f"{target.__module__}.{target.__qualname__}"


def _writable(hint: Any) -> bool:
    """Tell whether YAML can hold a value of this type; what it cannot is handed in by the program."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_writable(arm) for arm in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    if kind is typing.Literal or (inspect.isclass(kind) and issubclass(kind, enum.Enum)):
        return True
    return kind in _WRITABLE or kind in (Sequence, Mapping, Iterable, Collection)
