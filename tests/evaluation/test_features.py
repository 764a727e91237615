"""Extractors and one pass over images: parity with clean-fid, weights files, worker processes."""

import ast
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cleanfid.fid
import numpy as np
import pytest
import scipy
import torch
import torch.nn.functional as F
from accelerate import PartialState
from cleanfid import inception_pytorch
from cleanfid.features import build_feature_extractor
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ssd.commands.errors import UsageError
from ssd.commands.files import file_sha256
from ssd.evaluation.distances.frechet import frechet_distance
from ssd.evaluation.features import weights
from ssd.evaluation.features.extractors import Extractor, load_extractor
from ssd.evaluation.features.resizing import resize_picture
from ssd.evaluation.features.weights import OFFICIAL, find_weights, verify
from ssd.evaluation.images import list_pictures
from ssd.evaluation.measure import Measured, Measurer
from ssd.evaluation.plan import MeasurePlan
from ssd.evaluation.processes import work_blocks

from ..conftest import ROOT

MODES = ["clean", "legacy_pytorch"]
OLD_SCIPY = tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 18)


class SmallNetwork(nn.Module):
    """An extractor of 12 features from 299 x 299 pictures in [0, 255]."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 12, 13, stride=11)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.convolution(pictures / 127.5 - 1)).mean(dim=(2, 3))


@pytest.fixture(scope="module")
def network() -> SmallNetwork:
    torch.manual_seed(0)
    return SmallNetwork().eval()


@pytest.fixture(scope="module")
def module_file(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.jit.script(network).save(str(path))
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Two folders of 40 and 36 pictures of 24 x 24."""
    made = []
    for number, (count, brightness) in enumerate([(40, 110), (36, 140)]):
        folder = tmp_path_factory.mktemp(f"pictures{number}")
        rng = np.random.default_rng(number)
        for i in range(count):
            coarse = rng.normal(brightness, 50, (6, 6, 3))
            pixels = np.kron(coarse, np.ones((4, 4, 1))) + rng.normal(0, 10, (24, 24, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.png")
        made.append(folder)
    return made[0], made[1]


def measured(folder: Path, extractor: Extractor, batch_size: int = 16, num_workers: int = 0) -> Measured:
    pictures, _, _ = list_pictures(folder)
    measurer = Measurer([extractor], PartialState(cpu=True), batch_size, num_workers)
    return measurer.measure(pictures, len(pictures), MeasurePlan(num_kept=10, num_patched=10, num_first=2))


def our_distance(folders: tuple[Path, Path], extractor: Extractor) -> float:
    one, two = (measured(folder, extractor).features[extractor.label] for folder in folders)
    return frechet_distance(one.mean, one.covariance, two.mean, two.covariance)


@pytest.mark.parametrize("mode", MODES)
def test_distance_is_a_float64_reference_written_by_hand(mode: str, folders, network, module_file) -> None:
    """PIL and torch, double precision, eigenvalues of the plain product: no code of clean-fid and none of ours."""
    wide = SmallNetwork().double().eval()
    wide.load_state_dict({name: value.double() for name, value in network.state_dict().items()})

    def features(folder: Path) -> np.ndarray:
        rows = []
        for file in sorted(folder.iterdir()):
            pixels = np.array(Image.open(file), dtype=np.float32)
            if mode == "clean":
                channels = [
                    Image.fromarray(pixels[..., c]).resize((299, 299), Image.Resampling.BICUBIC) for c in (0, 1, 2)
                ]
                resized = torch.from_numpy(np.stack([np.array(channel) for channel in channels]))[None].clip(0, 255)
            else:
                tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
                resized = F.interpolate(tensor, size=(299, 299), mode="bilinear", align_corners=False)
            with torch.no_grad():
                rows.append(wide(resized.double())[0].numpy())
        return np.stack(rows)

    one, two = map(features, folders)
    first, second = np.cov(one.T), np.cov(two.T)
    root = np.sqrt(np.linalg.eigvals(first @ second).astype(complex)).real.sum()
    expected = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * root
    found = our_distance(folders, load_extractor(f"module:{module_file}", resize=mode))
    assert found == pytest.approx(expected, rel=1e-5)  # float32 features of ours against float64


@pytest.mark.skipif(not OLD_SCIPY, reason="clean-fid's distance fails under scipy 1.18")
@pytest.mark.parametrize("mode", MODES)
def test_distance_is_clean_fids(mode: str, folders, network, module_file) -> None:
    with torch.no_grad():
        expected = cleanfid.fid.compute_fid(
            *map(str, folders), mode=mode, num_workers=0, batch_size=16, device=torch.device("cpu"),
            custom_feat_extractor=network, use_dataparallel=False, verbose=False,
        )  # fmt: skip
    found = our_distance(folders, load_extractor(f"module:{module_file}", resize=mode))
    assert found == pytest.approx(expected, rel=1e-6)


def test_clean_fids_own_distance_is_never_called(folders, module_file, monkeypatch) -> None:
    def forbidden(*arguments: object) -> None:
        raise AssertionError("clean-fid's frechet_distance breaks under scipy 1.18")

    monkeypatch.setattr(cleanfid.fid, "frechet_distance", forbidden)
    assert our_distance(folders, load_extractor(f"module:{module_file}")) > 0
    evaluation = [file for file in (ROOT / "ssd").rglob("*.py") if "analysis" not in file.parts]
    for file in [*evaluation, ROOT / "sample" / "eval_fid.py"]:
        names = [
            *(node.module or "" for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)),
            *(
                a.name
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Import)
                for a in node.names
            ),
        ]
        assert not any(name.startswith(("cleanfid.fid", "scipy")) for name in names), file


