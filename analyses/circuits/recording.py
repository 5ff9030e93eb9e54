"""What each part of a model writes in a run, and the streams that its parts read; means over a dataset too."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.circuits.graph import circuit_graph
from hooked_vit import HookedViT
from hooked_vit.input_checks import check_images
from hooked_vit.resuming import check_unhooked

__all__ = ["Recording", "WriteHooks", "mean_recording", "record"]


@dataclass(frozen=True)
class Recording:
    """The writes of every sender, and the stream at every reader.

    Attributes:
        writes: What each sender of the graph adds to the stream.
        attn_in: The stream that a block's queries, keys and values read.
        mlp_in: The stream that its MLP reads.
        final: The stream that the head reads.
        q: Queries, as in the run; from the mean stream for a mean.
        k: Keys.
        v: Values.
        gate: The gates of gated attention; empty if there are none.
        logits: The logits of the run; of the mean stream for a mean.
    """

    writes: Float[Tensor, "#batch token sender d_model"]
    attn_in: tuple[Float[Tensor, "#batch token d_model"], ...]
    mlp_in: tuple[Float[Tensor, "#batch token d_model"], ...]
    final: Float[Tensor, "#batch token d_model"]
    q: tuple[Float[Tensor, "#batch token head d_head"], ...]
    k: tuple[Float[Tensor, "#batch token _ d_head"], ...]
    v: tuple[Float[Tensor, "#batch token _ d_head"], ...]
    logits: Float[Tensor, "#batch n_classes"]
    gate: tuple[Float[Tensor, "#batch token head d_head"], ...] = ()

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Recording":
        """The same with a function applied to every tensor."""
        streams = (self.attn_in, self.mlp_in, self.q, self.k, self.v, self.gate)
        attn_in, mlp_in, q, k, v, gate = (tuple(map(change, stream)) for stream in streams)
        return Recording(change(self.writes), attn_in, mlp_in, change(self.final), q, k, v, change(self.logits), gate)

    def of_images(self, images: slice) -> "Recording":
        """The recording of some of the images; of a mean, the mean."""
        return self if len(self.writes) == 1 else self.changed(lambda tensor: tensor[images])

    def repeated(self, times: int) -> "Recording":
        """The images one after another, several times; a single one is left to broadcast."""
        if times == 1 or len(self.writes) == 1:
            return self
        return self.changed(lambda tensor: tensor.repeat(times, *(1,) * (tensor.ndim - 1)))


class WriteHooks:
    """Hooks that fill a tensor [batch token sender d_model] with what is written, as a run goes on.

    In a post-norm block, the bias of attention depends on the other heads through the norm's scale: an equal part of
    it is added to each head's write.
    """

    def __init__(self, model: HookedViT, less: Float[Tensor, "#batch token sender d_model"] | None = None):
        """Configure the hooks.

        Args:
            model: The model.
            less: Writes to subtract, so that the tensor holds differences.
        """
        self.writes = torch.empty(0)
        self._graph, self._less = circuit_graph(model), less
        self.hooks: list[Any] = [("hook_tokens", self._reading(self._tokens))]
        for layer in range(model.cfg.n_layers):
            self.hooks.append((f"blocks.{layer}.attn.hook_result", self._reading(self._heads, layer)))
            if model.cfg.write_norms is not None:
                self.hooks.append((f"blocks.{layer}.hook_attn_out", self._reading(self._bias, layer)))
            self.hooks.append((f"blocks.{layer}.hook_mlp_out", self._reading(self._mlp, layer)))

    def _reading(self, write: Any, *at: int) -> Any:
        def read(activation: Tensor, hook: Any) -> None:
            write(activation.detach(), *at)

        # see HookPoint: they leave the activation as it is, so that attention's output stays fused
        read.only_reads = read.leaves_storage = True  # pyright: ignore[reportFunctionMemberAccess]
        return read

    def _tokens(self, tokens: Tensor) -> None:
        batch, n_tokens, width = tokens.shape
        # in memory senders come first, so that products over all tokens are one matrix product
        self.writes = tokens.new_empty(batch, self._graph.n_senders, n_tokens, width).transpose(1, 2)
        self._put(tokens, slice(0, 1), tokens.unsqueeze(-2))

    def _heads(self, results: Tensor, layer: int) -> None:
        self._put(results, self._graph.heads_of(layer), results)

    def _mlp(self, mlp_out: Tensor, layer: int) -> None:
        at = self._graph.mlp_of(layer)
        self._put(mlp_out, slice(at, at + 1), mlp_out.unsqueeze(-2))

    def _bias(self, attn_out: Tensor, layer: int) -> None:
        heads = self.writes[:, :, self._graph.heads_of(layer)]
        if self._less is not None:
            attn_out = attn_out - self._less[:, :, self._graph.heads_of(layer)].sum(dim=-2)
        heads += ((attn_out - heads.sum(dim=-2)) / heads.shape[-2]).unsqueeze(-2)

    def _put(self, like: Tensor, senders: slice, written: Tensor) -> None:
        if self._less is not None:
            torch.sub(written, self._less[:, :, senders], out=self.writes[:, :, senders])
        else:
            self.writes[:, :, senders] = written


@torch.no_grad()
def record(model: HookedViT, images: Float[Tensor, "batch channel height width"]) -> Recording:
    """Run the model once and keep what its parts write and read.

    Raises:
        ValueError: If the model does not accept the images, or has hooks.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> kept = record(model, torch.zeros(1, 3, 64, 64))
    >>> torch.allclose(kept.writes.sum(dim=2) + sum(block.attn.b_O for block in model.blocks), kept.final, atol=1e-4)
    True
    """
    check_images(images, model.cfg, model.embed.weight)
    check_unhooked(model)
    n_layers = model.cfg.n_layers
    names = ["q", "k", "v", "resid_pre", "mlp_in", ("resid_post", n_layers - 1)]
    gates = [f"blocks.{layer}.attn.hook_gate" for layer in range(n_layers)] if model.cfg.gated_attn else []
    written = WriteHooks(model)
    with model.hooks(fwd_hooks=written.hooks):
        logits, cache = model.run_with_cache(images, names_filter=[*names, *gates])
    at = {name: tuple(cache[name, layer] for layer in range(n_layers)) for name in ("q", "k", "v", "resid_pre")}
    mlp_in = tuple(cache[f"blocks.{layer}.hook_mlp_in"] for layer in range(n_layers))
    final = cache["resid_post", n_layers - 1]
    gate = tuple(cache[name] for name in gates)
    return Recording(written.writes, at["resid_pre"], mlp_in, final, at["q"], at["k"], at["v"], logits, gate)


@torch.no_grad()
def mean_recording(model: HookedViT, batches: Iterable[Tensor]) -> Recording:
    """The mean of every write and stream over images, at each token, for circuits whose outside takes the mean.

    The stream is a sum of writes, so its mean is the sum of their means; queries, keys, values and logits are those of
    the mean stream.

    Args:
        model: The model, without hooks.
        batches: Preprocessed images [batch channel height width], in batches of any size.

    Raises:
        ValueError: As `record`; if there is no batch.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> mean_recording(model, torch.randn(2, 3, 3, 64, 64)).writes.shape
    torch.Size([1, 65, 41, 128])
    """
    totals: dict[str, Any] = {}
    n_images = 0
    for images in batches:
        kept = record(model, images)
        n_images += len(images)
        for name in ("writes", "attn_in", "mlp_in", "final"):
            value = getattr(kept, name)
            sums = tuple(part.sum(0, keepdim=True) for part in (value if isinstance(value, tuple) else (value,)))
            totals[name] = tuple(map(torch.add, totals[name], sums)) if name in totals else sums
    if not n_images:
        raise ValueError("expected at least one batch of images, got none")
    mean = {name: tuple(total / n_images for total in sums) for name, sums in totals.items()}
    normed = [
        stream if model.cfg.post_norm else block.ln1.fused(stream)
        for block, stream in zip(model.blocks, mean["attn_in"], strict=True)
    ]
    blocks = list(zip(model.blocks, normed, strict=True))
    projected = [block.attn.queries_keys_values(stream, slice(None)) for block, stream in blocks]
    gate = tuple(block.attn.gate_values(stream) for block, stream in blocks) if model.cfg.gated_attn else ()
    q, k, v = (tuple(parts) for parts in zip(*projected, strict=True))
    (writes,), (final,) = mean["writes"], mean["final"]
    logits = model(final, start_at_layer=model.cfg.n_layers)
    return Recording(writes, mean["attn_in"], mean["mlp_in"], final, q, k, v, logits, gate)
