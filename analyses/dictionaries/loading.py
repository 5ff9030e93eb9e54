"""Loading dictionaries: a file that `Dictionary.save` wrote, or an embedded one by name."""

import json
from pathlib import Path

import torch

from analyses.dictionaries.dictionary import Dictionary, DictionaryConfig
from analyses.dictionaries.files import read_tensors

__all__ = ["embedded_dictionaries", "load_dictionary"]

_ASSETS = Path(__file__).parent / "assets"


def embedded_dictionaries() -> list[str]:
    """The names of the dictionaries that come with the package.

    >>> all("/" in name for name in embedded_dictionaries())
    True
    """
    return sorted(str(path.relative_to(_ASSETS).with_suffix("").as_posix()) for path in _ASSETS.glob("*/*.safetensors"))


def load_dictionary(
    path: str | Path, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Dictionary:
    """A dictionary from a file that `Dictionary.save` wrote, or an embedded one.

    Args:
        path: The file, or the name of an embedded dictionary (`embedded_dictionaries`).
        device: The device of its weights.
        dtype: The dtype of its weights, whatever the file holds.

    Raises:
        FileNotFoundError: If there is no such file, and no embedded dictionary of that name.
        ValueError: If the file is damaged or holds something else, or tensors that do not fit its config.

    >>> config = DictionaryConfig("topk", 24, 24, 96, "hook_tokens", "hook_tokens", k=4)
    >>> Dictionary(config, {"seed": 3}).save("a.safetensors")
    >>> load_dictionary("a.safetensors").record
    {'seed': 3}
    """
    embedded = _ASSETS / f"{path}.safetensors"
    if not Path(path).is_file() and not embedded.is_file():
        known = ", ".join(map(repr, embedded_dictionaries())) or "none"
        raise FileNotFoundError(f"no dictionary at '{path}', and none of that name is embedded ({known})")
    file = Path(path) if Path(path).is_file() else embedded
    tensors, metadata = read_tensors(file)
    if "dictionary" not in metadata:
        raise ValueError(
            f"'{file}' holds no dictionary of this package: its metadata has no 'dictionary', only {sorted(metadata)}"
        )
    dictionary = Dictionary(
        DictionaryConfig.from_json(metadata["dictionary"]), json.loads(metadata.get("record", "{}"))
    )
    expected = {name: tuple(tensor.shape) for name, tensor in dictionary.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"'{file}' does not fit its config: '{name}' has shape {found.get(name)}, expected {expected.get(name)}"
        )
    dictionary.load_state_dict(tensors)
    return dictionary.to(device=device, dtype=dtype).eval()
