"""Training: layers at once or one by one, a killed training ends with the same weights, errors say what to do."""

import numpy as np
import pytest
import torch
from conftest import ported

from analyses.dictionaries import FitOptions, load_dictionary, train_dictionary

OPTIONS = {"d_dict": 32, "k": 4, "step_size": 50, "buffer_size": 130, "batch_size": 4, "progress": False}

DEADLY = FitOptions(first_threshold=1e3, dead_after=200, auxiliary=0.0)


class Pictures:
    """Pictures of noise; reading the one at `killed_at` stops the process, as Ctrl-C does."""

    def __init__(self, n: int = 40, killed_at: int | None = None, value: float = 1.0):
        self._n, self._killed_at, self._value = n, killed_at, value
        self._n_read = 0

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self._n_read += 1
        if self._n_read == self._killed_at:
            raise KeyboardInterrupt
        return self._value * torch.randn(3, 32, 24, generator=torch.Generator().manual_seed(index)), index % 7

    def __reduce__(self):
        return Pictures, (self._n,)


@pytest.fixture(autouse=True)
def same_description(monkeypatch) -> None:
    """A killed dataset and a whole one are the same data."""
    from analyses.dictionaries.training import checkpoints

    plain = checkpoints.describe
    monkeypatch.setattr(
        checkpoints, "describe", lambda v: f"{len(v)} pictures" if isinstance(v, Pictures) else plain(v)
    )


def same(a, b) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][n], states[1][n]) for n in states[0])


def test_several_layers_at_once_are_those_trained_one_by_one() -> None:
    model = ported("gap_registers_layerscale")
    options = {**OPTIONS, "options": FitOptions(learning_rate=5e-3), "epochs": 2}
    both = train_dictionary(model, Pictures(), "resid_post", [0, 2], **options)
    assert [dictionary.config.point for dictionary in both] == ["blocks.0.hook_resid_post", "blocks.2.hook_resid_post"]
    assert same(both[1], train_dictionary(model, Pictures(), "resid_post", 2, **options))
    assert not same(both[1], train_dictionary(model, Pictures(), "resid_post", 2, seed=1, **options))
    first, *_, last = both[0].record["losses"]
    assert last["unexplained"] < first["unexplained"]
    assert last["pictures"] == 80
    assert len(both[0].record["model"]["weights_sha256"]) == 64
    both[0].check_fits(model)


