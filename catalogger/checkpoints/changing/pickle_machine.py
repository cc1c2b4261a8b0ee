"""Read a pickle as data: what tensors a state dict of PyTorch describes.  Nothing that it names is imported or called.

It knows the instructions and the names that tensors are written with, and refuses every other.  The standard library
alone is imported: `pickled_child` runs it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


class Bad(Exception):
    """Why it is no table of tensors."""


@dataclass(frozen=True)
class _Name:
    """Something that the pickle names: of which module, and what."""

    text: str


@dataclass(frozen=True)
class Storage:
    """A piece of the file by its name in it; of a dtype, or of bytes."""

    key: str
    dtype: str | None


@dataclass(frozen=True)
class Tensor:
    """Of which storage, from which number on, and with which steps."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


def tensors_in(program: bytes) -> dict[str, Tensor]:
    """The tensors by their names.  Raises Bad, or anything else, for what is no table of tensors."""
    value = _run(program)
    if not isinstance(value, dict) or not value:
        raise Bad("holds no table of tensors")
    for name, tensor in value.items():
        if not isinstance(name, str):
            raise Bad("names a tensor by something that is no text")
        if not isinstance(tensor, Tensor):
            raise Bad(f'holds "{name[:100]}", which is no tensor: it is no checkpoint of weights alone')
    return value


def _run(program: bytes) -> object:
    """What the pickle describes."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.step(opcode.name, argument)
    raise Bad("has a pickle without an end")


class _Machine:
    """A stack, marks in it, and a memo, as pickle has them; objects are data and names."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """One instruction.  Raises Bad for any that tensors are not written with."""
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
            raise Bad(f"has the instruction {name}, which tensors are not written with")

    def mark(self) -> None:
        self._marks.append(len(self.stack))

    def tuple(self) -> None:
        self.stack.append(tuple(self._to_mark()))

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
            raise Bad("names something that is no storage")
        self.stack.append(Storage(key, _STORAGES.get(of.text.rpartition(".")[2])))

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
            raise Bad("has a pickle that is not whole")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _to_mark(self) -> list[Any]:
        return self._pop(len(self.stack) - self._marks.pop())


_PUSHED = {
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], object]] = {
    "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple,  "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "NONE": lambda: None,
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STEPS: dict[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark, "TUPLE": _Machine.tuple,
    "SETITEM": _Machine.set_item, "SETITEMS": _Machine.set_items, "STACK_GLOBAL": _Machine.named,
    "BINPERSID": _Machine.storage, "REDUCE": _Machine.call, "BUILD": _Machine.build,
}  # fmt: skip
_FUNCTIONS = {
    "collections.OrderedDict", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_parameter",
}  # fmt: skip
_KNOWN = {
    *_FUNCTIONS, "torch.storage.UntypedStorage", *(f"torch.{n}" for n in (*_STORAGES, *_DTYPES)),
}  # fmt: skip


def _known(name: str) -> _Name:
    if name not in _KNOWN:
        raise Bad(f'asks for "{name[:100]}", which tensors are not written with')
    return _Name(name)


def _described(of: object, arguments: Any) -> object:
    name = of.text if isinstance(of, _Name) else ""
    if name == "collections.OrderedDict":
        return dict(*arguments)
    if name == "torch._utils._rebuild_parameter":
        return arguments[0]
    if name not in _FUNCTIONS:
        raise Bad("calls something that is no function which makes tensors")
    storage, offset, shape, strides = arguments[:4]
    dtype = storage.dtype
    if name.endswith("_v3"):
        dtype = _DTYPES.get(arguments[6].text.removeprefix("torch."))
    if dtype is None:
        raise Bad("holds a tensor of a dtype that is not known")
    return Tensor(storage, offset, tuple(shape), tuple(strides), dtype)


def _table(value: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise Bad("fills something that is no table")
    return value
