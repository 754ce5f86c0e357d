"""`cami2v weights list|fetch|check`: the released files, their download, and what a file at hand is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from cami2v.checkpoints.diagnosis import CAMERA
from cami2v.checkpoints.hub import GIGABYTE, HubFile, ask_hub, fetch
from cami2v.checkpoints.load_released import match_released
from cami2v.checkpoints.local_weights import FETCHED
from cami2v.checkpoints.recognise import Recognised, recognise
from cami2v.checkpoints.released_files import RELEASED_FILES, ReleasedFile, find_released, released_with_hash
from cami2v.checkpoints.released_names import released_names
from cami2v.checkpoints.report import RefusedWeightsError, Role
from cami2v.file_hash import file_sha256
from cami2v.model import VideoDiffusion
from launch.build import build_skeleton
from launch.compose import compose_config, quote
from launch.errors import USER_ERRORS, fail

FOLDER = FETCHED
UNKNOWN = "not known here; asked from the hub at fetch"


class OneLineParser(argparse.ArgumentParser):
    """A parser that raises what it would print with its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(f"{self.prog}: {message}; see {self.prog} --help")


def main() -> None:
    """Run one sub-verb; what a user got wrong ends with one line and exit code 2."""
    try:
        arguments = parser().parse_args(sys.argv[1:])
        run: Callable[[argparse.Namespace], None] = arguments.run
        run(arguments)
    except USER_ERRORS as error:
        fail(error)
    except KeyboardInterrupt:
        print("stopped; the same command continues a download", file=sys.stderr)
        raise SystemExit(130) from None


def parser() -> argparse.ArgumentParser:
    """Return the command line of `cami2v weights`."""
    top = OneLineParser(prog="cami2v weights", description="the released weights files")
    verbs = top.add_subparsers(required=True, metavar="list|fetch|check")
    listing = verbs.add_parser("list", help="names, sizes and licences")
    listing.add_argument("--remote", action="store_true", help="ask the hub what it has now")
    listing.set_defaults(run=list_files)
    fetching = verbs.add_parser("fetch", help="download, continue a download, verify")
    fetching.add_argument("names", nargs="+", metavar="NAME", help="as `cami2v weights list` names them")
    fetching.add_argument("--to", type=Path, default=FOLDER, help="folder; below it <repository>/<file>")
    fetching.add_argument("--revision", help="commit, tag or branch of the repository; default: its main branch")
    fetching.add_argument("--file", help="the file's name in the repository, for one NAME")
    fetching.set_defaults(run=fetch_files)
    checking = verbs.add_parser("check", help="what a file is, and the command that uses it")
    checking.add_argument("files", nargs="+", type=Path, metavar="FILE")
    checking.set_defaults(run=check_files)
    return top


def list_files(arguments: argparse.Namespace) -> None:
    """Print the catalogue, or what the hub has in its repositories."""
    if arguments.remote:
        for repository in dict.fromkeys(file.repository for file in RELEASED_FILES):
            print(repository)
            for hub_file in ask_hub(repository).values():
                print(f"  {hub_file.path}: {_size(hub_file)}, licence {hub_file.licence or 'not tagged'}")
        return
    for file in RELEASED_FILES:
        size = f"{file.gigabytes:.2f} GB" if file.gigabytes else f"size {UNKNOWN}"
        print(f"{file.name}  ({file.role}, {size})")
        print(f"  {file.repository} {file.file or f'(file name {UNKNOWN})'}")
        print(f"  licence: {file.licence or UNKNOWN}")
        print(f"  for: {file.used_by or ', '.join(file.experiments)}{f', over {file.base}' if file.base else ''}")
        print(f"  known from: {file.evidence}")


def fetch_files(arguments: argparse.Namespace) -> None:
    """Download files, one after the other; every name is looked up before the first download."""
    if arguments.file and len(arguments.names) > 1:
        raise ValueError(f"--file {arguments.file}: goes with one NAME, got {len(arguments.names)}")
    chosen = [find_released(name) for name in arguments.names]
    described = [_on_hub(file, arguments.file, arguments.revision) for file in chosen]
    for file, hub_file in zip(chosen, described, strict=True):
        target = arguments.to / hub_file.repository / hub_file.path
        print(f"{file.name}: {hub_file.repository}/{hub_file.path} at {hub_file.revision[:12]}, {_size(hub_file)}")
        print(f"  licence: {_licence(file, hub_file)}")
        if file.sha256 and hub_file.sha256 and file.sha256 != hub_file.sha256:
            print(f"  note: the hub's file is another one than was known here (sha256 {file.sha256}): replaced since")
        fetch(hub_file, target, say=lambda line: print(f"  {line}", flush=True))
        print(f"  verified: {_verified(hub_file)}\n  {target}")
        print("\n".join(f"  {command}" for command in uses(file, target, arguments.to)))


def _on_hub(file: ReleasedFile, path: str | None, revision: str | None) -> HubFile:
    held = ask_hub(file.repository, revision=revision)
    wanted = path or file.file
    if wanted is None:
        known = {other.file for other in RELEASED_FILES if other.repository == file.repository}
        others = [name for name in held if name.endswith((".safetensors", ".pt", ".ckpt")) and name not in known]
        raise ValueError(
            f"{file.name}: its file name is not known here; {file.repository} has beside the known ones: "
            f"{', '.join(others) or 'no weights'}; name one with --file"
        )
    if wanted not in held:
        raise ValueError(
            f"{file.name}: {file.repository} has no {wanted} (it has: {', '.join(held) or 'nothing'}); "
            "name another with --file"
        )
    return held[wanted]


