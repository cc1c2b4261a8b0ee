"""The other side of `pickled`: a process of its own that says where in PyTorch's zip file each tensor lies.

It is run by its path and imports the standard library alone.  A pickle is a program; here it is never run, but read as
data by a machine that knows the instructions which tensors are written with, and calls nothing.
"""

from __future__ import annotations

import json
import pickletools
import struct
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

_LARGEST = 64_000_000  # bytes of the pickle, which holds names and shapes alone
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # linux/sched.h
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


class _Bad(Exception):
    pass


@dataclass(frozen=True)
class _Name:
    """Something that the pickle names: of which module, and what."""

    text: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str | None


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


def main() -> None:
    """Read the file that stdin is; the arguments are seconds of processor time and bytes of memory."""
    "".encode("cp437")  # what a zip file's names may be in; nothing can be imported later
    with open(0, "rb", closefd=False) as file:
        apart = _apart(int(sys.argv[1]), int(sys.argv[2]))
        try:
            told: dict[str, Any] = {"tensors": _tensors(file)}
        except _Bad as bad:
            told = {"problem": str(bad)}
        except MemoryError:
            told = {"problem": "takes more memory to read than it may"}
        except Exception as error:  # whatever the file makes happen is a fact about it
            told = {"problem": f"cannot be read: {type(error).__name__}: {str(error)[:200]}"}
    print(json.dumps({"apart": apart, **told}))  # noqa: T201  the answer


def _apart(seconds: int, memory: int) -> list[str]:
    """Give up what reading does not need; what could be given up, in words."""
    done = []
    if _without_network():
        done.append("a network namespace of its own")
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # stdin, stdout, stderr: no file, no socket beside them
        done.append("no file and no socket can be opened")
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        done.append(f"{seconds} s of processor time and {memory >> 20} MiB of memory")
    sys.addaudithook(_forbid)
    done.append("an audit hook that forbids everything else")
    return done


def _without_network() -> bool:
    """Move to a new, empty network namespace, where the kernel lets this user."""
    try:
        import ctypes

        return bool(ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NETWORK) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def _forbid(event: str, arguments: tuple[object, ...]) -> None:
    """Reading what is open already raises no event."""
    raise PermissionError(f"{event} is forbidden while a pickle is read")


def _tensors(file: BinaryIO) -> list[dict[str, Any]]:
    """Name, dtype, shape, strides, first byte and room of every tensor.  The room ends with its storage."""
    archive, prefix = _archive(file)
    places = dict[str, tuple[int, int]]()
    found = _state(_run(archive.read(f"{prefix}data.pkl")))
    for tensor in found.values():
        key = tensor.storage.key
        places[key] = places.get(key) or _place(archive, f"{prefix}data/{key}", file)
    return [
        {
            "name": name,
            "dtype": t.dtype,
            "shape": t.shape,
            "strides": t.strides,
            "offset": t.offset,
            "storage": places[t.storage.key],
        }
        for name, t in found.items()
    ]


def _archive(file: BinaryIO) -> tuple[zipfile.ZipFile, str]:
    if file.read(4) != b"PK\x03\x04":
        raise _Bad(
            "is not in the format that PyTorch writes since 1.6; load it with PyTorch and save it as safetensors"
        )
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise _Bad(f"is not whole: {error}") from error
    names = archive.namelist()
    prefixes = {name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1}
    if len(prefixes) != 1:
        raise _Bad("is a zip file, but none that PyTorch writes")
    prefix = prefixes.pop()
    if f"{prefix}constants.pkl" in names:
        raise _Bad("is a TorchScript program, not weights alone")
    if archive.getinfo(f"{prefix}data.pkl").file_size > _LARGEST:
        raise _Bad("has a pickle that is too large for names and shapes")
    order = f"{prefix}byteorder"
    if order in names and archive.getinfo(order).file_size < 100 and archive.read(order) != b"little":
        raise _Bad("was written on a machine with another order of bytes")
    return archive, prefix


def _place(archive: zipfile.ZipFile, name: str, file: BinaryIO) -> tuple[int, int]:
    """First byte and size of a storage in the file."""
    try:
        entry = archive.getinfo(name)
    except KeyError as error:
        raise _Bad(f'lacks the storage "{name}"') from error
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
        raise _Bad(f'has a storage "{name}" that is compressed or encrypted, as PyTorch writes none')
    file.seek(entry.header_offset)
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise _Bad(f'has no storage "{name}" where its table says')
    names, extra = struct.unpack("<HH", head[26:30])
    return entry.header_offset + 30 + names + extra, entry.file_size


