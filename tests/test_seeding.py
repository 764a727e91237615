"""Random numbers as functions of what they are for."""

import numpy as np
import torch
from scipy.stats import kstest

from ssd.seeding import random_words, seed_torch, torch_generator, uniform


def test_words_belong_to_their_number() -> None:
    whole = random_words(3, "image", range(40))
    assert whole.shape == (40, 4)
    for first, last in ((0, 7), (7, 8), (8, 40)):
        np.testing.assert_array_equal(random_words(3, "image", range(first, last)), whole[first:last])
    np.testing.assert_array_equal(
        random_words(3, "image", range(2**63, 2**63 + 2))[1:], random_words(3, "image", range(2**63 + 1, 2**63 + 2))
    )
    assert len(np.unique(whole)) == whole.size
    for seed, purpose in ((4, "image"), (3, "other")):
        assert not np.isin(random_words(seed, purpose, range(40)), whole).any()


def test_words_are_uniform_and_independent() -> None:
    numbers = uniform(random_words(0, "image", range(20_000)))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert all(kstest(column, "uniform").pvalue > 0.001 for column in numbers.T)
    correlations = np.corrcoef(np.hstack([numbers[:-1], numbers[1:]]).T) - np.eye(8)
    assert abs(correlations).max() < 5 / np.sqrt(len(numbers))


def test_torch_draws_by_purpose() -> None:
    seed_torch(0, "step", 5, 1)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch_generator(0, "step", 5, 1)))
