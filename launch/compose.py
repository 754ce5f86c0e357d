"""Between the command line and plain Python: the only module that looks inside a DictConfig.

`entry` turns a `run(config)` into a command, `instantiate_part` builds what a `_target_` node describes, `settings`
fills a dataclass. All three refuse unknown keys and wrong types with one line that names the full key.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cami2v import signature
from launch.errors import USER_ERRORS, explain, fail

Settings = TypeVar("Settings")
Result = TypeVar("Result")
Run = Callable[[DictConfig], None]
Node = DictConfig | Mapping[str, Any]
"""A config node, or the same as plain values where a program has worked on it."""

FILE_LISTS = ("checkpoint", "init_from", "base")
"""Keys whose value may be several files."""

_FULL_ERROR = "HYDRA_FULL_ERROR"


def conf_folder() -> Path:
    """Return the folder of YAML files: beside this module in a wheel, at the root of a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "conf", here.parent / "conf"):
        if folder.is_dir():
            return folder
    raise ValueError(f"no conf folder beside {here}: the installation is incomplete, install cami2v again")


def entry(config_name: str) -> Callable[[Run], Callable[[], None]]:
    """Turn `run(config)` into the `main()` of a command that Hydra configures from conf/<config_name>.yaml.

    What a user got wrong ends with one line on stderr and exit code 2; other exceptions keep their traceback.
    """

    def decorate(run: Run) -> Callable[[], None]:
        def main() -> None:
            task = _task(config_name, run, os.environ.get(_FULL_ERROR))

            def start(overrides: list[str]) -> None:
                application = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)
                with _arguments(overrides), _environment(_FULL_ERROR, "1"):
                    application(task)()

            try:
                _with_optional_keys(start, expand_shorthands(sys.argv[1:], config_name))
            except USER_ERRORS as error:
                fail(error, sys.argv[1:])

        return functools.update_wrapper(main, run, assigned=("__module__", "__doc__"), updated=())

    return decorate


def _task(verb: str, run: Run, full_error: str | None) -> Run:
    """Wrap `run` so that its user errors end a single run at once, and a sweep only after its other jobs.

    A `cluster` that is a part starts the verb in our place.
    """

    @functools.wraps(run)
    def task(config: DictConfig) -> None:
        try:
            with _environment(_FULL_ERROR, full_error):
                cluster = config.get("cluster")
                if cluster is not None and signature.TARGET in cluster:
                    instantiate_part(cluster, "cluster").start(verb, config, job_arguments())
                else:
                    run(config)
        except USER_ERRORS as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            fail(error)

    return task


def compose_config(config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose conf/<config_name>.yaml as the command line would. Raises ValueError in one line for a wrong override."""
    arguments = expand_shorthands(overrides, config_name)

    def compose(overrides: list[str]) -> DictConfig:
        with hydra.initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
            return hydra.compose(config_name=config_name, overrides=overrides)

    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # a running command may compose another
    try:
        return _with_optional_keys(compose, arguments)
    except USER_ERRORS as error:
        raise ValueError(explain(error, arguments)) from error
    finally:
        GlobalHydra.instance().hydra = outer


def _with_optional_keys(attempt: Callable[[list[str]], Result], overrides: list[str]) -> Result:
    """Call `attempt`, again with `+` where an override sets a part's argument that no YAML mentions.

    The signature is the schema: Hydra only knows the keys that YAML files spell out.
    """
    while True:
        try:
            return attempt(overrides)
        except USER_ERRORS as error:
            key = _optional_argument(error)
            added = [f"+{item}" if key and _sets(item, key) else item for item in overrides]
            if added == overrides:
                raise
            overrides = added


def _sets(override: str, key: str) -> bool:
    name = override.partition("=")[0]
    return name == key or name.startswith(f"{key}.")


def _optional_argument(error: BaseException | None) -> str | None:
    """Return the full key that composition missed, if it is an argument of the part it belongs to."""
    while error is not None and not isinstance(error, OmegaConfBaseException):
        error = error.__cause__
    if error is None or not isinstance(error.parent_node, DictConfig):
        return None
    key, target = str(error.full_key), error.parent_node.get(signature.TARGET)
    if target is None or not error.full_key:
        return None
    parameters = inspect.signature(signature.locate(target, f"{key}.{signature.TARGET}")).parameters
    return key if key.rpartition(".")[2] in parameters else None


def instantiate_part(node: Node, key: str, **runtime: Any) -> Any:
    """Build the part that a `_target_` node describes; `runtime` are the arguments the program adds.

    Raises ValueError, before anything is built, for an unknown, missing or mistyped key anywhere below `key`.
    """
    return signature.build(plain(node, key), key, runtime)


def check_part(node: Node, key: str, runtime: Iterable[str] | None = ()) -> None:
    """Raise what `instantiate_part` would raise for this node, without building it.

    `runtime` names what the program will add. A required argument of a type YAML cannot hold is taken to be among it;
    with None every absent argument is.
    """
    signature.check(plain(node, key), key, None if runtime is None else set(runtime))


def part_keys(config: DictConfig) -> list[str]:
    """List the full keys of the outermost `_target_` nodes of a config."""
    found: list[str] = []

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict) and signature.TARGET in node:
            found.append(key)
        elif isinstance(node, dict):
            for name, inner in node.items():
                walk(inner, f"{key}.{name}" if key else str(name))
        elif isinstance(node, list):
            for index, inner in enumerate(node):
                walk(inner, f"{key}[{index}]")

    walk(OmegaConf.to_container(config, resolve=False), "")
    return found


def check_parts(config: DictConfig) -> None:
    """Raise what building the parts of a config would raise for their keys and types, without building any."""
    for key in part_keys(config):
        check_part(OmegaConf.select(config, key), key, None)


def settings(node: Node, settings_class: type[Settings], key: str) -> Settings:
    """Fill a dataclass from a config node; calls its `validate()` if it has one.

    Raises ValueError with the full key for an unknown, missing or mistyped field.
    """
    return signature.build_settings(settings_class, plain(node, key), key)


def plain(node: Node, key: str = "") -> dict[str, Any]:
    """Return a config node as plain dicts and lists, interpolations resolved."""
    if isinstance(node, Mapping) and not isinstance(node, DictConfig):
        return dict(node)
    if not isinstance(node, DictConfig):
        raise ValueError(f"{key}: got {node!r}, expected a mapping of settings; choose a preset of this group")
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)  # type: ignore[return-value]  # a mapping
    except USER_ERRORS as error:
        raise ValueError(explain(error)) from error


def job_arguments() -> list[str]:
    """Return the command line that composes the running job's config again; in a sweep, that job's share of it."""
    running = HydraConfig.get()
    folders = [source.path for source in running.runtime.config_sources if source.provider == "command-line"]
    own = [item for item in running.overrides.hydra if not item.startswith(("hydra.mode=", "hydra.sweep"))]
    return [*(item for folder in folders for item in ("--config-dir", folder)), *own, *running.overrides.task]


def running_choice(group: str) -> str | None:
    """Return which preset of a group the running command was started with; None for none, or where none runs."""
    choice = HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None
    return None if choice is None else str(choice)


def read_config(path: Path) -> DictConfig:
    """Read the config a finished run left behind. Raises ValueError where there is none or it cannot be read."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; expected the config.yaml of a run folder")
    try:
        config = OmegaConf.load(path)
    except (*USER_ERRORS, yaml.YAMLError, OSError) as error:
        raise ValueError(f"{path}: not a readable config ({' '.join(str(error).split())})") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"{path}: not a config, its top level must be key: value")
    return config


