"""Example 05 reads its sentences off the tables, and picks neurons by their logits."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyses.value_vectors.vectors import value_logits
from hooked_vit import HookedViT

PATH = Path(__file__).parents[2] / "examples" / "05_key_value_memories.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_05", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_clearest_neurons_speak_for_different_classes(example) -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    logits = value_logits(model, 6)
    neurons = example.clearest_neurons(model, 6, 5)
    assert len({int(logits[neuron].argmax()) for neuron in neurons}) == 5
    top = logits.sort(dim=-1, descending=True).values
    assert neurons[0] == int((top[:, 0] - top[:, 1]).argmax())


def causal_table(effect: float, p: float) -> pd.DataFrame:
    rows = []
    for layer in (0, 1):
        for memories, against in (("aligned", "random"), ("aligned", "aligned_other"), ("contribution", "random"),
                                  ("contribution", "contribution_other"), ("aligned", np.nan),
                                  ("contribution", np.nan)):  # fmt: skip
            for intervention in ("zero", "x3"):
                for metric in ("label_logit", "accuracy"):
                    value = effect if layer else 0.0
                    rows.append(
                        {"layer": layer, "intervention": intervention, "k": 20, "memories": memories,
                         "against": against, "metric": metric, "value": value, "low": value - 0.25,
                         "high": value + 0.25, "p_adjusted": p if layer else 1.0}
                    )  # fmt: skip
    return pd.DataFrame(rows)


def test_the_verdict_follows_from_the_numbers(example) -> None:
    said = " ".join(example._about_causes(causal_table(-2.0, 0.01)))
    assert "loses up to 2.00 logits [1.75, 2.25] (block 1)" in said
    assert "of another class in block 1: they are a cause there" in said
    assert "raise the class above what random ones do in no block." in said
    said = " ".join(example._about_causes(causal_table(-2.0, 0.2)))
    assert "not shown to be a cause" in said
    assert "a cause there" not in said


def test_blocks_are_named_where_only_some_were_tested(example) -> None:
    assert example._blocks(pd.Series([0, 7]), np.array([False, True])) == "block 7"
    assert example._blocks(pd.Series([0, 7]), np.array([False, False])) == "no block"
    assert example._blocks(pd.Series([0, 1]), np.array([True, True])) == "every block"
