"""Analyses of Vision Transformers in class space: one file per question, on top of hooked_vit."""
