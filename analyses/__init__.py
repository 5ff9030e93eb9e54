"""Analyses of Vision Transformers in class space, one module or package per question, built on hooked_vit."""