def as_yaml(config: DictConfig) -> str:
    """Write a config as YAML, interpolations resolved."""
    return OmegaConf.to_yaml(config, resolve=True)


def expand_shorthands(arguments: Sequence[str], config_name: str = "train") -> list[str]:
    """Replace `data=<folder that has manifest.json, or a URL>` by `data.shards=`, and files joined by commas by a list.

    `--dry-run` means `dry_run=true`. In `sample`, `app`, `evaluate` and `export`, `experiment=` means
    `from_experiment=`: it names a config to load weights into, where Hydra would merge it into this one. All documented
    in docs/. Raises ValueError for a `data=` value that is neither such a folder nor a preset.
    """
    sweeping = any(item in ("-m", "--multirun") for item in arguments)
    expanded = ["dry_run=true" if item == "--dry-run" else item for item in arguments]
    expanded = [_expand_data(item, arguments) if item.startswith("data=") else item for item in expanded]
    if config_name in ("sample", "app", "evaluate", "export"):
        expanded = [f"from_{item}" if item.startswith("experiment=") else item for item in expanded]
    return expanded if sweeping else [_expand_files(item) for item in expanded]


def _expand_files(argument: str) -> str:
    """Write `checkpoint=<base>,<delta>` as the list it means; Hydra would take it for a sweep."""
    key, _, value = argument.partition("=")
    if key not in FILE_LISTS or "," not in value or value[0] in "[\"'":
        return argument
    return f"{key}=[{','.join(quote(part.strip()) for part in value.split(','))}]"


def _expand_data(argument: str, arguments: Sequence[str]) -> str:
    values = argument.removeprefix("data=").split(",")
    presets = sorted(path.stem for folder in _data_folders(arguments) for path in folder.glob("*.yaml"))
    if all(value in (*presets, "null") for value in values):
        return argument
    for value in values:
        folder = Path(value.strip("'\"")).expanduser()
        if "://" not in value and not (folder / "manifest.json").is_file():
            seen = "that folder has no manifest.json" if folder.is_dir() else "there is no such folder"
            raise ValueError(
                f"data={value}: expected a shard set (a folder with manifest.json, as `cami2v pack` writes)"
                f" or a preset ({', '.join(presets) or 'none'}), but {seen}"
            )
    return "data.shards=" + ",".join(quote(_folder_or_address(value.strip("'\""))) for value in values)


def _folder_or_address(value: str) -> str:
    return value if "://" in value else str(Path(value).expanduser())


def _data_folders(arguments: Sequence[str]) -> list[Path]:
    folders = [conf_folder()]
    for position, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            folders.append(Path(value or "".join(arguments[position + 1 : position + 2])))
    return [folder / "data" for folder in folders]


def quote(value: str) -> str:
    """Quote a string so that Hydra's override grammar takes it literally."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return value if all(c.isalnum() or c in "/-_.:%+@" for c in value) and value else f'"{escaped}"'


@contextmanager
def _arguments(overrides: Sequence[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = [before[0], *overrides]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    before = os.environ.get(name)
    _set_environment(name, value)
    try:
        yield
    finally:
        _set_environment(name, before)


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