def same(one: Measured, two: Measured, exactly: bool = True) -> None:
    """The same pixels always; features exactly, or up to the rounding of another number of threads or batch length."""
    assert one.pixels_sha256 == two.pixels_sha256
    for label in one.features:
        for name in ("mean", "covariance", "kept"):
            a, b = getattr(one.features[label], name), getattr(two.features[label], name)
            np.testing.assert_allclose(a, b, rtol=0, atol=0 if exactly else 1e-6)
        for side, patches in one.features[label].patches.items():
            np.testing.assert_array_equal(patches, two.features[label].patches[side])


def test_batch_size_and_workers_change_no_pixel(folders, module_file) -> None:
    extractor = load_extractor(f"module:{module_file}")
    expected = measured(folders[0], extractor)
    same(expected, measured(folders[0], extractor, num_workers=2), exactly=False)
    same(expected, measured(folders[0], extractor, batch_size=7), exactly=False)


@pytest.fixture
def start_method() -> Iterator[Callable[[str], None]]:
    """Sets how worker processes start, as another system or another Python would."""
    before = multiprocessing.get_start_method(allow_none=True)
    yield partial(multiprocessing.set_start_method, force=True)
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_spawned_workers(method: str, folders, module_file, start_method) -> None:
    """clean-fid's own loader fails here: its resizers are closures. Python 3.14 starts workers in this way."""
    start_method(method)
    extractor = load_extractor(f"module:{module_file}", resize="legacy_pytorch")
    spawned = measured(folders[0], extractor, num_workers=1)
    same(measured(folders[0], extractor), spawned, exactly=False)


def test_neighbours_are_the_nearest(folders, module_file) -> None:
    extractor = load_extractor(f"module:{module_file}")
    pictures, _, _ = list_pictures(folders[0])
    with torch.no_grad():
        rows = extractor(torch.stack([resize_picture(pictures[i], "clean") for i in range(len(pictures))])).numpy()
    measurer = Measurer([extractor], PartialState(cpu=True), batch_size=8)
    found = measurer.measure(pictures, len(pictures), MeasurePlan(), queries=rows[[3, 17]] + 1e-5).neighbours
    assert [number for _, number in found] == [3, 17]
    assert [distance for distance, _ in found] == pytest.approx([1e-5 * np.sqrt(12)] * 2, rel=0.01)


def test_blocks_cover_every_image_once() -> None:
    for count, batch_size in [(1, 4), (50, 7), (5000, 8), (50_000, 64)]:
        blocks = work_blocks(count, batch_size)
        assert [i for block in blocks for batch in block for i in batch] == list(range(count))
        assert all(len(batch) <= batch_size for block in blocks for batch in block)


def test_kept_images_are_the_same_for_every_run() -> None:
    plan = MeasurePlan(num_kept=50, num_patched=20)
    assert (plan.kept(1000) == MeasurePlan(num_kept=50).kept(1000)).all()
    assert set(plan.patched(1000)) <= set(plan.kept(1000))
    assert plan.kept(10).tolist() == list(range(10))


