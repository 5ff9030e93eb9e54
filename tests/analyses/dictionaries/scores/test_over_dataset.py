"""The sweep analysis equals a loop over images and tokens, merges, and refuses what does not fit."""

from dataclasses import replace

import pytest
import torch
from dictionary_toys import KINDS, items, toy, toy_dictionary
from torch.nn import functional as F

from analyses.analysis import AnalysisBatch
from analyses.dictionaries import Dictionary, DictionaryFidelity, embedded_dictionaries, random_dictionary
from analyses.statistics import Resampling
from analyses.sweep import sweep
from hooked_vit import HookedViT
from hooked_vit.interventions import mean_activations

POINTS = [("blocks.1.hook_resid_post", None, "any"), ("blocks.0.hook_mlp_in", "blocks.0.hook_mlp_out", "patch"),
          ("blocks.1.attn.hook_z", None, "any")]  # fmt: skip


@torch.no_grad()
def by_loop(model: HookedViT, dictionary, mean: torch.Tensor | None = None) -> dict[str, float]:
    """Every number of one dictionary, token by token."""
    config = dictionary.config
    tokens = range(model.token_layout.n_prefix if config.tokens == "patch" else 0, model.token_layout.n_tokens)
    targets, errors, active, losses, hits = [], 0.0, [], [], []
    fired = torch.zeros(config.d_dict, dtype=torch.bool)
    for image, label in items():
        _, cache = model.run_with_cache(image[None], names_filter=[config.reads, config.writes])
        x, y = cache[config.reads][0], cache[config.writes][0]
        replacement, ablated = y.clone(), y.clone()
        for t in tokens:
            latents = dictionary.encode(x[t].flatten())
            fired |= latents != 0
            active.append(int((latents != 0).sum()))
            replacement[t] = dictionary.decode(latents).reshape(y[t].shape)
            ablated[t] = 0 if mean is None else mean[t]
            errors += float((y[t] - replacement[t]).double().square().sum())
            targets.append(y[t].flatten().double())
        runs = [
            model.run_with_hooks(image[None], fwd_hooks=[(config.writes, lambda a, hook, new=new: new[None])])
            for new in (replacement, y, ablated)
        ]
        losses.append([float(F.cross_entropy(run, torch.tensor([label]))) for run in runs])
        hits.append([float(run.argmax() == label) for run in runs])
    stacked = torch.stack(targets)
    spliced, plain, ablated = torch.tensor(losses).double().mean(dim=0).tolist()
    hit = torch.tensor(hits).double().mean(dim=0).tolist()
    found = {
        "explained_variance": 1 - errors / float((stacked - stacked.mean(dim=0)).square().sum()),
        "l0": sum(active) / len(active),
        "dead_percent": 100 * float((~fired).float().mean()),
        "loss": spliced,
        "accuracy": 100 * hit[0],
        "loss_recovered": (ablated - spliced) / (ablated - plain),
    }
    if hit[1] != hit[2]:
        found["accuracy_recovered"] = (hit[2] - hit[0]) / (hit[2] - hit[1])
    return found


