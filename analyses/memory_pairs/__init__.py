"""Key-value memory pairs: the memories that tokens activate and their effect on predictions (paper, section 5.2)."""

from analyses.memory_pairs.agreement import KeyValueAgreement
from analyses.memory_pairs.calls import called_memories
from analyses.memory_pairs.causal import CausalMemories
from analyses.memory_pairs.coefficients import Coefficients, memory_coefficients
from analyses.memory_pairs.composition import Compositionality
from analyses.memory_pairs.interventions import MemoryMeans, edit_memories
from analyses.memory_pairs.lookup import MemoryTables
from analyses.memory_pairs.pairs import compositionality, first_match, key_value_agreement
from analyses.memory_pairs.top_activations import TopActivations, images_at
from analyses.value_vectors.alignment import class_value_agreement

__all__ = [
    "CausalMemories",
    "Coefficients",
    "Compositionality",
    "KeyValueAgreement",
    "MemoryMeans",
    "MemoryTables",
    "TopActivations",
    "called_memories",
    "class_value_agreement",
    "compositionality",
    "edit_memories",
    "first_match",
    "images_at",
    "key_value_agreement",
    "memory_coefficients",
]