def check_files(arguments: argparse.Namespace) -> None:
    """Say what each file is; exit with 2 where one is not a complete file of a known model."""
    complete = [_check(path) for path in arguments.files]
    if not all(complete):
        raise SystemExit(2)


def _check(path: Path) -> bool:
    if path.is_file() and (judge := released_with_hash(file_sha256(path))) and judge.role == "judge":
        print(f"{path}: judge, the released {judge.name}")
        print("\n".join(f"  {line}" for line in uses(judge, path)))
        return True
    found = recognise(path)
    archive = found.weights.archive
    digest = file_sha256(archive.path)
    known = released_with_hash(digest)
    print(f"{path}: {found.role}, {len(archive.tensors)} tensors, {archive.layout}")
    print(f"  sha256 {digest}: {f'the released {known.name}' if known else 'of no released file known here'}")
    experiments = known.experiments if known else _experiments(found)
    if not known and found.ambiguity:
        print(f"  note: {found.ambiguity}")
    if not experiments:
        print("  incomplete: no published experiment has this combination of camera method and backbone")
        return False
    wrong = None if found.role == "depth" else _fault(found, experiments[0])
    if wrong:
        print(f"  incomplete: {wrong}")
        return False
    print("\n".join(f"  {line}" for line in commands(found.role, experiments, path, _base(experiments))))
    return True


def _experiments(found: Recognised) -> tuple[str, ...]:
    """Return what a file may belong to; for a base, all that starts from it."""
    if found.role != "base":
        return found.experiments
    return next(f.experiments for f in RELEASED_FILES if f.role == "base" and f.experiments[0] == found.experiments[0])


def _fault(found: Recognised, experiment: str) -> str | None:
    """Compare names and shapes with the full-size model of an experiment; None where they are complete."""
    model = build_skeleton(compose_config("train", [f"experiment={experiment}"]))
    if found.role == "delta":
        return _delta_fault(found, model)
    try:
        match_released([found.weights.path], model, camera_may_be_missing=found.role == "base")
    except RefusedWeightsError as error:
        return str(error).removeprefix(f"{found.weights.path}: ")
    return None


def _delta_fault(found: Recognised, model: VideoDiffusion) -> str | None:
    needed = {name: tuple(value.shape) for name, value in model.named_parameters()}
    trained = model.select_trainable("camera")
    spelt = released_names(needed)
    lacking = [spelt[name] for name in trained if name not in found.weights.ours]
    if lacking:
        return f"{len(lacking)} of {len(trained)} trained weights are missing (first: {lacking[0]})"
    for name in found.weights.ours:
        if found.weights.shape(name) != needed.get(name):
            return f"{found.weights.ours[name]} has shape {found.weights.shape(name)}, the model's {needed.get(name)}"
    if found.weights.unknown:
        return f"{len(found.weights.unknown)} unknown names (first: {found.weights.unknown[0]})"
    extra = [name for name in found.weights.ours if name not in trained and CAMERA.fullmatch(name)]
    return f"{len(extra)} weights that nothing trains (first: {extra[0]})" if extra else None


def uses(file: ReleasedFile, place: Path, folder: Path = FOLDER) -> list[str]:
    """Return the command lines that use a released file at `place`."""
    if file.role == "judge":
        return [f"measure: cami2v evaluate checkpoint=RUN {file.used_by.replace('FILE', quote(str(place)))}"]
    return commands(file.role, file.experiments, place, _base(file.experiments), folder)


def commands(role: Role, experiments: Sequence[str], file: Path, base: str | None, folder: Path = FOLDER) -> list[str]:
    """Return the command lines that use a file, as a shell takes them once the words in capitals are replaced."""
    path, first = quote(str(file)), experiments[0]
    over = quote(str(_place(find_released(base), folder))) if base else "BASE"
    rest = "image=IMAGE caption=TEXT trajectory=orbit_right"
    if role == "depth":
        depth = "overrides=['depth=depth_anything_v2_hypersim_vitl']"
        return [f'sample: cami2v sample experiment={first} "{depth}" checkpoint={over},DELTA,{path} {rest}']
    if role == "delta":
        return [f"sample: cami2v sample experiment={first} checkpoint={over},{path} {rest}"]
    sampling = [f"sample: cami2v sample experiment={first} checkpoint={path} {rest}"]
    if role == "full":
        return [*sampling, f"train on: cami2v train experiment={first} init_from={path} data=SHARDS"]
    trained = [name for name in experiments if not name.startswith("dynamicrafter")]
    return [*sampling, *(f"train: cami2v train experiment={name} init_from={path} data=SHARDS" for name in trained)]


def _base(experiments: Sequence[str]) -> str | None:
    """Return the base of the deltas of an experiment."""
    return next((file.base for file in RELEASED_FILES if file.base and experiments[0] in file.experiments), None)


def _place(file: ReleasedFile, folder: Path) -> Path:
    """Return where `fetch` puts a file."""
    return folder / file.repository / (file.file or "FILE")


def _size(hub_file: HubFile) -> str:
    return "size not given by the hub" if hub_file.size is None else f"{hub_file.size / GIGABYTE:.2f} GB"


def _licence(file: ReleasedFile, hub_file: HubFile) -> str:
    here = f"{file.licence} ({file.evidence})" if file.licence else f"unclear ({file.evidence})"
    return f"hub tag {hub_file.licence}; here: {here}" if hub_file.licence else f"no tag on the hub; here: {here}"


def _verified(hub_file: HubFile) -> str:
    return f"size and sha256 {hub_file.sha256}" if hub_file.sha256 else "size only, the hub has no sha256"


if __name__ == "__main__":
    main()
