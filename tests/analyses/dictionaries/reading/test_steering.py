"""Steering equals hooks by hand; the table's numbers equal a loop over images and classes."""

import pytest
import torch
from dictionary_toys import KINDS, items, toy, toy_dictionary

from analyses.dictionaries import dose_response


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["scale", "add"])
def test_logits_are_those_of_a_hook_by_hand(kind: str, mode: str) -> None:
    model = toy(kind)
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post", tokens="patch")
    images = torch.stack([image for image, _ in items()[:3]])
    doses = [0.0, 1.0, 3.0]
    response = dose_response(model, images, dictionary, 7, doses, 4, mode=mode)  # pyright: ignore[reportArgumentType]
    neutral = 1 if mode == "scale" else 0
    assert torch.equal(response.logits[neutral], response.plain)
    for dose, logits in zip(doses, response.logits, strict=True):

        def steer(stream: torch.Tensor, hook: object, dose: float = dose) -> torch.Tensor:
            stream = stream.clone()
            for image in range(3):
                for token in range(model.token_layout.n_prefix, stream.shape[1]):
                    latents = dictionary.encode(stream[image, token])
                    changed = latents.clone()
                    changed[7] = latents[7] * dose if mode == "scale" else latents[7] + dose
                    stream[image, token] += dictionary.decode(changed) - dictionary.decode(latents)
            return stream

        expected = model.run_with_hooks(images, fwd_hooks=[("blocks.1.hook_resid_post", steer)])
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(response.logits[2], response.plain)


def test_table_equals_the_loop() -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post")
    images = torch.stack([image for image, _ in items()[:3]])
    target = torch.tensor([4, 0, 6])
    response = dose_response(model, images, dictionary, 3, [5.0], target, mode="add")
    row = response.table().iloc[0]
    steered, plain = response.logits[0].double(), response.plain.double()
    others = [[c for c in range(7) if c != target[i]] for i in range(3)]
    change = steered - plain
    expected = {
        "dose": 5.0,
        "target_change": sum(float(change[i, target[i]]) for i in range(3)) / 3,
        "others_change": sum(float(change[i, c]) for i in range(3) for c in others[i]) / 18,
        "others_spread": sum(abs(float(change[i, c])) for i in range(3) for c in others[i]) / 18,
        "target_top": 100 * sum(int(steered[i].argmax() == target[i]) for i in range(3)) / 3,
        "kept_top": 100 * sum(int(steered[i].argmax() == plain[i].argmax()) for i in range(3)) / 3,
        "kl": sum(float(plain[i].softmax(0) @ (plain[i].log_softmax(0) - steered[i].log_softmax(0))) for i in range(3))
        / 3,
    }
    assert row.to_dict() == pytest.approx(expected, rel=1e-5)
    most = response.most_changed(2)
    mean = change.mean(dim=0)
    top = sorted(range(7), key=lambda c: -abs(float(mean[c])))[:2]
    assert most["class_name"].tolist() == [model.class_names[c] for c in top]
    assert most["change"].tolist() == pytest.approx([float(mean[c]) for c in top], rel=1e-4)


def test_errors_say_what_to_do(bad_input: None) -> None:
    model = toy("cls")
    dictionary, images = toy_dictionary(model, "blocks.1.hook_resid_post"), items()[0][0][None]
    with pytest.raises(ValueError, match="mode 'scale' or 'add', got 'set'"):
        dose_response(model, images, dictionary, 0, [1], 0, mode="set")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least one dose"):
        dose_response(model, images, dictionary, 0, [], 0)
    with pytest.raises(ValueError, match=r"latents from 0 to 36, got \[-1\]"):
        dose_response(model, images, dictionary, -1, [1], 0)
    with pytest.raises(ValueError, match="class index 9 is out of range"):
        dose_response(model, images, dictionary, 0, [1], 9)
