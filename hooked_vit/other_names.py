"""What TransformerLens and timm call by names that a HookedViT does not have, and what to use instead."""

from collections.abc import Mapping
from types import MappingProxyType

_AS_STORED = "weights are kept as stored; `model.fold_layer_norm()` returns a model with folded norms"
_CLASS_NAME = "`model.class_names[index]` is the name of a class, `model.class_index(name)` its index"
_LAYOUT = "`model.token_layout` says which tokens are CLS, registers and patches"
_NO_PROJECTION = "the stem of this model writes the tokens itself, without a projection: `hook_stem` holds them"
_ALL_STREAMS = '`model.run_with_cache(images, names_filter="resid_post")` keeps the stream after every block'

OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        # TransformerLens
        "W_E_pos": "`W_E` has a row per pixel of a patch and `W_pos` a row per token, so the two are not stacked",
        "pos_embed": "`model.W_pos` is the position embedding, 'hook_pos_embed' its hook point",
        "loss_fn": '`model(images, return_type="loss", labels=labels)` computes the cross-entropy',
        "to_tokens": "`model.preprocess(pictures)` turns pictures into the model's input",
        "to_str_tokens": _LAYOUT,
        "to_string": _CLASS_NAME,
        "to_single_str_token": _CLASS_NAME,
        "tokenizer": "`model.preprocess(pictures)` turns pictures into the model's input",
        "get_token_position": "`model.token_layout.patch_token(row, column)` is the index of a patch's token",
        "input_to_embed": "`model(images, stop_at_layer=0)` returns the start of the stream",
        "generate": "the model classifies images; `model(images)` returns the logits of the classes",
        "set_use_attn_in": "`model.set_use_split_qkv_input(True)` gives each head inputs of its own",
        "all_head_labels": "`cache.stack_head_results(return_labels=True)` returns labels with the results",
        "all_composition_scores": "`model.OV` and `model.QK` are the factored matrices [layer head] to compose",
        "process_weights": _AS_STORED,
        "process_weights_": _AS_STORED,
        "center_writing_weights": _AS_STORED,
        "center_unembed": _AS_STORED,
        "fold_value_biases": _AS_STORED,
        # timm
        "forward_features": "the cache of `model.run_with_cache(images)` has them as 'ln_final.hook_normalized'",
        "forward_head": "`model.head_logits(residual)` computes the logits from the last stream",
        "forward_intermediates": _ALL_STREAMS,
        "get_intermediate_layers": _ALL_STREAMS,
        "patch_embed": "'hook_patch_embed' is its hook point, `model.embed.patch` the convolution",
        "norm": "`model.ln_final` is the final norm",
        "fc_norm": "`model.ln_final` is the final norm",
        "num_classes": "`model.cfg.n_classes` is their number",
        "num_features": "`model.cfg.d_model` is the width of the stream",
        "embed_dim": "`model.cfg.d_model` is the width of the stream",
        "pretrained_cfg": "`model.data_config` is the preprocessing of the loaded weights",
        "default_cfg": "`model.data_config` is the preprocessing of the loaded weights",
        "get_classifier": "`model.W_U` and `model.b_U` are the head's weights",
        "reset_classifier": "`model.with_class_embeddings(W, b)` returns a model with another head",
        # names of a HookedViT that depend on the architecture
        "W_E": _NO_PROJECTION,
        "b_E": _NO_PROJECTION,
        "W_pos": "this model has no position embedding",
        "W_gate": "the MLPs of this model are not gated",
        "b_gate": "the MLPs of this model are not gated",
    }
)
"""For each name, what to use instead, as the end of an error."""
