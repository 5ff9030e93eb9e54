"""From a timm module to a config and weights; one file per timm family."""

from hooked_vit.porting.families import encoder_of, left_out, original_output, read_config, read_weights

__all__ = ["encoder_of", "left_out", "original_output", "read_config", "read_weights"]
