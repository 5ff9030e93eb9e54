"""Streamed activations: every one once per pass, in a seeded order that continues where it stopped."""

import pytest
import torch
from conftest import ported

from analyses.dictionaries import ActivationStream
from analyses.dictionaries.training import streaming

POINTS = ["blocks.0.attn.hook_z", "blocks.1.hook_resid_post"]


def pictures(n: int) -> list[tuple[torch.Tensor, int]]:
    return [(torch.randn(3, 32, 24, generator=torch.Generator().manual_seed(i)), i % 7) for i in range(n)]


@pytest.mark.parametrize(
    ("kind", "tokens"), [("cls", "patch"), ("rotary", "any"), ("gap_registers_layerscale", "register")]
)
def test_every_activation_once_per_pass(kind: str, tokens: str) -> None:
    model, dataset = ported(kind), pictures(7)
    stream = ActivationStream(model, dataset, POINTS, 1, tokens, epochs=2, batch_size=2, buffer_size=40)
    found = [{name: rows.clone() for name, rows in chunk.activations.items()} for chunk in stream.chunks()]
    _, cache = model.run_with_cache(torch.stack([image for image, _ in dataset]), names_filter=POINTS)
    types = model.token_layout.token_types
    chosen = torch.tensor([tokens in ("any", kind_of) for kind_of in types])
    for name in POINTS:
        expected = cache[name].flatten(2)[:, chosen].flatten(0, 1)
        rows = torch.cat([chunk[name] for chunk in found])
        assert max(len(chunk[name]) for chunk in found) <= 40
        assert len(rows) == 2 * len(expected)
        distance = torch.cdist(rows.double(), expected.double())
        assert distance.min(dim=1).values.max() < 1e-4
        assert distance.argmin(dim=1).bincount(minlength=len(expected)).tolist() == [2] * len(expected)
    # the same row everywhere is the same token
    rows, other = (torch.cat([chunk[name] for chunk in found]) for name in POINTS)
    index = torch.cdist(rows.double(), cache[POINTS[0]].flatten(2)[:, chosen].flatten(0, 1).double()).argmin(dim=1)
    torch.testing.assert_close(other, cache[POINTS[1]][:, chosen].flatten(0, 1)[index], rtol=1e-4, atol=1e-5)


def test_a_stream_continues_at_the_end_of_a_chunk() -> None:
    model, dataset = ported("cls"), pictures(9)

    def chunks(start: int, seed: int = 0) -> list:
        stream = ActivationStream(model, dataset, POINTS, 1, epochs=2, batch_size=2, buffer_size=60, seed=seed)
        return [(chunk.start, chunk.end, chunk.activations[POINTS[1]]) for chunk in stream.chunks(start)]

    whole = chunks(0)
    assert [end for _, end, _ in whole] == [4, 8, 12, 16, 18]
    for (a, b, rows), (c, d, expected) in zip(chunks(8), whole[2:], strict=True):
        assert (a, b) == (c, d)
        assert torch.equal(rows, expected)
    assert not torch.equal(chunks(0, seed=1)[0][2], whole[0][2])


def test_a_chunk_is_never_more_than_a_pass_or_some_thousand_pictures(monkeypatch) -> None:
    """With one token per picture, the buffer would hold them all."""
    model = ported("cls")

    def ends() -> list[int]:
        stream = ActivationStream(model, pictures(7), POINTS, 1, tokens="cls", epochs=2, batch_size=2)
        return [chunk.end for chunk in stream.chunks()]

    assert ends() == [7, 14]
    monkeypatch.setattr(streaming, "_MOST_PICTURES", 3)
    assert ends() == [3, 6, 9, 12, 14]


def test_the_forward_pass_stops_and_progress_is_counted(monkeypatch) -> None:
    model, seen, counted = ported("cls"), [], []
    stream = ActivationStream(model, pictures(5), POINTS[:1], 0, batch_size=2)
    with model.hooks(fwd_hooks=[("resid_post", lambda x, hook: seen.append(hook.name))]):
        list(stream.chunks(advance=counted.append))
    assert set(seen) == {"blocks.0.hook_resid_post"}
    assert counted == [2, 2, 1]


def test_pictures_that_cannot_be_read() -> None:
    model, dataset = ported("cls"), pictures(4)
    dataset[2] = (torch.full((3, 32, 24), torch.nan), 0)
    with pytest.raises(ValueError, match="image 2 of the dataset cannot be read"):
        list(ActivationStream(model, dataset, POINTS, 1).chunks())
    (chunk,) = ActivationStream(model, dataset, POINTS, 1, on_error="skip").chunks()
    assert len(chunk.activations[POINTS[0]]) == 3 * 13
    assert [index for index, _ in chunk.skipped] == [2]
    with pytest.raises(ValueError, match="the model has no register token"):
        ActivationStream(model, dataset, POINTS, 1, tokens="register")
