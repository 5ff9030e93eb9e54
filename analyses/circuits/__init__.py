"""Circuits: which edges between a model's parts carry a class."""

from analyses.circuits.attribution import Method, edge_attribution, edge_maps
from analyses.circuits.baseline import random_circuit
from analyses.circuits.circuit import Circuit
from analyses.circuits.exact import edge_patching
from analyses.circuits.graph import CircuitGraph, Edge, circuit_graph
from analyses.circuits.groups import object_groups, single_tokens
from analyses.circuits.over_dataset import CircuitFaithfulness
from analyses.circuits.planted import PlantedModel, planted_model
from analyses.circuits.quality import CircuitCurve, circuit_curve, minimality, overlaps
from analyses.circuits.recording import Recording, mean_recording, record
from analyses.circuits.scores import EdgeScores, ScoreAgreement, overlap, score_agreement
from analyses.circuits.search import greedy_circuit, pruned_circuit, top_circuit

__all__ = [
    "Circuit",
    "CircuitCurve",
    "CircuitFaithfulness",
    "CircuitGraph",
    "Edge",
    "EdgeScores",
    "Method",
    "PlantedModel",
    "Recording",
    "ScoreAgreement",
    "circuit_curve",
    "circuit_graph",
    "edge_attribution",
    "edge_maps",
    "edge_patching",
    "greedy_circuit",
    "mean_recording",
    "minimality",
    "object_groups",
    "overlap",
    "overlaps",
    "planted_model",
    "pruned_circuit",
    "random_circuit",
    "record",
    "score_agreement",
    "single_tokens",
    "top_circuit",
]