@pytest.mark.parametrize("kind", ["batch_topk", "jump_relu"])
def test_a_killed_training_ends_with_the_same_weights(kind: str, tmp_path) -> None:
    model = ported("rotary")
    options = {**OPTIONS, "kind": kind, "epochs": 2, "checkpoint_seconds": 0}
    whole = train_dictionary(model, Pictures(), "mlp_out", [0, 1], **options)
    for attempt in (30, 35):
        with pytest.raises(KeyboardInterrupt):
            train_dictionary(model, Pictures(killed_at=attempt), "mlp_out", [0, 1], out=tmp_path, **options)
        assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    resumed = train_dictionary(model, Pictures(), "mlp_out", [0, 1], out=tmp_path, **options)
    for a, b in zip(whole, resumed, strict=True):
        assert same(a, b)
        assert a.record == b.record
    names = [f"blocks.{layer}.hook_mlp_out.safetensors" for layer in (0, 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert same(load_dictionary(tmp_path / names[1]), whole[1])
    read = train_dictionary(model, Pictures(killed_at=1), "mlp_out", [0, 1], out=tmp_path, **options)
    assert same(read[0], whole[0])
    with pytest.raises(ValueError, match=r"holds another training; they differ in\n  options.seed: 0 then, 3 now"):
        train_dictionary(model, Pictures(), "mlp_out", [0, 1], out=tmp_path, seed=3, **options)
    other = train_dictionary(model, Pictures(), "mlp_out", [0, 1], out=tmp_path, seed=3, resume=False, **options)
    assert not same(other[0], whole[0])


def test_a_transcoder_and_what_it_does_in_the_model() -> None:
    model, images = ported("cls"), torch.stack([Pictures()[i][0] for i in range(3)])
    transcoder = train_dictionary(model, Pictures(), "mlp_in", 1, writes="mlp_out", tokens="patch", **OPTIONS)
    assert transcoder.config.point == ("blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out")
    with model.spliced({transcoder.config.point: transcoder}):
        logits, cache = model.run_with_cache(images, names_filter="latents")
    assert torch.equal(logits, model(images))
    latents = cache["blocks.1.hook_mlp_out.dictionary.hook_latents"]
    assert not latents[:, 0].any()
    assert latents[:, 1:].any()


def test_matryoshkas_prefixes_and_losses_as_they_come() -> None:
    rows: list = []
    dictionary = train_dictionary(ported("cls"), Pictures(), "z", 0, kind="matryoshka", on_chunk=rows.append, **OPTIONS)
    assert dictionary.config.group_sizes == (2, 4, 8, 16, 32)
    assert [row["pictures"] for row in rows] == [10, 20, 30, 40]
    assert rows[0].keys() == {"layer", "pictures", "loss", "unexplained", "active", "dead"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 3}, "no layer 3 for 'resid_post'"),
        ({"stream": "resid_pots"}, "unknown hook point"),
        ({"stream": "pattern"}, "one vector per token or image"),
        ({"layers": []}, "expected one or several layers, each once"),
        ({"layers": [1, 1]}, "expected one or several layers, each once"),
        ({"layers": [-1, 2]}, r"expected one or several layers, each once, got \[-1, 2\] of 3 blocks"),
        ({"layers": 2.0}, "layers as whole numbers, got 2.0"),
        ({"layers": [0, 1.0]}, r"layers as whole numbers, got \[0, 1.0\]"),
        ({"k": 33}, "expected k from 1 to the number of latents, 32, got 33"),
        ({"buffer_size": 0}, "buffer_size must be at least 1, got 0"),
        ({"on_error": "ignore"}, "on_error is 'raise' or 'skip', got 'ignore'"),
        ({"stream": "resid_post", "writes": "mlp_in"}, "reads before it writes, but 'blocks.1.hook_resid_post' comes"),
        ({"dataset": Pictures(0)}, "the dataset is empty"),
        ({"dataset": Pictures(8, value=float("nan"))}, "image . of the dataset cannot be read"),
        ({"dataset": Pictures(8, value=float("nan")), "on_error": "skip"}, "none of its images could be read"),
        ({"tokens": "register"}, "the model has no register token"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"kind": "gated"}, "kind is one of relu"),
        ({"kind": "jump_relu", "options": DEADLY}, "latents are dead: none was active in the last 200"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(changes, message: str, bad_input) -> None:
    arguments = {"dataset": Pictures(), "stream": "resid_post", "layers": 1, **OPTIONS, **changes}
    with pytest.raises(ValueError, match=message):
        train_dictionary(ported("cls"), **arguments)


def test_the_record_has_what_the_finished_dictionary_encodes() -> None:
    model, options = ported("cls"), {**OPTIONS, "kind": "batch_topk", "step_size": 500, "buffer_size": 1000}
    dictionary = train_dictionary(model, Pictures(30), "resid_post", 1, **options)
    images = torch.stack([Pictures()[i][0] for i in range(30)])
    _, cache = model.run_with_cache(images, names_filter=dictionary.config.reads)
    with torch.no_grad():
        latents = dictionary.encode(cache[dictionary.config.reads]).flatten(0, 1)
    expected = sum(int(row.count_nonzero()) for row in latents) / len(latents)
    assert dictionary.record["active_as_encoded"] == pytest.approx(expected)


def test_a_layer_may_be_any_whole_number() -> None:
    model = ported("cls")
    one = train_dictionary(model, Pictures(8), "resid_post", np.int64(1), **OPTIONS)
    assert same(one, train_dictionary(model, Pictures(8), "resid_post", 1, **OPTIONS))


@pytest.mark.parametrize("changes", [{"buffer_size": 0}, {"tokens": "register"}, {"layers": [1, -2]}])
def test_refused_arguments_delete_nothing(changes, tmp_path, bad_input) -> None:
    model, file = ported("cls"), tmp_path / "blocks.1.hook_resid_post.safetensors"
    train_dictionary(model, Pictures(8), "resid_post", 1, out=tmp_path, **OPTIONS)
    before, arguments = file.read_bytes(), {"layers": 1, **OPTIONS, **changes}
    with pytest.raises(ValueError):
        train_dictionary(model, Pictures(8), "resid_post", out=tmp_path, resume=False, **arguments)
    assert file.read_bytes() == before


def test_another_trainings_dictionary_is_never_overwritten(tmp_path) -> None:
    model, file = ported("cls"), tmp_path / "blocks.1.hook_resid_post.safetensors"
    train_dictionary(model, Pictures(8), "resid_post", 1, out=tmp_path, **OPTIONS)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="holds another training; they differ in"):
        train_dictionary(model, Pictures(8), "resid_post", [0, 1], out=tmp_path, **OPTIONS)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_training_killed_between_its_files_is_finished(tmp_path) -> None:
    model, options = ported("cls"), {**OPTIONS, "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        train_dictionary(model, Pictures(killed_at=35), "resid_post", [0, 1], out=tmp_path / "a", **options)
    state = (tmp_path / "a" / "state.safetensors").read_bytes()
    whole = train_dictionary(model, Pictures(), "resid_post", [0, 1], out=tmp_path / "a", **options)
    (tmp_path / "a" / "state.safetensors").write_bytes(state)
    (tmp_path / "a" / "blocks.1.hook_resid_post.safetensors").unlink()
    again = train_dictionary(model, Pictures(), "resid_post", [0, 1], out=tmp_path / "a", **options)
    assert all(same(a, b) for a, b in zip(whole, again, strict=True))


def test_a_damaged_checkpoint_is_refused(tmp_path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"1234")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        train_dictionary(ported("cls"), Pictures(), "resid_post", 1, out=tmp_path, **OPTIONS)
