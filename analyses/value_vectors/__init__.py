"""Value vectors, the rows of W_out and W_O: their class logits, and how they align with class embeddings."""

from analyses.value_vectors.alignment import ClassValueAgreement, class_value_agreement, compare_class_value_agreement
from analyses.value_vectors.coherence import semantic_coherence
from analyses.value_vectors.head_directions import ClassDirections, head_class_directions, mlp_class_directions
from analyses.value_vectors.taxonomy import Taxonomy, class_similarity, emoji_taxonomy, taxonomy_of, wordnet_taxonomy
from analyses.value_vectors.vectors import (
    MemorySublayer,
    memory_indices,
    top_classes,
    top_memories,
    value_logits,
    value_vectors,
)

__all__ = [
    "ClassDirections",
    "ClassValueAgreement",
    "MemorySublayer",
    "Taxonomy",
    "class_similarity",
    "class_value_agreement",
    "compare_class_value_agreement",
    "emoji_taxonomy",
    "head_class_directions",
    "memory_indices",
    "mlp_class_directions",
    "semantic_coherence",
    "taxonomy_of",
    "top_classes",
    "top_memories",
    "value_logits",
    "value_vectors",
    "wordnet_taxonomy",
]
