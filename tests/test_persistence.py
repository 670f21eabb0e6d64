"""One file holds a nested value exactly, shows when a bit of it changes, and is no pickle."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from titans_core import persistence
from titans_core.persistence import ModelFileError, load_tree, save_tree, write_atomically

TREE: dict[str, Any] = {
    "weights": torch.arange(6.0).reshape(2, 3),
    "scale": np.array([1.5, 2.5]),
    "name": "naïve \ud800 \x00 \U0001f30a",
    "levels": (0.1, [None, True, 3, math.inf]),
}


def assert_same(left: Any, right: Any) -> None:
    """Equal in type, dtype, shape and every bit, nan and -0.0 included."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert (
            left.contiguous()
            .reshape(-1)
            .view(torch.uint8)
            .equal(right.contiguous().reshape(-1).view(torch.uint8))
        )
    elif isinstance(left, (np.ndarray, np.generic)):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    elif isinstance(left, float):
        assert repr(left) == repr(right)
    else:
        assert left == right


TORCH_DTYPES = [
    torch.bool,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
TENSORS = st.builds(
    lambda shape, dtype: (torch.arange(math.prod(shape)) % 3).reshape(shape).to(dtype),
    SHAPES,
    st.sampled_from(TORCH_DTYPES),
)
ARRAYS = hnp.arrays(
    dtype=st.sampled_from([np.bool_, np.int8, np.uint16, np.int64, np.float16, np.float32, float]),
    shape=SHAPES,
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
NODES = st.recursive(
    SCALARS | TENSORS | ARRAYS | st.floats(width=32).map(np.float32),
    lambda node: (
        st.lists(node, max_size=3)
        | st.lists(node, max_size=3).map(tuple)
        | st.dictionaries(st.text(), node, max_size=3)
    ),
    max_leaves=8,
)


@given(tree=st.dictionaries(st.text(), NODES, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_tree_comes_back_as_it_was(
    tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tree") / "model"
    save_tree(path, tree, kind="K")
    assert_same(load_tree(path, kind="K"), tree)


def test_words_of_the_format_inside_a_tree_confuse_nothing(tmp_path: Path) -> None:
    words = {"sha256": "0" * 64, "tensor": "0", "dict": {"tuple": [1]}, "float": "nan"}
    save_tree(tmp_path / "m", {**words, '"sha256": "': words}, kind="0" * 64)
    assert_same(load_tree(tmp_path / "m", kind="0" * 64), {**words, '"sha256": "': words})


def test_awkward_tensors_and_arrays_come_back_whole(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    array = np.arange(6)
    tree = {
        "parameter": torch.nn.Parameter(base),
        "transposed": base.T,
        "strided": base[::2, 1::2],
        "expanded": torch.tensor([1.0]).expand(4),
        "shared": [base, base, base[0]],
        "negated lazily": torch.view_as_complex(torch.tensor([1.0, 2.0])).conj().imag,
        "reversed": array[::-1],
        "big-endian": np.array([1, 2], dtype=">i4"),
        "fortran": np.asfortranarray(array.reshape(2, 3)),
        "state": torch.nn.Linear(2, 1).state_dict(),
    }
    save_tree(tmp_path / "m", tree, kind="K")
    loaded = load_tree(tmp_path / "m", kind="K")
    assert_same(loaded["parameter"], base)
    assert_same(loaded["transposed"], base.T)
    assert_same(loaded["strided"], base[::2, 1::2])
    assert_same(loaded["expanded"], torch.ones(4))
    assert_same(loaded["shared"], [base, base, base[0]])
    assert_same(loaded["negated lazily"], torch.tensor(-2.0))
    assert_same(loaded["reversed"], array[::-1].copy())
    assert_same(loaded["big-endian"], np.array([1, 2], dtype=np.int32))
    assert_same(loaded["fortran"], array.reshape(2, 3))
    assert_same(loaded["state"], dict(tree["state"]))

    loaded["shared"][0].zero_()
    loaded["reversed"][:] = 0  # writable, and its own
    assert_same(loaded["shared"][1], base)


def test_equal_trees_give_equal_files_that_safetensors_can_read(tmp_path: Path) -> None:
    for name in "ab":
        save_tree(tmp_path / name, TREE, kind="K")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert safetensors.torch.load_file(tmp_path / "a")["0"].equal(TREE["weights"])


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize(
    ("leaf", "what"),
    [
        ({1, 2}, "is a set"),
        (object(), "is an object"),
        (b"bytes", "is a bytes"),
        (Pair(1, 2), "is a Pair"),
        (np.ma.masked_array([1.0], [True]), "is a MaskedArray"),
        (np.array(["a"]), "is a numpy <U1"),
        (np.array([None]), "is a numpy object"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "is a numpy datetime64"),
        (torch.ones(2, dtype=torch.complex64), "is a torch.complex64 tensor"),
        (torch.ones(2).to_sparse(), "torch.sparse_coo"),
        (torch.ones(2, device="meta"), "meta"),
        ({3: 1}, "has the key 3, an int; dict keys must be str"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stored_is_named_with_its_place(
    leaf: object, what: str, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=rf"^tree\['a'\]\[2\] .*{what}"):
        save_tree(tmp_path / "m", {"a": [0, (), leaf]}, kind="K")
    assert not list(tmp_path.iterdir())


def test_the_tree_itself_must_be_a_dict(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="tree must be a dict; got a list"):
        save_tree(tmp_path / "m", [1], kind="K")  # type: ignore[arg-type]  # the misuse


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    save_tree(path, TREE, kind="K")

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_tree(path, {"other": 1}, kind="K")
    assert_same(load_tree(path, kind="K"), TREE)
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_saving_through_a_link_writes_the_file_behind_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save_tree(tmp_path / "link", {"x": 1}, kind="K")
    assert (tmp_path / "link").is_symlink()
    assert load_tree(tmp_path / "real", kind="K") == {"x": 1}


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file '.*gone'; check the path"):
        load_tree(tmp_path / "gone", kind="K")
    with pytest.raises(FileNotFoundError, match=r"folder '.*gone' does not exist; create it"):
        save_tree(tmp_path / "gone" / "m", {}, kind="K")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    pipe, folder, link = tmp_path / "pipe", tmp_path / "folder", tmp_path / "link"
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(pipe)
    for path, name in [(pipe, "pipe"), (folder, "folder"), (link, "pipe"), ("/dev/null", "null")]:
        with pytest.raises(FileExistsError, match=rf"'.*/{name}' is no regular file; name one"):
            save_tree(path, {"x": 1}, kind="K")
        with pytest.raises(FileExistsError, match=rf"'.*/{name}' is no regular file; name one"):
            write_atomically(path, b"x")
    assert pipe.is_fifo()
    assert Path("/dev/null").is_char_device()
    assert sorted(tmp_path.iterdir()) == [folder, link, pipe]


def test_bytes_are_written_whole_in_place_of_the_old(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("something longer")
    write_atomically(str(tmp_path / "text"), b"new")
    assert (tmp_path / "text").read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["text"]
    with pytest.raises(FileNotFoundError, match=r"folder '.*gone' does not exist; create it"):
        write_atomically(tmp_path / "gone" / "text", b"new")


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n" + bytes(100), pickle.dumps({"a": 1}), b"", b"{}", bytes(8)],
    ids=["png", "pickle", "empty", "json", "zeros"],
)
def test_a_foreign_file_is_not_opened(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(
        ModelFileError, match=r"'.*m' is not a titans-stream file: it begins with b"
    ):
        load_tree(tmp_path / "m", kind="K")


def test_a_torch_checkpoint_is_not_opened(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "m")
    with pytest.raises(ModelFileError, match=r"begins with b'PK.*a pickle or a torch.save file"):
        load_tree(tmp_path / "m", kind="K")


def test_a_safetensors_file_of_another_program_is_recognised(tmp_path: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "m", metadata=metadata)
        with pytest.raises(ModelFileError, match="is a safetensors file of another program"):
            load_tree(tmp_path / "m", kind="K")


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_tree(path, {"w": torch.arange(3.0), "b": 1.5}, kind="K")
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(
            good[:position] + bytes([good[position] ^ (1 << position % 8)]) + good[position + 1 :]
        )
        with pytest.raises(ModelFileError):
            load_tree(path, kind="K")
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ModelFileError, match=r"'.*m' is damaged: its bytes do not match its check"):
        load_tree(path, kind="K")


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_tree(path, {"w": torch.arange(3.0)}, kind="K")
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(ModelFileError):
            load_tree(path, kind="K")
    with pytest.raises(ModelFileError, match=f"truncated: {len(good) - 1} of {len(good)} bytes"):
        load_tree(path, kind="K")
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ModelFileError, match="its header cannot be read, so it was truncated"):
        load_tree(path, kind="K")


def test_another_kind_and_a_newer_format_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tree(tmp_path / "m", TREE, kind="TitansClassifier")
    with pytest.raises(ModelFileError, match="holds a TitansClassifier, not a TitansForecaster"):
        load_tree(tmp_path / "m", kind="TitansForecaster")
    monkeypatch.setattr(persistence, "FORMAT_VERSION", 2)
    save_tree(tmp_path / "m", TREE, kind="K")
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match=r"version 2, .* reads up to 1; upgrade titans-stream"):
        load_tree(tmp_path / "m", kind="K")


@pytest.mark.parametrize("tree", [{"tensor": "7"}, {"what": 1}, {}, {"float": "x"}, {"dict": 3}])
def test_a_file_forged_with_its_checksum_still_fails_cleanly(tree: Any, tmp_path: Path) -> None:
    record = {"sha256": "0" * 64, "format_version": 1, "kind": "K", "tree": tree}
    blank = safetensors.torch.save({}, metadata={persistence.FORMAT: json.dumps(record)})
    digest = hashlib.sha256(blank).hexdigest().encode()
    (tmp_path / "m").write_bytes(blank.replace(b"0" * 64, digest, 1))
    with pytest.raises(ModelFileError, match="its content makes no sense"):
        load_tree(tmp_path / "m", kind="K")
