"""The record of a run in rows to read: names, options without the noise, versions."""

from pathlib import Path

from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.pages.report.run_record import record_rows
from analyses.perturbation.over_dataset import Perturbation
from analyses.statistics import Resampling
from analyses.sweep.output import read_sweep
from analyses.sweep.run import sweep
from hooked_vit import HookedViT


def test_what_a_run_was(tmp_path: Path) -> None:
    sweep(
        HookedViT.from_pretrained("emoji-vit"),
        EmojiScenes(2, 5),
        [Perturbation(resampling=Resampling(9))],
        out=tmp_path,
    )
    found = read_sweep(tmp_path)
    rows = dict(record_rows(found))
    assert rows["architecture"].startswith(
        "n_layers 8, d_model 128, n_heads 4, d_mlp 512, n_classes 100, image_size [64"
    )
    assert rows["weights"] == f"SHA-256 {found.record['model']['weights_sha256']}"
    assert rows["dataset"].startswith("EmojiScenes n 2, seed 5, image_size 64")
    assert "interventions (self_only self_only, no_cls" in rows["analysis: perturbation"]
    assert "resampling (Resampling n_resamples 9, level 0.95, seed 0)" in rows["analysis: perturbation"]
    assert "torch " in rows["versions"]
    assert rows["images"] == "2"
    assert "model" not in rows  # run from Python: nobody said its name
    assert dict(record_rows(found, model_name="mine"))["model"] == "mine"
    assert "null control" not in rows
    assert dict(record_rows(found, found))["null control"] == rows["weights"]
