"""A scan of the pickles that PyTorch writes, without creating anything they name.

`torch.load(weights_only=True)` refuses to run code, but it allocates the memory that a file claims to need before it
checks that the file holds as much, and it cannot describe a file of the old format without reading all of it. This
scan reads the same pickle first, with a stand-in for everything: a tensor is a shape, a type and its storage. A name
that is not on the list below is refused.
"""

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

import torch

_LARGEST_PICKLE = 256 << 20  # bytes; a state dict of a thousand tensors takes a tenth of a MiB

# What torch.save and pickle write at protocol 2 to 5, without what makes objects in other ways or takes memory ahead.
_OPCODES = frozenset(
    pickle.PROTO + pickle.STOP + pickle.FRAME + pickle.MARK + pickle.POP + pickle.POP_MARK + pickle.NONE
    + pickle.NEWTRUE + pickle.NEWFALSE + pickle.INT + pickle.LONG + pickle.BININT + pickle.BININT1 + pickle.BININT2
    + pickle.LONG1 + pickle.LONG4 + pickle.BINFLOAT + pickle.FLOAT + pickle.BINUNICODE + pickle.SHORT_BINUNICODE
    + pickle.BINUNICODE8 + pickle.BINSTRING + pickle.SHORT_BINSTRING + pickle.BINBYTES + pickle.SHORT_BINBYTES
    + pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3 + pickle.EMPTY_LIST
    + pickle.APPEND + pickle.APPENDS + pickle.EMPTY_DICT + pickle.SETITEM + pickle.SETITEMS + pickle.EMPTY_SET
    + pickle.ADDITEMS + pickle.BINPUT + pickle.LONG_BINPUT + pickle.BINGET + pickle.LONG_BINGET + pickle.MEMOIZE
    + pickle.GLOBAL + pickle.STACK_GLOBAL + pickle.REDUCE + pickle.BUILD + pickle.NEWOBJ + pickle.BINPERSID
)  # fmt: skip


class Refused(Exception):
    """The pickle asks for something that a checkpoint does not need; the message says what."""


@dataclass(frozen=True)
class Storage:
    """A stretch of values in the file: its key there, its length and its type."""

    key: str
    numel: int
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class TensorInfo:
    """A tensor without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage: Storage | None = field(default=None, compare=False, repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass
class Scanned:
    """A scanned pickle: its contents with `TensorInfo` for tensors, its storages by key, the harmless names it uses."""

    values: Any
    storages: dict[str, Storage]
    names: set[str]


class Opaque:
    """Something harmless whose contents do not matter here: an `argparse.Namespace`, a number of NumPy."""

    def __init__(self, *_: Any) -> None: ...


class _Limited:
    """The file up to a limit: a claim to more bytes than there are takes no memory."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._left:
            raise Refused("it claims to be longer than the file")
        self._left -= size
        return self._file.read(size)

    def readline(self, size: int | None = -1) -> bytes:
        line = self._file.readline(min(self._left, 1 << 16))
        self._left -= len(line)
        return line


def _refuse_operation(scanner: Any) -> None:
    raise Refused("it makes objects in a way that no checkpoint needs")


class _Scanner(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Python's own unpickler with fewer opcodes, and stand-ins for every name."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: read if code in _OPCODES else _refuse_operation
        for code, read in pickle._Unpickler.dispatch.items()  # pyright: ignore[reportAttributeAccessIssue]
    }

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}
        self.names: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        stand_in = _stand_in(module, name)
        if stand_in is None:
            raise Refused(f"it asks for {full}")
        self.names.add(full)
        return stand_in

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], torch.dtype):
            raise Refused(f"it refers to {str(pid)[:80]!r} outside of it")
        if len(pid) > 5 and pid[5] is not None:
            raise Refused("it has views of storages, which PyTorch has not written since 2017")
        _, dtype, key, _, numel = pid[:5]
        storage = Storage(str(key), _natural(numel), dtype)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise Refused(f"it describes the storage {storage.key} in two ways")
        return storage

    def load_reduce(self) -> None:
        function = self.stack[-2]  # type: ignore[attr-defined]
        if function is not Opaque and not any(function is known for known in _STAND_INS.values()):
            raise Refused("it calls what is no constructor of tensors")
        super().load_reduce()  # pyright: ignore[reportAttributeAccessIssue]

    def load_newobj(self) -> None:
        if self.stack[-2] is not Opaque:  # type: ignore[attr-defined]
            raise Refused("it makes an object of a class that no checkpoint needs")
        super().load_newobj()  # pyright: ignore[reportAttributeAccessIssue]

    def load_build(self) -> None:
        # The state of a Namespace and the attributes of a dictionary are of no interest, and nothing else has any.
        self.stack.pop()  # type: ignore[attr-defined]
        if type(self.stack[-1]) not in (Opaque, OrderedDict):  # type: ignore[attr-defined]
            raise Refused("it changes an object that is not its own")

    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.BUILD[0]: load_build,
    }


# What a training script leaves beside the tensors: its arguments, and accuracies as numbers of NumPy. A Namespace only
# stores attributes and a scalar only bytes; whatever is in them has to be on the list too.
NUMPY_SCALARS = frozenset({"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"})
NAMESPACE = "argparse.Namespace"


def scan(file: BinaryIO, limit: int) -> Scanned:
    """Scan the one pickle that begins here.

    Args:
        file: a binary file; it stands behind the pickle afterwards.
        limit: bytes that there are.

    Raises:
        Refused: it asks for anything but tensors and plain values, or claims what cannot be.
        pickle.UnpicklingError, EOFError: it is damaged.
    """
    scanner = _Scanner(_Limited(file, min(limit, _LARGEST_PICKLE)))
    try:
        values = scanner.load()
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, AssertionError) as error:
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error
    return Scanned(values, scanner.storages, scanner.names)


def _stand_in(module: str, name: str) -> Any:
    if f"{module}.{name}" in NUMPY_SCALARS or f"{module}.{name}" == NAMESPACE:
        return Opaque
    if module in ("torch", "torch.cuda", "torch.storage") and name.endswith("Storage"):
        return _STORAGE_TYPES.get(name)
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return getattr(torch, name)
    return _STAND_INS.get(f"{module}.{name}")


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise Refused(f"it has a size of {str(value)[:40]}")
    return value


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorInfo:
    if not isinstance(storage, Storage):
        raise Refused("it has a tensor without a storage")
    shape, strides = tuple(map(_natural, size)), tuple(map(_natural, stride))
    if len(shape) != len(strides):
        raise Refused(f"it has a tensor of shape {shape} with {len(strides)} strides")
    numel = math.prod(shape)
    last = _natural(offset) + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
    if numel and (last >= storage.numel or numel > storage.numel):
        raise Refused(f"it has a tensor of shape {shape} in a storage of {storage.numel} numbers")
    return TensorInfo(shape, storage.dtype, storage)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _ordered_dict(*entries: Any) -> OrderedDict[Any, Any]:
    return OrderedDict(*entries)


def _text_as_bytes(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise Refused(f"it asks for text encoded as {encoding[:20]!r}")
    return text.encode("latin1")


_STORAGE_TYPES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_STAND_INS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": Opaque,
    "_codecs.encode": _text_as_bytes,
}
