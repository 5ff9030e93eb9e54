"""The trained weights and real photographs; every test here is skipped, with a sentence, where they are missing."""

from pathlib import Path

import pytest
from real_dinov2 import MISSING, hugging_face_weights, load_dinov2, onnx_file, photographs, write_weights
from safetensors.torch import save_file
from torch import nn

from hooked_vit import HookedViT

N_PHOTOGRAPHS = 6


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder `real`, and skip them where something is missing."""
    missing = MISSING if onnx_file() is None else ""
    if len(photographs()) < N_PHOTOGRAPHS:
        missing = missing or "photographs are missing: `pip install scikit-image scikit-learn` brings them"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("real")
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def source() -> Path:
    """The ONNX file."""
    path = onnx_file()
    assert path is not None
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights in timm's names."""
    path = tmp_path_factory.mktemp("real") / "dinov2.safetensors"
    write_weights(path)
    return path


@pytest.fixture(scope="session")
def hugging_face(source: Path, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """Hugging Face's module, loaded from a folder as it is published, with plain attention."""
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dinov2")
    Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518).save_pretrained(folder)
    save_file(hugging_face_weights(source), folder / "model.safetensors", metadata={"format": "pt"})
    module, loaded = Dinov2Model.from_pretrained(folder, attn_implementation="eager", output_loading_info=True)
    assert set(loaded["missing_keys"]) == {"embeddings.mask_token"}  # of training; nothing reads it otherwise
    assert not loaded["unexpected_keys"]
    return module.eval()


@pytest.fixture(scope="session")
def model(weights: Path) -> HookedViT:
    """The trained model at 224 pixels, without classes."""
    return load_dinov2(weights, 224)
