"""The memories of a page are those of the largest coefficients, with the classes that `top_classes` tells."""

import pytest
from explored import explored, unpacked

from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.value_vectors.vectors import MemorySublayer, top_classes


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_they_are_the_largest_with_their_classes(kind: str, sublayer: MemorySublayer) -> None:
    model, cache, data = explored(kind)
    part = data["memories"][sublayer]
    stored = {name: unpacked(one) for name, one in part.items()}
    for layer in range(model.cfg.n_layers):
        coefficients = memory_coefficients(model, cache, layer, sublayer, "post")[0]
        for token in range(len(coefficients)):
            ordered = sorted(enumerate(coefficients[token].tolist()), key=lambda one: -one[1])[:5]
            assert stored["memory"][layer, token].tolist() == [memory for memory, _ in ordered]
            right = [value for _, value in ordered]
            assert stored["coefficient"][layer, token].tolist() == pytest.approx(
                right, abs=part["coefficient"]["step"] / 2 + 1e-6
            )
        for place in range(5):
            memory = int(stored["memory"][layer, 0, place])
            table = top_classes(model, layer, [memory], sublayer, k=3)
            assert stored["classes"][layer, 0, place].tolist() == table["class_index"].tolist()
            assert stored["logits"][layer, 0, place].tolist() == pytest.approx(
                table["logit"].tolist(), abs=part["logits"]["step"] / 2 + 1e-6
            )
