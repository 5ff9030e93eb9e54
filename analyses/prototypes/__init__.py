"""Classes for a model without a head: class embeddings made from a few pictures per class, and files of them."""

from analyses.prototypes.class_embeddings import ClassEmbeddings, read_class_embeddings, read_class_names
from analyses.prototypes.fitting import PrototypeMethod, class_prototypes

__all__ = ["ClassEmbeddings", "PrototypeMethod", "class_prototypes", "read_class_embeddings", "read_class_names"]
