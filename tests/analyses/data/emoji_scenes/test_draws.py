"""Random numbers of items: uniform, independent of order and batch, and different for each purpose."""

import numpy as np

from analyses.data.emoji_scenes.draws import GAUSSIAN_STD, SceneDraws, gaussian_noise

INDICES = np.arange(5000)


def test_a_number_depends_only_on_seed_item_and_purpose() -> None:
    together = SceneDraws(3, INDICES).uniform("scale", 2)
    alone = SceneDraws(3, INDICES[[4321]]).uniform("scale", 2)
    longer = SceneDraws(3, INDICES).uniform("scale", 5)
    assert (together[[4321]] == alone).all()
    assert (longer[:, :2] == together).all()


def test_known_numbers() -> None:
    """The same on every machine: numbers computed once, anywhere."""
    assert SceneDraws(3, np.array([7])).keys("scale").tolist() == [8004056469368128102]
    assert gaussian_noise(np.array([7], dtype=np.uint64), 5)[0].tolist() == [168.0, 160.0, -25.0, -29.0, 48.0]


def test_numbers_are_uniform_and_independent() -> None:
    draws = [
        SceneDraws(seed, INDICES).uniform(purpose, 2, -1.0, 1.0)
        for seed in (0, 1, 2**63)
        for purpose in ("scale", "tilt")
    ]
    columns = np.concatenate(draws, axis=1)
    assert columns.min() >= -1
    assert columns.max() < 1
    assert np.abs(columns.mean(axis=0)).max() < 0.03
    assert np.abs(columns.std(axis=0) - 3**-0.5).max() < 0.01
    correlations = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlations).max() < 0.06
    assert np.abs([np.corrcoef(column[1:], column[:-1])[0, 1] for column in columns.T]).max() < 0.06


def test_noise_is_near_gaussian() -> None:
    noise = gaussian_noise(np.arange(20, dtype=np.uint64), 3000) / GAUSSIAN_STD
    assert noise.shape == (20, 3000)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.01
    assert abs((np.abs(noise) < 1).mean() - 0.683) < 0.02
    assert np.abs(np.corrcoef(noise) - np.eye(20)).max() < 0.1
