"""Statistics of features and the distances between them, against closed forms and brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import wasserstein_distance

from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.evaluation.distances.bootstrap import bootstrap_interval
from ssd.evaluation.distances.frechet import frechet_distance, frechet_standard_error
from ssd.evaluation.distances.kid import kernel_distance, unbiased_mmd
from ssd.evaluation.distances.patches import enlarge, image_patches, laplacian_pyramid
from ssd.evaluation.distances.precision_recall import precision_recall
from ssd.evaluation.distances.sliced_wasserstein import sliced_wasserstein, wasserstein_1
from ssd.evaluation.features.digit_classifier import digit_recognition
from ssd.evaluation.features.extractors import pixel_features
from ssd.evaluation.metrics import compare, distance_name
from ssd.evaluation.statistics import (
    FeatureStatistics,
    ReferenceFeatures,
    check_compatible,
    load_statistics,
    save_statistics,
)


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


def test_distance_of_fewer_images_than_features_is_exact() -> None:
    """Of centred rows X, Y the trace of the root is the sum of the singular values of X Y^T: no covariance is made."""
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((20, 300)), 0.5 * rng.standard_normal((30, 300)) + 0.2
    mean_1, mean_2 = one.mean(axis=0), two.mean(axis=0)
    x, y = (one - mean_1) / np.sqrt(19), (two - mean_2) / np.sqrt(29)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    expected = ((mean_1 - mean_2) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross
    found = frechet_distance(mean_1, np.cov(one, rowvar=False), mean_2, np.cov(two, rowvar=False))
    # Of the 300 roots of eigenvalues 281 should be 0 and are those of round-off, about sqrt(eps) of the largest each.
    largest = np.linalg.norm(x, 2) * np.linalg.norm(y, 2)
    assert found == pytest.approx(expected, abs=2 * 300 * np.sqrt(300 * np.finfo(float).eps) * largest)


def test_distance_needs_the_same_features() -> None:
    with pytest.raises(ValueError, match="3 with 2 features"):
        frechet_distance(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))


def test_statistics_in_batches_are_those_of_the_whole() -> None:
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 3
    statistics = FeatureStatistics()
    for batch in features.split(7):
        statistics.add(batch)
    np.testing.assert_allclose(statistics.mean, features.double().mean(0), atol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(features.double().numpy().T), atol=1e-12)


@given(st.permutations(range(9)), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_the_order_of_blocks_and_processes_does_not_matter(order: list[int], split: int) -> None:
    """Block sums are added without rounding error, so that not even the last bit changes."""
    blocks = torch.randn(9, 16, 5, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 3, 5) + 100
    expected, first, second = FeatureStatistics(), FeatureStatistics(), FeatureStatistics()
    for block in blocks:
        expected.add(block)
    for number, block in enumerate(order):
        (first if number < split else second).add(blocks[block])
    if second.count:
        first.add_sums(second.count, second.sums.copy())
    np.testing.assert_array_equal(first.mean, expected.mean)
    np.testing.assert_array_equal(first.covariance, expected.covariance)
    assert first.count == 144


def test_statistics_need_images_without_nan() -> None:
    statistics = FeatureStatistics()
    with pytest.raises(ValueError, match="No features"):
        _ = statistics.mean
    statistics.add(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        _ = statistics.covariance
    with pytest.raises(ValueError, match="NaN"):
        statistics.add(torch.tensor([[1.0, float("nan"), 2.0]]))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(axis=0), np.cov(features.T)


def test_standard_error_is_that_of_leaving_images_out() -> None:
    rng = np.random.default_rng(3)
    real, fake = rng.standard_normal((4000, 4)), 1.3 * rng.standard_normal((400, 4)) + 0.2
    left_out = np.array([frechet_distance(*moments(real), *moments(np.delete(fake, i, axis=0))) for i in range(400)])
    jackknife = np.sqrt(399 / 400 * ((left_out - left_out.mean()) ** 2).sum())
    found = frechet_standard_error(*moments(real), *moments(fake), fake, len(fake))
    assert found == pytest.approx(jackknife, rel=0.02)


def test_standard_error_is_the_spread_over_independent_runs() -> None:
    rng = np.random.default_rng(4)
    real = moments(rng.standard_normal((5000, 3)))
    runs = [1.2 * rng.standard_normal((500, 3)) + 0.3 for _ in range(200)]
    spread = np.std([frechet_distance(*real, *moments(fake)) for fake in runs])
    found = np.mean([frechet_standard_error(*real, *moments(fake), fake, 500) for fake in runs[:20]])
    assert found == pytest.approx(spread, rel=0.2)


def test_standard_error_needs_more_images_than_features() -> None:
    with pytest.raises(ValueError, match="3 images, 4 features"):
        frechet_standard_error(np.zeros(4), np.eye(4), np.zeros(4), np.eye(4), np.zeros((3, 4)), 3)


def test_the_bootstrap_interval_is_about_the_distance_and_as_long_as_the_standard_error_says() -> None:
    rng = np.random.default_rng(5)
    real, fake = moments(rng.standard_normal((4000, 4))), 1.3 * rng.standard_normal((800, 4)) + 0.2
    distance = frechet_distance(*real, *moments(fake))
    low, high = bootstrap_interval(*real, fake, replicates=1000)
    error = frechet_standard_error(*real, *moments(fake), fake, len(fake))
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert (low + high) / 2 == pytest.approx(distance, abs=0.5 * error)
    assert bootstrap_interval(*real, fake, seed=1) == bootstrap_interval(*real, fake, seed=1)


def test_the_bootstrap_interval_needs_no_more_images_than_features() -> None:
    """Replicates repeat images and lie above the distance; the interval is about it nevertheless."""
    rng = np.random.default_rng(6)
    real, fake = moments(rng.standard_normal((400, 30))), rng.standard_normal((20, 30)).astype(np.float32)
    low, high = bootstrap_interval(*real, fake)
    assert low < frechet_distance(*real, *moments(fake.astype(np.float64))) < high
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        bootstrap_interval(*real, fake[:1])


def test_kid_is_the_sum_over_pairs() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 6, 3))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / 3 + 1) ** 3

    same = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(6) for j in range(6) if i != j) / 30
    cross = sum(kernel(a, b) for a in x for b in y) / 36
    assert unbiased_mmd(x, y) == pytest.approx(same - 2 * cross, rel=1e-12)


def test_kid_is_unbiased_seeded_and_leaves_the_global_generator_alone() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 600, 8))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    mean, deviation = kernel_distance(one, two, seed=1, num_subsets=50, subset_size=100)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert abs(mean) < 3 * deviation / np.sqrt(6)  # six disjoint subsets
    assert kernel_distance(one, two, 1, 50, 100) == (mean, deviation)
    assert kernel_distance(one, two, 2, 50, 100)[0] != mean
    assert kernel_distance(one, two + 1, 1, 50, 100)[0] > 10 * deviation
    with pytest.raises(UsageError, match="at least 2 images"):
        kernel_distance(one[:1], two)


@pytest.mark.parametrize(("num_real", "num_fake"), [(40, 30), (1100, 1050)])
def test_precision_and_recall_are_brute_force(num_real: int, num_fake: int) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((num_real, 3)), rng.standard_normal((num_fake, 3)) + 0.8

    def share(manifold: np.ndarray, points: np.ndarray) -> float:
        distances = np.linalg.norm(manifold[:, None] - manifold[None], axis=2)
        radii = np.sort(distances, axis=1)[:, 3]  # the 0th is the point itself
        return float((np.linalg.norm(points[:, None] - manifold[None], axis=2) <= radii).any(axis=1).mean())

    assert precision_recall(real, fake) == (share(real, fake), share(fake, real))
    with pytest.raises(UsageError, match="more than 3 images"):
        precision_recall(real[:3], fake)


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (24, 40), (12, 12), (7, 7)])
def test_pyramid_gives_the_picture_back(rows: int, columns: int) -> None:
    image = torch.randn(2, 3, rows, columns, generator=torch.Generator().manual_seed(0)).double()
    bands = list(laplacian_pyramid(image).values())
    restored = bands[-1]
    for band in bands[-2::-1]:
        restored = band + enlarge(restored)
    torch.testing.assert_close(restored, image)


def test_pyramid_of_a_flat_picture_is_its_grey() -> None:
    bands = laplacian_pyramid(torch.full((1, 3, 16, 16), 0.5))
    assert list(bands) == [16, 8, 4]
    assert all(bands[side].abs().max() < 1e-6 for side in (16, 8))
    torch.testing.assert_close(bands[4], torch.full((1, 3, 4, 4), 0.5))


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 45), (7, 11)])
def test_one_dimensional_distance_is_scipys(n: int, m: int) -> None:
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((n, 2)), rng.standard_normal((m, 2)) + 0.5
    expected = [wasserstein_distance(one[:, i], two[:, i]) for i in range(2)]
    np.testing.assert_allclose(wasserstein_1(one, two), expected, rtol=1e-10)


def test_sliced_distance_shows_the_wrong_scale() -> None:
    """Noise added to the finest band alone: the distance there is the largest by far."""
    rng = np.random.default_rng(0)

    def pictures(noise: float) -> dict[int, np.ndarray]:
        all_patches: dict[int, list[np.ndarray]] = {}
        for index in range(300):
            smooth = np.kron(rng.normal(128, 40, (4, 4, 3)), np.ones((4, 4, 1)))
            chequered = noise * (np.indices((16, 16)).sum(axis=0) % 2 * 2 - 1)[..., None]
            picture = (smooth + chequered).clip(0, 255).round().astype(np.uint8)
            for side, patches in image_patches(picture, index).items():
                all_patches.setdefault(side, []).append(patches)
        return {side: np.concatenate(patches) for side, patches in all_patches.items()}

    real, same, wrong = pictures(0), pictures(0), pictures(20)
    floor = {side: sliced_wasserstein(real[side], same[side]) for side in real}
    found = {side: sliced_wasserstein(real[side], wrong[side]) for side in real}
    assert list(found) == [16, 8, 4]
    assert all(value < 0.1 for value in floor.values()), floor
    assert found[16] > 5 * floor[16]
    assert found[8] < 2 * floor[8]
    assert sliced_wasserstein(real[16], real[16]) == 0


def test_patches_depend_on_picture_and_number_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    one, two, other = (image_patches(picture, i) for i in (5, 5, 6))
    assert one[16].shape == (8, 3 * 7 * 7)
    assert one[4].shape == (8, 3 * 4 * 4)
    assert (one[16] == two[16]).all()
    assert (one[16] != other[16]).any()


def some_statistics(**provenance: object) -> ReferenceFeatures:
    rng = np.random.default_rng(0)
    patches = {8: rng.standard_normal((4, 6)).astype(np.float32)}
    kept = rng.standard_normal((5, 3)).astype(np.float32)
    return ReferenceFeatures(rng.standard_normal(3), random_covariance(rng, 3, 9), 5, kept, patches, provenance)


def test_statistics_files_keep_everything(tmp_path) -> None:
    before = some_statistics(preset="adm", size=64, hash="ab")
    save_statistics(tmp_path / "a" / "x.npz", before)
    after = load_statistics(tmp_path / "a" / "x.npz")
    for name in ("mean", "covariance", "kept"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    np.testing.assert_array_equal(before.patches[8], after.patches[8])
    assert (after.count, after.provenance) == (5, {"preset": "adm", "size": 64, "hash": "ab"})
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.npz"]


def test_foreign_statistics_are_of_unknown_provenance(tmp_path) -> None:
    """pytorch-fid's files hold mu and sigma, guided-diffusion's also mu_s and sigma_s."""
    np.savez(tmp_path / "x.npz", mu=np.zeros(3, np.float32), sigma=np.eye(3), mu_s=np.zeros(2), sigma_s=np.eye(2))
    found = load_statistics(tmp_path / "x.npz")
    assert found.provenance == {}
    assert found.mean.dtype == np.float64
    check_compatible({"size": 64, "preset": "adm"}, found.provenance)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, "does not hold statistics"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"\(D,\) and \(D, D\)"),
        ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "NaN"),
        ({"mu": np.array([object()], dtype=object), "sigma": np.eye(1)}, "not a complete statistics file"),
    ],
)
def test_files_that_are_no_statistics(arrays: dict, message: str, tmp_path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        load_statistics(tmp_path / "x.npz")


def test_damaged_statistics(tmp_path) -> None:
    save_statistics(tmp_path / "x.npz", some_statistics())
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="not a complete statistics file"):
        load_statistics(tmp_path / "x.npz")
    with pytest.raises(UsageError, match="does not exist"):
        load_statistics(tmp_path / "y.npz")


@pytest.mark.parametrize("name", ["preset", "size", "filter", "extractor", "resize", "weights_sha256", "precision"])
def test_what_must_agree_is_refused_with_both_values(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is 'one' there and 'two' here"):
        check_compatible({name: "two"}, {name: "one"})
    check_compatible({name: "one"}, {name: "one"})
    check_compatible({}, {name: "one"})


def test_names_say_how_many_images() -> None:
    assert distance_name("clean", 50_000) == "fid_clean"
    assert distance_name("clean", 10_000) == "fid10k_clean"
    assert distance_name("legacy_pytorch", 49_999) == "fid49k_legacy_pytorch"
    assert distance_name("clean", 512) == "fid512_clean"
    assert distance_name("pixels", 50_000) == "frechet_distance_pixels"
    assert distance_name("efficientnet_lite0", 50_000) == "frechet_distance_efficientnet_lite0"
    assert distance_name("module", 100) == "frechet_distance_module"


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


def test_a_distance_says_what_it_is_made_of():
    """Features that are shifted and shrunk: both parts are known, and so is the distance."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((200, 3))
    moved = 0.5 * features + np.array([3.0, 0.0, 4.0])
    real, other = (ReferenceFeatures(x.mean(axis=0), np.cov(x, rowvar=False), len(x)) for x in (features, moved))
    numbers = compare(real, other, "pixels", ["fid"])
    shift = 0.5 * features.mean(axis=0) + np.array([3.0, 0.0, 4.0]) - features.mean(axis=0)
    assert numbers["frechet_distance_pixels_mean_shift"] == pytest.approx(shift @ shift)
    assert numbers["frechet_distance_pixels_variance_ratio"] == pytest.approx(0.25)
    variance = 0.25 * np.trace(np.cov(features, rowvar=False))  # (1 - 1/2)^2
    assert numbers["frechet_distance_pixels"] == pytest.approx(shift @ shift + variance)
