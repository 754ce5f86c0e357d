"""One line for what a user got wrong, whoever noticed it: this house, Hydra or OmegaConf."""

from __future__ import annotations

import errno
import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from cami2v.signature import suggestion

USER_ERRORS = (ValueError, HydraException, OmegaConfBaseException)
"""What ends a command with one line and exit code 2; anything else is a bug and keeps its traceback."""

EXIT_CODE = 2
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
_ROOMS = ("cami2v", "data_pipeline", "launch", "tools", "hydra", "omegaconf")


def fail(error: BaseException, overrides: Sequence[str] = ()) -> NoReturn:
    """Print `error: <one line>` on stderr and exit with code 2; CAMI2V_TRACEBACK=1 prints the traceback first."""
    if os.environ.get("CAMI2V_TRACEBACK") == "1":
        traceback.print_exception(error)
    line = explain(error, overrides)
    outside = _raised_outside(error.__traceback__)
    if outside:
        line = f"{line} (raised inside {outside}; CAMI2V_TRACEBACK=1 shows where)"
    print(f"error: {line}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CODE)


def disk_refusal(error: OSError) -> str | None:
    """Return one line for a full, read-only or failing disk; None for other errors, which are bugs."""
    if error.errno not in _REFUSALS:
        return None
    return (
        f"{error.filename or 'a file'}: cannot be written ({error.strerror}); the last checkpoint is as it was. Free "
        "space or choose another disk (paths.runs), then continue with resume=auto"
    )


def explain(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """Return the error in one line: the key, what was got, what is allowed."""
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: expected key=value, with quotes around symbols: key='\"a (b)\"'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        return _unknown_preset(error)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return _config_key(cause, overrides)
    return _one_line(str(error)) or type(error).__name__


def _unknown_preset(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    listed = ", ".join(options) or "none"
    more = "; pip install 'cami2v[submitit]' brings submitit_*" if group == "hydra/launcher" else ""
    return f"{group or 'config'}={name}: no such preset{suggestion(name, options)} (choose from: {listed}{more})"


def _config_key(error: OmegaConfBaseException, overrides: Sequence[str]) -> str:
    full_key = str(error.full_key)
    first_line = _one_line(str(error.msg or error).partition("full_key:")[0])
    if isinstance(error, (AttributeError, KeyError)):
        given = next((item for item in overrides if item.lstrip("+~").partition("=")[0] == full_key), full_key)
        siblings = [str(n) for n in error.parent_node if n != "hydra"] if hasattr(error.parent_node, "keys") else []
        parent, _, name = full_key.rpartition(".")
        listed = ", ".join(siblings) or "none"
        return f"{given}: no such key{suggestion(name, siblings)} (keys of {parent or 'the config'}: {listed})"
    if "???" in first_line or "mandatory value" in first_line.lower():
        return f"{full_key}: required and not set, write {full_key}=<value>"
    return f"{full_key}: {first_line}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _raised_outside(trace: TracebackType | None) -> str | None:
    """Return the installed package whose code raised; None where this house's code or the user's own did."""
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    installed = tuple(sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib"))
    outside = package not in _ROOMS and trace.tb_frame.f_code.co_filename.startswith(installed)
    return package if outside else None
