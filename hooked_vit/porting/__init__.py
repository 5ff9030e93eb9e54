"""From a timm module to a config and weights; one file per timm family."""

from hooked_vit.porting.families import read_config, read_weights

__all__ = ["read_config", "read_weights"]