class TorchScriptFile(nn.Module):
    """The outside of the file that clean-fid uses: a part `layers`, (x - 128) / 128 -> 2048 features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 2048, 64, stride=47), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 299, 299, generator=torch.Generator().manual_seed(0)) * 255


def test_plain_inception_is_clean_fids_legacy_extractor(
    inception_weights, random_inception, pictures, monkeypatch
) -> None:
    monkeypatch.setattr(
        inception_pytorch, "load_state_dict_from_url", lambda *a, **k: torch.load(inception_weights, weights_only=True)
    )
    theirs = build_feature_extractor("legacy_pytorch", torch.device("cpu"), use_dataparallel=False)
    ours = load_extractor("legacy_pytorch", weights=str(inception_weights), sha256="none")
    with torch.no_grad():
        expected = theirs(pictures)
    assert expected.shape == (2, 2048)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    torch.testing.assert_close(ours(pictures), expected, rtol=0, atol=0)


def test_safetensors_weights_are_the_same_network(inception_weights, random_inception, pictures, tmp_path) -> None:
    save_file(random_inception.state_dict(), tmp_path / "x.safetensors")
    one = load_extractor(f"module:{tmp_path / 'x.safetensors'}")
    two = load_extractor("clean", weights=str(inception_weights), sha256="none")
    torch.testing.assert_close(one(pictures), two(pictures), rtol=0, atol=0)


def test_torchscript_inception_is_clean_fids_clean_extractor(pictures, tmp_path) -> None:
    """clean-fid finds the file by its published name in a folder, we take any name."""
    torch.manual_seed(0)
    path = tmp_path / OFFICIAL["clean"].name
    torch.jit.trace(TorchScriptFile().eval(), pictures[:1]).save(str(path))
    theirs = InceptionV3W(str(tmp_path), download=False).eval()
    found = load_extractor("clean", weights=str(path.rename(tmp_path / "any name.pt")), sha256="none")(pictures)
    assert found.shape == (2, 2048)
    assert (found[0] - found[1]).abs().max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(found, theirs(pictures), rtol=0, atol=0)


def test_checksum_of_weights(inception_weights, monkeypatch) -> None:
    """Both outcomes, with a published digest replaced by the one of our random file."""
    digest = file_sha256(inception_weights)
    assert (
        verify(inception_weights, digest)
        == verify(inception_weights, digest.upper())
        == verify(inception_weights, "none")
        == digest
    )
    with pytest.raises(UsageError, match=rf"has the SHA-256 {digest}, but the published files have"):
        verify(inception_weights)
    with pytest.raises(UsageError, match=f"expected {'0' * 64}"):
        verify(inception_weights, "0" * 64)
    published = weights.OfficialWeights("x.pth", "https://example.org/x.pth", digest)
    monkeypatch.setitem(weights.OFFICIAL, "legacy_pytorch", published)
    assert verify(inception_weights) == digest


def test_a_wrong_file_is_refused_before_it_is_read(tmp_path, monkeypatch) -> None:
    path = tmp_path / "inception-2015-12-05.pt"
    path.write_bytes(b"half of a download")
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("read an unverified file"))
    with pytest.raises(UsageError, match="download it again"):
        load_extractor("clean", weights=str(path))


def test_where_weights_are_looked_for(tmp_path, monkeypatch) -> None:
    official = OFFICIAL["clean"]
    monkeypatch.delenv(weights.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    asked = []

    def offline(url: str, *arguments: object, **options: object) -> None:
        asked.append((url, options["hash_prefix"]))
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UsageError) as caught:
        find_weights("clean")
    assert asked == [(official.url, official.sha256)]
    for part in (official.url, official.name, str(tmp_path / "hub"), "--inception_weights", "SSD_INCEPTION_WEIGHTS"):
        assert part in str(caught.value)
    (tmp_path / "hub" / "checkpoints" / official.name).write_bytes(b"x")
    assert find_weights("clean").parent == tmp_path / "hub" / "checkpoints"
    (tmp_path / official.name).write_bytes(b"x")
    monkeypatch.setenv(weights.ENVIRONMENT_VARIABLE, str(tmp_path))
    assert find_weights("clean") == tmp_path / official.name
    assert find_weights("legacy_pytorch", str(tmp_path / official.name)) == tmp_path / official.name
    with pytest.raises(UsageError, match="--inception_weights /no/such"):
        find_weights("clean", "/no/such")


def test_files_that_hold_no_extractor(tmp_path, module_file) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="does not fit pytorch-fid's Inception"):
        load_extractor(f"module:{tmp_path / 'other.pth'}")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UsageError, match="does not hold weights that can be read safely"):
        load_extractor(f"module:{tmp_path / 'text.pth'}")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UsageError, match="not a state dict"):
        load_extractor(f"module:{tmp_path / 'list.pth'}")
    with pytest.raises(UsageError, match="it has no part 'layers'"):
        load_extractor("clean", weights=str(module_file), sha256="none")
    with pytest.raises(UsageError, match="no such file"):
        load_extractor("module:/no/such")
    with pytest.raises(UsageError, match="'inception' is unknown"):
        load_extractor("inception")


def test_an_extractor_must_give_vectors() -> None:
    broken = Extractor("module:x", "none", lambda pictures: pictures)
    with pytest.raises(UsageError, match=r"one vector per picture, \(2, D\), got \(2, 3, 4, 4\)"):
        broken(torch.zeros(2, 3, 4, 4))


def test_torchvisions_inception_is_recognised(pictures, tmp_path) -> None:
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.inception_v3(weights=None, aux_logits=True, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "tv.pth")
    found = load_extractor(f"module:{tmp_path / 'tv.pth'}")(pictures)
    network.fc = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(found, network.eval()(pictures / 127.5 - 1))
