"""Class embeddings come back from their files as they were; files that hold something else are refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ported
from safetensors.torch import save_file
from torch import Tensor

from analyses.prototypes import ClassEmbeddings, read_class_embeddings, read_class_names


def embeddings(width: int = 24, **changes: object) -> ClassEmbeddings:
    generator = torch.Generator().manual_seed(5)
    weight, bias = torch.randn(5, width, generator=generator), torch.randn(5, generator=generator)
    return ClassEmbeddings(**{"weight": weight, "bias": bias, "class_names": tuple("abcde"), **changes})


@pytest.mark.parametrize(("width", "pool"), [(24, None), (24, "avg"), (48, "cls_and_mean")])
def test_a_file_holds_everything(tmp_path: Path, width: int, pool: str | None, images: Tensor) -> None:
    made = embeddings(width, pool=pool, how={"method": "mean", "pictures": [1, 2, 3, 4, 5]})
    made.save(tmp_path / "new" / "classes.safetensors")
    read = read_class_embeddings(tmp_path / "new" / "classes.safetensors")
    assert torch.equal(read.weight, made.weight)
    assert torch.equal(read.bias, made.bias)
    assert (read.class_names, read.pool, read.how) == (made.class_names, pool, made.how)
    model = read.on(ported("cls"))
    expected = ported("cls").with_class_embeddings(made.weight.T, made.bias, list("abcde"), pool=pool)
    assert torch.equal(model(images), expected(images))
    assert model.class_names == tuple("abcde")


def test_plain_files_of_one_matrix(tmp_path: Path) -> None:
    weight = embeddings().weight
    np.save(tmp_path / "classes.npy", weight.numpy())
    save_file({"text_features": weight}, tmp_path / "classes.safetensors")
    for name in ("classes.npy", "classes.safetensors"):
        read = read_class_embeddings(tmp_path / name)
        assert torch.equal(read.weight, weight)
        assert (read.bias, read.class_names, read.pool, dict(read.how)) == (None, None, None, {})


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"a": torch.ones(2, 3), "b": torch.ones(3, 3)}, None, r"one called 'weight', got \{'a': \(2, 3\), 'b': \(3,"),
        ({"weight": torch.ones(3)}, None, "holds no class embeddings"),
        ({"weight": torch.ones(2, 3, dtype=torch.long)}, None, "holds no class embeddings"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(3)}, None, "2 class embeddings and 3 biases"),
        ({"weight": torch.ones(2, 3)}, {"class_names": '["a"]'}, "2 class embeddings and 1 names"),
        ({"weight": torch.ones(2, 3)}, {"pool": '"map"'}, "'map' reads them: expected cls, avg, cls_and_mean"),
        ({"weight": torch.ones(2, 3)}, {"class_names": "a, b"}, "cannot be read as class embeddings"),
    ],
)
def test_files_that_hold_something_else(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None, message: str
) -> None:
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    with pytest.raises(ValueError, match=message):
        read_class_embeddings(tmp_path / "x.safetensors")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("x.npy", "x.safetensors", "x.txt"):
        with pytest.raises(FileNotFoundError, match="no file with class embeddings"):
            read_class_embeddings(tmp_path / name)
        (tmp_path / name).write_text("nothing")
        with pytest.raises(ValueError, match="cannot be read as class embeddings"):
            read_class_embeddings(tmp_path / name)
    with pytest.raises(ValueError, match=r"written to a \.safetensors file"):
        embeddings().save(tmp_path / "x.npy")


def test_class_names_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("tabby, tabby cat\n dog\nbus\n\n")
    assert read_class_names(path) == ("tabby, tabby cat", "dog", "bus")
    path.write_text("cat\n\nbus\n")
    with pytest.raises(ValueError, match="line 2 is empty"):
        read_class_names(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="it is empty"):
        read_class_names(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as class names"):
        read_class_names(path)
    listed = tmp_path / "names.json"
    for text in ('["cat", "dog"]', '{"1": "dog", "0": "cat"}'):
        listed.write_text(text)
        assert read_class_names(listed) == ("cat", "dog")
    for text in ('"cat"', '{"1": "dog"}', '{"a": "dog"}', "["):
        listed.write_text(text)
        with pytest.raises(ValueError, match="cannot be read as class names"):
            read_class_names(listed)
    with pytest.raises(FileNotFoundError, match="no file with class names"):
        read_class_names(tmp_path / "none.txt")
