"""A page's top classes, ranks and logits are those of `project`."""

import torch
from explored import explored, unpacked

from analyses.pages.explorer import projections as module
from analyses.pages.explorer.projections import EXPLORED_STREAMS, projections
from analyses.projection import project


def test_they_are_those_of_project(kind: str) -> None:
    model, cache, data = explored(kind)
    part = data["projections"]
    stored = {name: unpacked(one) for name, one in part.items()}
    for s, stream in enumerate(EXPLORED_STREAMS):
        for place, label in enumerate(data["shown"]):
            p = project(model, cache, stream, torch.tensor([label]))
            assert p.rank is not None
            assert p.label_logit is not None
            assert torch.equal(stored["rank"][s, ..., place], p.rank[:, 0])
            error = (stored["logit"][s, ..., place] - p.label_logit[:, 0]).abs().max()
            assert error <= part["logit"]["step"] / 2 + 1e-5
        assert torch.equal(stored["top_classes"][s], p.top_classes[:, 0])
        assert (stored["top_logits"][s] - p.top_logits[:, 0]).abs().max() <= part["top_logits"]["step"] / 2 + 1e-5


def test_in_chunks_it_is_the_same(monkeypatch) -> None:
    model, cache, data = explored("cls")
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 5 * model.cfg.n_classes)
    again = projections(model, cache, data["shown"])
    for name, part in data["projections"].items():
        assert torch.allclose(unpacked(again[name]).double(), unpacked(part).double(), atol=1e-4)
