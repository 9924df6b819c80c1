"""Silence for third-party exporters: their progress, warnings about their internals, and log lines."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator

# They log below their own name whatever is done with Python's root logger.
_LOGGERS = ("torch", "onnxscript", "onnx_ir", "onnxruntime", "nncf", "executorch", "torchao", "openvino")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, log lines below an error and output printed from Python; exceptions pass."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def quiet_process() -> Iterator[None]:
    """As `quiet`, and silence what compiled code writes to standard error too."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        with quiet():
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
