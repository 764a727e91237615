"""Features, statistics and the Frechet distance."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ssd.data import open_dataset
from ssd.evaluation.digit_classifier import digit_recognition
from ssd.evaluation.features import pixel_features
from ssd.evaluation.frechet import FeatureStatistics, frechet_distance


def random_covariance(rng: np.random.Generator, dimension: int, rank: int) -> np.ndarray:
    factor = rng.standard_normal((dimension, rank))
    return factor @ factor.T


@pytest.mark.parametrize("rank", [12, 40])
def test_distance_equals_the_textbook_formula(rank: int) -> None:
    rng = np.random.default_rng(0)
    mean_1, mean_2 = rng.standard_normal((2, 12))
    one, two = random_covariance(rng, 12, rank), random_covariance(rng, 12, rank)
    expected = ((mean_1 - mean_2) ** 2).sum() + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet_distance(mean_1, one, mean_2, two) == pytest.approx(expected, rel=1e-9)


def test_distance_between_diagonal_gaussians_is_closed_form() -> None:
    a, b = np.array([4.0, 9.0, 0.0]), np.array([1.0, 1.0, 0.0])
    found = frechet_distance(np.zeros(3), np.diag(a), np.array([2.0, 0, 0]), np.diag(b))
    assert found == pytest.approx(4 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), abs=1e-12)


def test_distance_to_itself_is_zero_also_when_singular() -> None:
    covariance = random_covariance(np.random.default_rng(0), 20, 5)
    assert frechet_distance(np.ones(20), covariance, np.ones(20), covariance) == pytest.approx(0, abs=1e-5)


def test_statistics_in_batches_are_those_of_the_whole() -> None:
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 3
    statistics = FeatureStatistics()
    for batch in features.split(7):
        statistics.add(batch)
    np.testing.assert_allclose(statistics.mean, features.double().mean(0), atol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(features.double().numpy().T), atol=1e-12)


def test_statistics_need_images_without_nan() -> None:
    statistics = FeatureStatistics()
    with pytest.raises(ValueError, match="No features"):
        _ = statistics.mean
    statistics.add(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        _ = statistics.covariance
    with pytest.raises(ValueError, match="NaN"):
        statistics.add(torch.tensor([[1.0, float("nan"), 2.0]]))


def test_pixel_features_are_area_means() -> None:
    images = torch.rand(2, 3, 16, 24)
    expected = images.view(2, 3, 8, 2, 8, 3).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(pixel_features(images), expected)


def test_digit_recognition_knows_digits_from_noise() -> None:
    digits = open_dataset("digits", 16)
    real = torch.stack([digits[i]["image"] for i in range(1400, 1797)])
    report = digit_recognition([real[:200], real[200:]])
    assert report["held_out_real"] == pytest.approx(0.917, abs=0.01)
    assert report["mean_top_probability"] > 0.88
    assert all(0.07 < share < 0.14 for share in report["digit_shares"])
    grey = digit_recognition([torch.zeros(50, 3, 16, 16)])
    assert max(grey["digit_shares"]) == 1.0
