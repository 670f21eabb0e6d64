"""Save and load a nested value as one file: tensors in safetensors, everything else in JSON.

The file is an ordinary safetensors file. Its header carries one metadata entry, `titans-stream`,
a JSON record: a SHA-256 of the whole file, the format version, the kind of thing stored and the
tree itself with each tensor replaced by a reference. Nothing in it is ever executed: there is no
pickle, so a file from a stranger can at worst hold wrong numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from titans_core.files import write_atomically

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "ModelFileError",
    "check_layout",
    "load_tree",
    "save_tree",
    "write_atomically",
]

FORMAT = "titans-stream"
FORMAT_VERSION = 1

# The digest covers every byte of the file, so while it is computed its own place holds zeros.
_NO_DIGEST = "0" * 64

_TENSOR_DTYPES = frozenset(
    {torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64}
    | {torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)
_STORABLE = (
    "None, bool, int, float, str, list, tuple, dict with str keys, "
    "a dense real torch tensor, or a plain numpy array of numbers or bools"
)


class ModelFileError(ValueError):
    """A file that cannot be what it was asked to be: foreign, damaged, too new, or another kind."""


def save_tree(path: str | os.PathLike[str], tree: dict[str, Any], *, kind: str) -> None:
    """Write a nested value to one file, atomically.

    The file appears complete or not at all: a failed save leaves an existing file as it was.
    Equal trees give equal files, byte for byte.

    Parameters
    ----------
    path : str or path-like
        Where to write. The folder must exist; an existing file is replaced.
    tree : dict
        Any nesting of dict (str keys), list and tuple, with None, bool, int, float (nan and inf
        too), str, torch tensors and numpy arrays or scalars as leaves. Tensors are stored detached
        and whole: two leaves that share memory come back as two copies. Subclasses of dict, such
        as a `state_dict`, come back as plain dicts.
    kind : str
        What the tree is, for example ``"TitansForecaster"``; `load_tree` asks for the same word.

    Raises
    ------
    TypeError
        If the tree holds something else; the message names the place, as in ``tree['a'][2]``.
    FileNotFoundError
        If the folder does not exist.
    FileExistsError
        If the path is there and not a regular file.
    """
    if not isinstance(tree, dict):
        raise TypeError(f"tree must be a dict; got {_a(tree)}. Wrap it, as in {{'value': ...}}.")
    tensors: dict[str, torch.Tensor] = {}
    # The digest stands first, so its place is found before any string of the tree.
    record = {
        "sha256": _NO_DIGEST,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "tree": _encode(tree, "tree", tensors),
    }
    # One metadata entry, because safetensors writes several in no fixed order.
    blank = safetensors.torch.save(tensors, metadata={FORMAT: json.dumps(record, allow_nan=False)})
    digest = hashlib.sha256(blank).hexdigest()
    write_atomically(path, blank.replace(_NO_DIGEST.encode(), digest.encode(), 1))


def load_tree(path: str | os.PathLike[str], *, kind: str) -> dict[str, Any]:
    """Read what `save_tree` wrote, after checking that not one bit of it has changed.

    Parameters
    ----------
    path : str or path-like
        The file.
    kind : str
        The kind it must hold.

    Returns
    -------
    dict
        The tree: tensors as CPU tensors of the same dtype and shape, arrays as numpy arrays,
        tuples as tuples. Every array and tensor owns its memory.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is foreign, truncated, altered, of a newer format or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'; check the path, or save the model")
    data = path.read_bytes()
    record = _read_record(data, path)
    version = record.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelFileError(
            f"'{path}' has format version {version!r}, and this titans-stream reads up to "
            f"{FORMAT_VERSION}; upgrade titans-stream, or save the model again with this version"
        )
    # First occurrence: the digest is the first value of the record, see save_tree.
    digest = str(record.get("sha256"))
    blank = data.replace(digest.encode(), _NO_DIGEST.encode(), 1)
    if hashlib.sha256(blank).hexdigest() != digest:
        raise _damaged(path, "its bytes do not match its checksum")
    if record.get("kind") != kind:
        raise ModelFileError(
            f"'{path}' holds a {record.get('kind')}, not a {kind}; load it with "
            f"{record.get('kind')}, or give the file of a {kind}"
        )
    try:
        tree: dict[str, Any] = _decode(record["tree"], safetensors.torch.load(data))
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        # Only a file forged together with its checksum comes here.
        raise _damaged(path, f"its content makes no sense ({error})") from error
    return tree


