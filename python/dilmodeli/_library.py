"""The C library behind the package: finding it, calling it, its errors as exceptions, arrays without copies.

Everything here is private to the package. The declarations in ``_bindings`` are made from ``include/dilmodeli.h`` when the package is
built; no number of the interface is written down twice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import numpy.typing as npt

from ._bindings import ffi as ffi

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Progress = Callable[[str, int, int], Optional[bool]]
"""Called as ``progress(what, done, total)`` during long work; ``False`` stops it."""


def _library_path() -> str:
    given = os.environ.get("DILMODELI_LIBRARY")
    return given if given else str(Path(__file__).parent / "libdilmodeli.so.1")


def _open() -> Any:
    path = _library_path()
    try:
        library = ffi.dlopen(path)
    except OSError as e:
        raise ImportError(
            f"dilmodeli: {path}: {e}; the package was built without its library, or DILMODELI_LIBRARY names another file"
        ) from e
    if library.dil_abi() != library.DIL_ABI:
        raise ImportError(f"dilmodeli: {path}: wanted interface {library.DIL_ABI}, found {library.dil_abi()}")
    return library


lib = _open()
__version__: str = ffi.string(lib.dil_version()).decode()


# ---- errors ----


class DilError(RuntimeError):
    """What the library could not do. The text names the object, what was wanted and what was found."""


class DilMemoryError(DilError, MemoryError):
    """An allocation failed or a memory budget would be exceeded."""


class DilIOError(DilError, OSError):
    """The operating system refused to read or write."""


class DilFormatError(DilError, ValueError):
    """A file or text is malformed."""


class DilUnsupportedError(DilError, NotImplementedError):
    """Well-formed, but not something this build can do."""


class DilArgumentError(DilError, ValueError):
    """An argument that makes no sense."""


class DilLimitError(DilError, ValueError):
    """A stated limit (context, room, length) is exceeded."""


class DilBusyError(DilError):
    """The object is in use by a call that has not ended."""


class DilCancelled(DilError):
    """Progress said stop."""


_ERRORS = {
    "DIL_NO_MEMORY": DilMemoryError,
    "DIL_IO": DilIOError,
    "DIL_FORMAT": DilFormatError,
    "DIL_UNSUPPORTED": DilUnsupportedError,
    "DIL_BAD_ARGUMENT": DilArgumentError,
    "DIL_LIMIT": DilLimitError,
    "DIL_BUSY": DilBusyError,
    "DIL_CANCELLED": DilCancelled,
}
_BY_STATUS = {int(getattr(lib, name)): kind for name, kind in _ERRORS.items()}


def text_of(chars: Any) -> str:
    """A NUL-terminated text of the library's."""
    return str(ffi.string(chars).decode("utf-8", "replace"))


def call(function: Any, *arguments: Any) -> None:
    """Calls ``function(*arguments, err)`` and raises what went wrong."""
    error = ffi.new("dil_error *")
    status = function(*arguments, error)
    if status != lib.DIL_OK:
        raise _BY_STATUS.get(int(status), DilError)(text_of(error.text) or text_of(lib.dil_status_name(status)))


def filled(function: Any, kind: str, *arguments: Any) -> Any:
    """Calls ``function(*arguments, out, err)`` for a struct that says its size; returns the struct."""
    out = struct(kind)
    call(function, *arguments, out)
    return out


def struct(kind: str) -> Any:
    """A zeroed struct that says how far it reaches."""
    out = ffi.new(kind + " *")
    out.struct_size = ffi.sizeof(kind)
    return out


def path_bytes(path: str | os.PathLike[str]) -> bytes:
    """A path as C wants it."""
    return os.fsencode(path)


# ---- arrays ----


def as_f32(values: Any, name: str, *shape: int | None) -> F32:
    """``values`` as contiguous float32, without a copy where it is that already. ``shape``: what is wanted, ``None``: any length."""
    try:
        array = np.ascontiguousarray(values, dtype=np.float32)
    except (TypeError, ValueError) as e:
        raise DilArgumentError(f"{name}: wanted numbers, found {type(values).__name__} ({e})") from e
    if shape and (array.ndim != len(shape) or any(w is not None and w != n for w, n in zip(shape, array.shape))):
        wanted = " x ".join("any" if w is None else str(w) for w in shape)
        raise DilArgumentError(f"{name}: wanted {wanted} numbers, found {' x '.join(map(str, array.shape)) or 'one number'}")
    return array


def as_i32(values: Any, name: str) -> I32:
    """Whole numbers as contiguous int32; others are an error, not rounded."""
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise DilArgumentError(f"{name}: wanted whole numbers, found {array.dtype}")
    if array.size and (array.min() < -(2**31) or array.max() >= 2**31):
        raise DilArgumentError(f"{name}: wanted 32-bit numbers, found {array.min()}..{array.max()}")
    return np.ascontiguousarray(array, dtype=np.int32)


def pointer(array: npt.NDArray[Any] | None) -> Any:
    """The array's memory as C sees it; the array must live until the call is over."""
    if array is None:
        return ffi.NULL
    kinds = {"float32": "float[]", "float64": "double[]", "int32": "int32_t[]", "int64": "int64_t[]"}
    return ffi.from_buffer(kinds[array.dtype.name], array)


def view_f32(memory: Any, *shape: int) -> F32:
    """Memory of the library's as an array that must be copied before the next call."""
    n = int(np.prod(shape))
    return np.frombuffer(ffi.buffer(memory, n * 4), dtype=np.float32).reshape(shape)


# ---- long work ----


class Watch:
    """Progress of one call, ctrl-C during it, and stopping it from another thread.

    >>> with Watch(None) as w:  # doctest: +SKIP
    ...     call(lib.dil_quantize, ..., options_with(w.progress))
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._told = progress
        self._failure: BaseException | None = None
        self.stopped = False
        self.progress = ffi.callback("dil_progress_fn", self._tell, error=False, onerror=self._failed)

    def _tell(self, _user: Any, what: Any, done: int, total: int) -> bool:
        return not self.stopped and (self._told is None or self._told(text_of(what), int(done), int(total)) is not False)

    def _failed(self, _kind: Any, failure: BaseException, _trace: Any) -> None:
        self._failure = self._failure or failure

    def on_text(self, receive: Callable[[str], bool | None]) -> Any:
        """A ``dil_text_fn`` that gives whole pieces of text to ``receive``; ``False`` stops."""

        def tell(_user: Any, text: Any, n: int) -> bool:
            return not self.stopped and receive(ffi.buffer(text, n)[:].decode("utf-8", "replace")) is not False

        return ffi.callback("dil_text_fn", tell, error=False, onerror=self._failed)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, _kind: Any, failure: BaseException | None, _trace: Any) -> None:
        if self._failure is not None:  # what a callback raised, ctrl-C among it, is the reason for whatever came of it
            raise self._failure from None
