"""Weights in the format safetensors: tensors by name, and around them what they belong to.

Other programs read the tensors by their names, which are the keys on the way to them, joined
by dots. The metadata hold a checksum, and the nested state without its tensors as JSON.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from kdsearch.errors import ConfigError
from kdsearch.files.atomic import DamagedFile, write_bytes
from kdsearch.files.bucket import Place

if TYPE_CHECKING:
    from torch import Tensor

STATE, CHECKSUM = "kdsearch.state", "kdsearch.sha256"


def save_tensors(path: Place, state: dict[str, Any]) -> None:
    """Write a state whole or not at all.

    Raises:
        ConfigError: It holds something else than tensors, numbers, texts, and dicts, lists and
            tuples of them.
    """
    from safetensors.torch import save  # noqa: PLC0415

    tensors: dict[str, Tensor] = {}
    metadata = {STATE: json.dumps(_taken_apart(state, "", tensors))}
    header, body = _parts(save(tensors, metadata))
    write_bytes(path, save(tensors, metadata | {CHECKSUM: _checksum(header, body)}))


def load_tensors(path: Place) -> dict[str, Any]:
    """Read what `save_tensors` wrote, tensors on the CPU; runs no code from the file.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFile: It is none of ours, or is damaged.
    """
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load  # noqa: PLC0415

    content = path.read_bytes()
    try:
        header, body = _parts(content)
        if header["__metadata__"][CHECKSUM] != _checksum(header, body):
            raise DamagedFile(f"{path}: damaged or half-written")
        tensors = load(content)
        state: dict[str, Any] = _put_together(
            json.loads(header["__metadata__"][STATE]), tensors
        )
    except (SafetensorError, ValueError, LookupError, TypeError):
        raise DamagedFile(f"{path}: damaged or half-written") from None
    return state


def _parts(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header and the bytes of the tensors behind it."""
    end = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:end])
    return header, memoryview(content)[end:]


def _checksum(header: dict[str, Any], body: memoryview) -> str:
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    around = [header["__metadata__"][STATE], json.dumps(tensors, sort_keys=True)]
    return hashlib.sha256("\n".join(around).encode() + body).hexdigest()


def _taken_apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The same as JSON, with the names of tensors in their place."""
    from torch import Tensor  # noqa: PLC0415

    def inside(key: object, one: Any) -> Any:
        return _taken_apart(one, f"{name}.{key}" if name else str(key), tensors)

    if isinstance(value, Tensor):
        while name in tensors:
            name += "_"
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, inside(key, one)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [inside(i, one) for i, one in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(
        f"method: weights are tensors, numbers, texts, and dicts, lists and tuples of them, "
        f"but {name} is of type {type(value).__name__}"
    )


def _put_together(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _put_together(one, tensors) for key, one in content}
    parts = [_put_together(one, tensors) for one in content]
    return parts if kind == "list" else tuple(parts)