def fitted_random(model: HookedViT, dictionary, n_images: int, seed: int = 0):
    """The random dictionary whose size is fitted to the first images, token by token."""
    config = dictionary.config
    first = model.token_layout.n_prefix if config.tokens == "patch" else 0
    images = torch.stack([image for image, _ in items()[:n_images]])
    _, cache = model.run_with_cache(images, names_filter=[config.reads, config.writes])
    x, y = (cache[name][:, first:].flatten(2) for name in (config.reads, config.writes))
    return random_dictionary(dictionary, seed, activations=x, targets=y if config.is_transcoder else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", POINTS, ids=["stream", "transcoder", "heads"])
def test_numbers_are_those_of_a_loop_over_tokens(kind: str, point: tuple) -> None:
    model = toy(kind)
    dictionary = toy_dictionary(model, *point)
    analysis = DictionaryFidelity(dictionary, resampling=Resampling(19), seed=5)
    table = sweep(model, items(), [analysis], batch_size=4)["dictionary_fidelity"].set_index(["dictionary", "metric"])
    for name, one in (("given", dictionary), ("random", fitted_random(model, dictionary, 6, seed=5))):
        for metric, expected in by_loop(model, one).items():
            assert table.loc[(name, metric), "value"] == pytest.approx(expected, rel=1e-3, abs=1e-4), (name, metric)
    assert set(table["n_images"]) == {6}
    bounded = table.drop(index="dead_percent", level="metric")
    assert (bounded["low"].isna() | (bounded["low"] <= bounded["high"])).all()
    assert (table["point"] == dictionary.config.writes).all()


def test_the_loss_is_that_of_the_spliced_model_without_its_error() -> None:
    model = toy("gap_registers_layerscale")
    for point in POINTS:
        dictionary = toy_dictionary(model, *point)
        table = sweep(model, items(), [DictionaryFidelity(dictionary, resampling=Resampling(9))])["dictionary_fidelity"]
        images, labels = torch.stack([image for image, _ in items()]), torch.tensor([label for _, label in items()])
        with model.spliced({dictionary.config.point: dictionary}, error="drop"):
            loss = F.cross_entropy(model(images), labels)
        found = table.set_index(["dictionary", "metric"]).loc[("given", "loss"), "value"]
        assert found == pytest.approx(float(loss), rel=1e-5)


def test_mean_ablation_is_told_by_the_mean() -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post")
    images = torch.stack([image for image, _ in items()])
    mean = mean_activations(model, [images], dictionary.config.writes)[dictionary.config.writes]
    analysis = DictionaryFidelity(dictionary, ablation="mean", mean=mean, resampling=Resampling(9))
    table = sweep(model, items(), [analysis])["dictionary_fidelity"].set_index(["dictionary", "metric"])
    expected = by_loop(model, dictionary, mean)["loss_recovered"]
    assert table.loc[("given", "loss_recovered"), "value"] == pytest.approx(expected, rel=1e-4)


def test_a_perfect_dictionary_recovers_everything() -> None:
    model, point = toy("rotary"), "blocks.1.hook_resid_post"
    perfect = toy_dictionary(model, point, d_dict=48, k=48)
    with torch.no_grad():  # positive and negative parts of every dimension
        for name, values in (("W_enc", torch.cat([torch.eye(24), -torch.eye(24)], dim=1)), ("b_enc", torch.zeros(48))):
            getattr(perfect, name).copy_(values)
        perfect.W_dec.copy_(perfect.W_enc.T)
        for name in ("b_dec", "in_mean", "out_mean"):
            getattr(perfect, name).zero_()
        perfect.in_scale.fill_(2)
        perfect.out_scale.fill_(2)
    table = sweep(model, items(), [DictionaryFidelity(perfect, resampling=Resampling(9))])["dictionary_fidelity"]
    rows = table.set_index(["dictionary", "metric"])["value"]
    for metric in ("explained_variance", "loss_recovered"):
        assert rows["given", metric] == pytest.approx(1, abs=1e-5)
    assert rows["given", "loss"] == pytest.approx(rows["plain", "loss"], abs=1e-5)


def test_shards_merge_to_the_whole(tmp_path) -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post", tokens="cls")
    random = random_dictionary(dictionary)
    tables = [
        sweep(model, items(), [DictionaryFidelity(dictionary, random=random, resampling=Resampling(9))], batch_size=n)
        for n in (6, 2)
    ]
    kept = sweep(model, items(), [DictionaryFidelity(dictionary, resampling=Resampling(9))], out=tmp_path, batch_size=2)
    again = sweep(
        model, items(), [DictionaryFidelity(dictionary, resampling=Resampling(9))], out=tmp_path, batch_size=2
    )
    assert kept["dictionary_fidelity"].equals(again["dictionary_fidelity"])
    other = toy_dictionary(model, "blocks.1.hook_resid_post", tokens="cls", k=4)
    with pytest.raises(ValueError, match="another sweep"):
        sweep(model, items(), [DictionaryFidelity(other, resampling=Resampling(9))], out=tmp_path, batch_size=2)
    first, second = (table["dictionary_fidelity"]["value"] for table in tables)
    assert first.tolist() == pytest.approx(second.tolist(), rel=1e-6, abs=1e-6, nan_ok=True)


def test_no_row_depends_on_the_batches_nor_on_a_resume(tmp_path) -> None:
    model = toy("cls")
    dictionary = toy_dictionary(model, "blocks.1.hook_resid_post")
    tables = []
    for size in (6, 2):
        analysis = DictionaryFidelity(dictionary, resampling=Resampling(9))
        table = sweep(model, items(), [analysis], batch_size=size)["dictionary_fidelity"]
        tables.append(table.set_index(["dictionary", "metric"])["value"])
        expected = by_loop(model, fitted_random(model, dictionary, 6))["explained_variance"]
        assert tables[-1]["random", "explained_variance"] == pytest.approx(expected, rel=1e-4)
    assert tables[0].tolist() == pytest.approx(tables[1].tolist(), rel=1e-6, abs=1e-6)

    class Stopped(DictionaryFidelity):
        def update(self, batch) -> None:
            if int(batch.index[0]) == 4:
                raise KeyboardInterrupt
            super().update(batch)

    Stopped.__name__ = "DictionaryFidelity"
    options = {"out": tmp_path, "batch_size": 2, "checkpoint_every": 0}
    with pytest.raises(KeyboardInterrupt):
        sweep(model, items(), [Stopped(dictionary, resampling=Resampling(9))], **options)
    again = sweep(model, items(), [DictionaryFidelity(dictionary, resampling=Resampling(9))], **options)
    found = again["dictionary_fidelity"].set_index(["dictionary", "metric"])["value"]
    assert found.tolist() == tables[1].tolist()


@pytest.mark.parametrize(("k", "recorded", "expected"), [(None, 7.4, 7), (3, 7.4, 3), (None, None, None)])
def test_how_many_random_latents_are_active(k: int | None, recorded: float | None, expected: int | None) -> None:
    """For a kind without a k: as passed, as recorded at the end of training, or as in the first batch."""
    model = toy("cls")
    like = toy_dictionary(model, "blocks.1.hook_resid_post")
    dictionary = Dictionary(replace(like.config, kind="relu", k=None)).requires_grad_(False)
    dictionary.load_state_dict(like.state_dict())
    if recorded is not None:
        dictionary.record["losses"] = [{"active": 20.0}, {"active": recorded}]
    analysis = DictionaryFidelity(dictionary, k=k, resampling=Resampling(9))
    table = sweep(model, items(), [analysis])["dictionary_fidelity"].set_index(["dictionary", "metric"])["value"]
    wanted = round(table["given", "l0"]) if expected is None else expected
    assert analysis._random is not None
    assert analysis._random.config.k == wanted
    assert 0 < table["random", "l0"] <= wanted


def test_errors_say_what_to_do(bad_input: None) -> None:
    model, other = toy("cls"), toy("rotary")
    with pytest.raises(ValueError, match="ablation 'zero' or 'mean', got 'none'"):
        DictionaryFidelity(ablation="none")  # pyright: ignore[reportArgumentType]
    for ablation, mean in (("mean", None), ("zero", torch.zeros(24))):
        with pytest.raises(ValueError, match=r"`mean_activations` of hooked_vit.interventions computes it"):
            DictionaryFidelity(ablation=ablation, mean=mean)  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match=r"no dictionary at 'missing.safetensors'"):
        DictionaryFidelity("missing.safetensors")
    if not any("emoji" not in name for name in embedded_dictionaries()):
        with pytest.raises(ValueError, match="no dictionary comes with the package for a model of width 24"):
            DictionaryFidelity().names(model.cfg)
    for given in (None, toy_dictionary(model, "blocks.1.hook_resid_post")):
        with pytest.raises(ValueError, match="expected a random dictionary of"):
            DictionaryFidelity(given, random=toy_dictionary(model, "blocks.0.hook_resid_post"))
    wide = toy_dictionary(other, "blocks.1.mlp.hook_post")
    wide.config.__dict__["d_in"] = 61
    with pytest.raises(ValueError, match="it was made for another model"):
        sweep(other, items(), [DictionaryFidelity(wide)])
    given = DictionaryFidelity(toy_dictionary(model, "blocks.1.hook_resid_post"))
    logits, cache = model.run_with_cache(torch.zeros(1, 3, 32, 24), names_filter=given.names(model.cfg))
    with pytest.raises(ValueError, match="needs pixels"):
        given.update(AnalysisBatch(model, cache, logits, torch.tensor([0]), torch.arange(1)))
    with pytest.raises(ValueError, match="no image was seen"):
        given.compute()
