"""Pairs of images are checked, runs that change something share batches, and others are skipped."""

import pytest
import torch
from conftest import make_timm, ported

from analyses.patching.plan import plan_patches
from analyses.patching.runs import base_and_source, check_pair, patched_runs, record, rows_within
from hooked_vit import HookedViT

IMAGES = torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))


def test_a_record_holds_what_a_run_needs_to_resume() -> None:
    run = record(ported("cls"), IMAGES, "q", (1, 2))
    assert set(run.activations) == {(name, layer) for name in ("q", "k", "v", "resid_pre") for layer in (1, 2)}
    assert set(run.context(1)) == {"k", "v", "resid_pre"}
    assert set(record(ported("cls"), IMAGES, "q", (1,), context=False).activations) == {("q", 1)}


def test_more_memory_allows_more_rows() -> None:
    model = ported("cls")
    few, many = (rows_within(model, "resid_pre", 13, limit) for limit in (2e5, 2e6))
    assert 1 <= few < many
    assert rows_within(model, "pattern", 13, 2e6) < many
    assert rows_within(model, "resid_pre", 13, None) > many
    with pytest.raises(ValueError, match="memory_limit=5 bytes"):
        rows_within(model, "resid_pre", 13, 5)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 100])
def test_only_patches_that_change_something_are_run(n_rows: int) -> None:
    cfg = ported("cls").cfg
    plan = plan_patches(cfg, "resid_pre", 13, 2)
    value = torch.zeros(2, 13, 24)
    source = value.clone()
    source[0, 3], source[1, 5] = 1, 2
    rows = []

    def finish(patched: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
        rows.append(len(patched))
        return torch.stack([patched.sum(dim=(1, 2)), given["image"]], dim=1)

    image = torch.arange(2.0)
    unchanged = torch.stack([torch.full((2,), -1.0), image], dim=1)
    found = torch.cat(list(patched_runs(plan, value, source, {"image": image}, finish, unchanged, n_rows)))
    expected = torch.full((13, 2), -1.0)
    expected[3, 0], expected[5, 1] = 24, 48
    assert torch.equal(found[..., 0], expected)
    assert torch.equal(found[..., 1], image.expand(13, 2))
    assert sum(rows) == 2


@pytest.mark.usefixtures("bad_input")
def test_the_direction_chooses_the_run_that_is_patched() -> None:
    clean, corrupt = IMAGES, IMAGES + 1
    base, source = base_and_source(ported("cls"), clean, corrupt, "denoising")
    assert base is corrupt
    assert source is clean
    base, source = base_and_source(ported("cls"), clean, corrupt, "noising")
    assert base is clean
    assert source is corrupt
    with pytest.raises(ValueError, match="expected direction 'denoising' or 'noising', got 'both'"):
        base_and_source(ported("cls"), clean, corrupt, "both")  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("bad_input")
def test_pairs_are_checked() -> None:
    check_pair(ported("cls"), IMAGES, IMAGES)
    with pytest.raises(ValueError, match=r"a corrupt image for each clean one.* clean \(2, .* and corrupt \(1, 3"):
        check_pair(ported("cls"), IMAGES, IMAGES[:1])
    with pytest.raises(ValueError, match="no classes"):
        check_pair(HookedViT.from_timm(make_timm("cls", num_classes=0)), IMAGES, IMAGES)
    with (
        ported("cls").hooks(fwd_hooks=[(("z", 1), lambda z, hook: z)]),
        pytest.raises(ValueError, match=r"the model has a hook on 'blocks.1.attn.hook_z'"),
    ):
        check_pair(ported("cls"), IMAGES, IMAGES)