def _state(value: object) -> dict[str, _Tensor]:
    if not isinstance(value, dict) or not value:
        raise _Bad("holds no table of tensors")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise _Bad(f'holds "{str(name)[:100]}", which is no tensor: it is no checkpoint of weights alone')
    return value


def _run(program: bytes) -> object:
    """What the pickle describes."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.step(opcode.name, argument)
    raise _Bad("has a pickle without an end")


class _Machine:
    """A stack, marks in it, and a memo, as pickle has them; objects are data and names."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """One instruction.  Raises _Bad for any that tensors are not written with."""
        if name in ("PROTO", "FRAME"):
            return
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self._memo[argument])
        elif name == "GLOBAL":
            self.stack.append(_known(argument.replace(" ", ".")))
        elif step := _STEPS.get(name):
            step(self)
        else:
            raise _Bad(f"has the instruction {name}, which tensors are not written with")

    def mark(self) -> None:
        self._marks.append(len(self.stack))

    def tuple(self) -> None:
        self.stack.append(tuple(self._to_mark()))

    def append(self) -> None:
        (value,) = self._pop(1)
        self.stack[-1].append(value)

    def appends(self) -> None:
        values = self._to_mark()
        self.stack[-1].extend(values)

    def set_item(self) -> None:
        key, value = self._pop(2)
        _table(self.stack[-1])[key] = value

    def set_items(self) -> None:
        values = self._to_mark()
        _table(self.stack[-1]).update(zip(values[::2], values[1::2], strict=True))

    def named(self) -> None:
        module, name = self._pop(2)
        self.stack.append(_known(f"{module}.{name}"))

    def storage(self) -> None:
        (said,) = self._pop(1)
        kind, of, key = said[:3]
        if kind != "storage" or not isinstance(of, _Name) or not isinstance(key, str):
            raise _Bad("names something that is no storage")
        self.stack.append(_Storage(key, _STORAGES.get(of.text.rpartition(".")[2])))

    def call(self) -> None:
        """Nothing is called: what the call would have made is described."""
        of, arguments = self._pop(2)
        self.stack.append(_described(of, arguments))

    def build(self) -> None:
        """Attributes of a table, such as versions of modules, say nothing of tensors."""
        self._pop(1)
        _table(self.stack[-1])

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise _Bad("has a pickle that is not whole")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _to_mark(self) -> list[Any]:
        return self._pop(len(self.stack) - self._marks.pop())


_PUSHED = {
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "INT", "LONG",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], object]] = {
    "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "NONE": lambda: None,
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STEPS: dict[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark, "TUPLE": _Machine.tuple, "APPEND": _Machine.append, "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item, "SETITEMS": _Machine.set_items, "STACK_GLOBAL": _Machine.named,
    "BINPERSID": _Machine.storage, "REDUCE": _Machine.call, "BUILD": _Machine.build,
}  # fmt: skip
_FUNCTIONS = {
    "collections.OrderedDict", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_parameter", "torch.Size",
}  # fmt: skip
_KNOWN = {
    *_FUNCTIONS, "torch.storage.UntypedStorage", *(f"torch.{n}" for n in (*_STORAGES, *_DTYPES)),
}  # fmt: skip


def _known(name: str) -> _Name:
    if name not in _KNOWN:
        raise _Bad(f'asks for "{name[:100]}", which tensors are not written with')
    return _Name(name)


def _described(of: object, arguments: Any) -> object:
    name = of.text if isinstance(of, _Name) else ""
    if name == "collections.OrderedDict":
        return dict(*arguments)
    if name == "torch.Size":
        return tuple(*arguments)
    if name == "torch._utils._rebuild_parameter":
        return arguments[0]
    if name not in _FUNCTIONS:
        raise _Bad("calls something that is no function which makes tensors")
    storage, offset, shape, strides = arguments[:4]
    dtype = storage.dtype
    if name.endswith("_v3"):
        dtype = _DTYPES.get(arguments[6].text.removeprefix("torch."))
    if dtype is None:
        raise _Bad("holds a tensor of a dtype that is not known")
    return _Tensor(storage, offset, tuple(shape), tuple(strides), dtype)


def _table(value: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise _Bad("fills something that is no table")
    return value


if __name__ == "__main__":
    main()
