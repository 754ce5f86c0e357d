"""Camera paths from videos: one small interface, several estimators."""

import importlib
import signal
import threading


def _import_pycolmap() -> None:
    """Import pycolmap and give SIGTERM back: on import, its glog takes the signal and answers with a stack trace.

    A trainer that validates in the same process would otherwise never hear of its preemption.
    """
    before = signal.getsignal(signal.SIGTERM)
    importlib.import_module("pycolmap")
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


_import_pycolmap()