def check_layout(tree: dict[str, Any], version: int, path: str | os.PathLike[str]) -> None:
    """Raise ModelFileError unless a loaded tree has the ``layout_version`` that is read today."""
    found = tree.get("layout_version")
    if found != version:
        raise ModelFileError(
            f"{os.fspath(path)!r} was saved in layout {found!r}; this version of titans-stream "
            f"reads {version}. Load it with the version that saved it."
        )


def _read_record(data: bytes, path: Path) -> dict[str, Any]:
    """Find our JSON record in the safetensors header, or say what the file is instead."""
    body = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:body])
        metadata = header.pop("__metadata__", {})
        end = body + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if FORMAT not in metadata:
            raise ModelFileError(
                f"'{path}' is a safetensors file of another program: its header has no "
                f"'{FORMAT}' record; give a file that titans-stream saved"
            )
        record: dict[str, Any] = dict(json.loads(metadata[FORMAT]))
    except ModelFileError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if FORMAT.encode() in data[:64]:
            reason = "its header cannot be read, so it was truncated or altered"
            raise _damaged(path, reason) from error
        raise ModelFileError(
            f"'{path}' is not a titans-stream file: it begins with {data[:8]!r}; give a file that "
            "titans-stream saved (a pickle or a torch.save file is never opened)"
        ) from error
    if len(data) < end:
        raise _damaged(path, f"it is truncated: {len(data)} of {end} bytes are there")
    return record


def _damaged(path: Path, reason: str) -> ModelFileError:
    return ModelFileError(
        f"'{path}' is damaged: {reason}; copy it again from its source, or save the model again"
    )


def _encode(node: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Turn a tree into JSON; every JSON object in it is a one-entry tag, so none is ambiguous."""
    if node is None or type(node) in (bool, int, str):
        return node
    if type(node) is float:
        return node if math.isfinite(node) else {"float": repr(node)}
    if type(node) is list:
        return [_encode(item, f"{place}[{i}]", tensors) for i, item in enumerate(node)]
    if type(node) is tuple:
        return {"tuple": [_encode(item, f"{place}[{i}]", tensors) for i, item in enumerate(node)]}
    if isinstance(node, dict):
        for key in node:
            if type(key) is not str:
                raise TypeError(f"{place} has the key {key!r}, {_a(key)}; dict keys must be str")
        return {"dict": {key: _encode(v, f"{place}[{key!r}]", tensors) for key, v in node.items()}}
    if isinstance(node, torch.Tensor):
        return {"tensor": _keep(node, place, tensors)}
    if type(node) is np.ndarray or isinstance(node, np.generic):
        if node.dtype.kind not in "biuf" or node.dtype.itemsize > 8:
            raise TypeError(f"{place} is a numpy {node.dtype}; save_tree stores {_STORABLE}")
        # A fresh native-endian C-ordered copy: torch takes no negative strides or swapped bytes.
        array = np.array(node, dtype=node.dtype.newbyteorder("="), order="C")
        tag = "scalar" if isinstance(node, np.generic) else "array"
        return {tag: _keep(torch.from_numpy(array), place, tensors)}
    raise TypeError(f"{place} is {_a(node)}; save_tree stores {_STORABLE}")


def _keep(tensor: torch.Tensor, place: str, tensors: dict[str, torch.Tensor]) -> str:
    """Put a tensor among those to be written and return its name in the file."""
    dense = tensor.layout == torch.strided and tensor.device.type != "meta"
    if not dense or tensor.dtype not in _TENSOR_DTYPES:
        raise TypeError(
            f"{place} is a {tensor.dtype} tensor ({tensor.layout}, {tensor.device}); "
            f"save_tree stores {_STORABLE}"
        )
    name = str(len(tensors))
    # A copy of its own, because safetensors refuses tensors that share or skip memory.
    tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return name


def _decode(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, list):
        return [_decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    ((tag, value),) = node.items()
    builders: dict[str, Callable[[], Any]] = {
        "dict": lambda: {key: _decode(item, tensors) for key, item in value.items()},
        "tuple": lambda: tuple(_decode(item, tensors) for item in value),
        "float": lambda: float(value),
        "tensor": lambda: tensors[value].clone(),
        "array": lambda: tensors[value].numpy().copy(),
        "scalar": lambda: tensors[value].numpy()[()],
    }
    return builders[tag]()


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
