"""The other side of `pickled`: a process of its own that says where in PyTorch's zip file each tensor lies.

It is run by its path and imports the standard library alone.  A pickle is a program; here it is never run, but read as
data (`pickle_machine`).
"""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from catalogger.checkpoints.changing.pickle_machine import Bad, tensors_in
else:
    sys.path.append(str(Path(__file__).parent))
    from pickle_machine import Bad, tensors_in

_LARGEST = 64_000_000  # bytes of the pickle, which holds names and shapes alone
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # linux/sched.h


def main() -> None:
    """Read the file that stdin is; the arguments are seconds of processor time and bytes of memory."""
    "".encode("cp437")  # what a zip file's names may be in; nothing can be imported later
    with open(0, "rb", closefd=False) as file:
        apart = _apart(int(sys.argv[1]), int(sys.argv[2]))
        try:
            told: dict[str, Any] = {"tensors": _tensors(file)}
        except Bad as bad:
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
    found = tensors_in(archive.read(f"{prefix}data.pkl"))
    for tensor in found.values():
        key = tensor.storage.key
        places[key] = places.get(key) or _place(archive, f"{prefix}data/{key}", file)
    return [{"name": name, **vars(t), "storage": places[t.storage.key]} for name, t in found.items()]


def _archive(file: BinaryIO) -> tuple[zipfile.ZipFile, str]:
    if file.read(4) != b"PK\x03\x04":
        raise Bad("is not in the format that PyTorch writes since 1.6; load it with PyTorch and save it as safetensors")
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise Bad(f"is not whole: {error}") from error
    names = archive.namelist()
    prefixes = {name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1}
    if len(prefixes) != 1:
        raise Bad("is a zip file, but none that PyTorch writes")
    prefix = prefixes.pop()
    if f"{prefix}constants.pkl" in names:
        raise Bad("is a TorchScript program, not weights alone")
    if archive.getinfo(f"{prefix}data.pkl").file_size > _LARGEST:
        raise Bad("has a pickle that is too large for names and shapes")
    order = f"{prefix}byteorder"
    if order in names and archive.getinfo(order).file_size < 100 and archive.read(order) != b"little":
        raise Bad("was written on a machine with another order of bytes")
    return archive, prefix


def _place(archive: zipfile.ZipFile, name: str, file: BinaryIO) -> tuple[int, int]:
    """First byte and size of a storage in the file."""
    try:
        entry = archive.getinfo(name)
    except KeyError as error:
        raise Bad(f'lacks the storage "{name}"') from error
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
        raise Bad(f'has a storage "{name}" that is compressed or encrypted, as PyTorch writes none')
    file.seek(entry.header_offset)
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise Bad(f'has no storage "{name}" where its table says')
    names, extra = struct.unpack("<HH", head[26:30])
    return entry.header_offset + 30 + names + extra, entry.file_size


if __name__ == "__main__":
    main()
