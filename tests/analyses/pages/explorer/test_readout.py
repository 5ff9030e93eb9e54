"""A page's readouts are what the model's head says of each block's output, after the last one the model's logits."""

import torch
from explored import an_image, explored, unpacked

from hooked_vit.resuming import resume


def test_they_are_the_heads(kind: str) -> None:
    model, cache, data = explored(kind)
    rank, logit = (unpacked(data["readout"][name]) for name in ("rank", "logit"))
    for layer in range(model.cfg.n_layers):
        with torch.no_grad():  # as if the last block had written this
            logits = resume(model, "resid_post", model.cfg.n_layers - 1, cache["resid_post", layer])[0]
        for place, label in enumerate(data["shown"]):
            assert abs(logit[layer, place] - logits[label]) < 1e-5
            assert rank[layer, place] == sum(other > logits[label] for other in logits)
    with torch.no_grad():
        assert torch.allclose(logit[-1], model(an_image())[0][data["shown"]], atol=1e-5)
