"""Steering with latents: class logits against the dose of a latent, and what happens to the other classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.dictionaries.dictionary import Dictionary
from analyses.dictionaries.reading.class_space import check_latents
from analyses.dictionaries.tokens import chosen_tokens, edit_written, per_token
from hooked_vit import HookedViT

__all__ = ["DoseResponse", "dose_response"]

SteeringMode = Literal["scale", "add"]


@dataclass(frozen=True)
class DoseResponse:
    """Class logits under growing doses of a latent.

    Attributes:
        latent: Index of the latent.
        mode: `scale` or `add`.
        doses: The doses.
        logits: The logits of each image under each dose.
        plain: The logits without steering.
        target: The class that is watched: of each image.
        class_names: The model's classes.
    """

    latent: int
    mode: SteeringMode
    doses: tuple[float, ...]
    logits: Float[Tensor, "dose batch n_classes"]
    plain: Float[Tensor, "batch n_classes"]
    target: Int[Tensor, "batch"]
    class_names: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """One row per dose; numbers are means over images, changes are steered minus plain.

        Columns `dose`; `target_change` of the target's logit; `others_change` of the mean logit of all other classes
        and `others_spread`, the mean absolute change of their logits (side effects); `target_top` and `kept_top`, the
        percentage of images whose top class is the target, and is the same as without steering; `kl`, the divergence
        from the plain prediction in nats.
        """
        n_classes = self.plain.shape[-1]
        others = torch.ones_like(self.plain, dtype=torch.bool).scatter(1, self.target[:, None], False)
        change = (self.logits - self.plain).double()
        at_target = change.gather(2, self.target[None, :, None].expand(len(change), -1, 1))[..., 0]
        of_others = change * others
        plain = self.plain.double().log_softmax(dim=-1)
        steered = self.logits.double().log_softmax(dim=-1)
        top = self.logits.argmax(dim=-1)
        columns = {
            "target_change": at_target.mean(dim=1),
            "others_change": of_others.sum(dim=2).mean(dim=1) / (n_classes - 1),
            "others_spread": of_others.abs().sum(dim=2).mean(dim=1) / (n_classes - 1),
            "target_top": 100 * (top == self.target).double().mean(dim=1),
            "kept_top": 100 * (top == self.plain.argmax(dim=-1)).double().mean(dim=1),
            "kl": (plain.exp() * (plain - steered)).sum(dim=2).mean(dim=1),
        }
        numbers = {name: values.cpu().numpy() for name, values in columns.items()}
        return pd.DataFrame({"dose": self.doses, **numbers})

    def most_changed(self, k: int = 5) -> pd.DataFrame:
        """The k classes whose mean logit changes most under the last dose: `class_name`, `change`."""
        change = (self.logits[-1] - self.plain).mean(dim=0)
        top = change.abs().topk(min(k, len(change))).indices.tolist()
        return pd.DataFrame(
            {"class_name": [self.class_names[i] for i in top], "change": [float(change[i]) for i in top]}
        )


@torch.no_grad()
def dose_response(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"],
    dictionary: Dictionary,
    latent: int,
    doses: Sequence[float | int],
    target: int | str | Int[Tensor, "batch"],
    *,
    mode: SteeringMode = "scale",
) -> DoseResponse:
    """Steer with one latent at growing doses, and record the logits.

    `scale` multiplies the latent's activation by the dose: 1 changes nothing, 0 removes it, and where it is not active
    nothing happens. `add` adds the dose to its activation at all of the dictionary's tokens: 0 changes nothing. The
    error of the reconstruction is kept, so a dose that changes nothing leaves the logits as they are.

    Args:
        model: The model.
        images: Images.
        dictionary: A dictionary of this model.
        latent: The latent.
        doses: Factors, or what is added, in the latent's units.
        target: The class to watch, by name or index, or one index per image.
        mode: `scale` or `add`.

    Raises:
        ValueError: If there is no such latent, class or mode, there are no doses, or the dictionary is of another
            model.

    >>> from analyses.dictionaries.dictionary import DictionaryConfig
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> point = "blocks.5.hook_resid_post"
    >>> dictionary = Dictionary(DictionaryConfig("topk", 128, 128, 40, point, point, k=2))
    >>> response = dose_response(model, torch.zeros(2, 3, 64, 64), dictionary, 7, [0, 1, 2], "dog")
    >>> response.table()[["dose", "target_change"]].values.tolist()
    [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]
    """
    [latent] = check_latents(dictionary, [latent])
    if mode not in get_args(SteeringMode):
        raise ValueError(f"expected mode 'scale' or 'add', got {mode!r}")
    if not len(doses):
        raise ValueError("expected at least one dose, got none")
    model.require_several_classes("side effects on other classes")
    dictionary.check_fits(model)
    classes = model.class_indices(target, len(images))
    config = dictionary.config
    plain, cache = model.run_with_cache(images, names_filter=model.hook_names([config.reads]))
    activation = per_token(cache[config.reads])
    chosen = chosen_tokens(model, config.tokens, activation.shape[1])
    own = dictionary.encode(activation[:, chosen])[..., [latent]]
    direction = dictionary.directions[latent]
    logits = []
    for dose in doses:
        amount = own * (dose - 1) if mode == "scale" else torch.full_like(own, float(dose))
        change = amount * direction

        def steer(written: Tensor, change: Tensor = change) -> Tensor:
            edited = written.clone()
            edited[:, chosen] += change
            return edited

        hooks: list[Any] = edit_written(model, dictionary, steer)
        logits.append(model.run_with_hooks(images, fwd_hooks=hooks))
    names = tuple(model.class_names)
    return DoseResponse(latent, mode, tuple(float(dose) for dose in doses), torch.stack(logits), plain, classes, names)
