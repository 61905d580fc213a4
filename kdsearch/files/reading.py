"""Read files from other programs; any fault in a file is a one-line error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.errors import DataError, UserError


@contextmanager
def reading(
    path: object, expected: str, error_type: type[UserError] = DataError
) -> Iterator[None]:
    """Turn any error of a reader on a damaged file into one line.

    NumPy, zipfile and wfdb have no specific error for a damaged file: a flipped bit gives
    anything from zlib.error to MemoryError. So everything is caught, but only around the
    reading itself.

    Args:
        path: Names the file in the message.
        expected: What it should be, with its article: ``a readable .npz file``.
        error_type: The type of the error that is raised instead.

    Raises:
        UserError: Of that type; a `UserError` of the body passes as it is.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except OSError as error:
        if error.strerror is None:
            raise error_type(f"{path}: not {expected} ({_reason(error)})") from None
        raise error_type(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001
        raise error_type(f"{path}: not {expected} ({_reason(error)})") from None


def read_arrays(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    """Read every array of an .npz file; call it inside `reading`."""
    # Pickles can run any code when they are read, so they are never allowed.
    archive = np.load(file, allow_pickle=False)
    if isinstance(archive, np.ndarray):
        raise ValueError("a single array, not an .npz file")
    with archive:
        return {name: archive[name] for name in archive.files}


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "pickle" in text.lower() or "object arrays" in text.lower():
        return "holds Python objects (pickles), or something else than plain arrays"
    return f"{type(error).__name__}: {text}"[:160] if text else type(error).__name__
