"""CelebA and ImageNet in their official layouts, made of generated pictures; crop presets against crops by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.data.transforms import PRESETS, center_crop_resize

WNIDS = ["n01440764", "n01443537", "n02084071"]


def picture(seed: int, width: int = 178, height: int = 218) -> Image.Image:
    """Smooth colours, so that a crop that is off by a pixel shows."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (8, 7, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)


def make_celeba(root: Path, pictures: str = "img_align_celeba", count: int = 10, suffix: str = ".jpg") -> None:
    """Pictures 1..count; the list puts 7 of 10 in train, 1 in valid, 2 in test."""
    (root / pictures).mkdir(parents=True)
    for number in range(1, count + 1):
        picture(number).save(root / pictures / f"{number:06d}{suffix}", quality=95)
    lines = [f"{number:06d}.jpg {0 if number <= 7 else 1 if number <= 8 else 2}\n" for number in range(1, count + 1)]
    (root / "list_eval_partition.txt").write_text("".join(lines))


def make_imagenet(root: Path) -> None:
    for split, per_class in (("train", 3), ("val", 1)):
        for position, wnid in enumerate(WNIDS):
            (root / split / wnid).mkdir(parents=True)
            for number in range(per_class):
                name = f"{wnid}_{number}" if split == "train" else f"ILSVRC2012_val_{position:08d}"
                picture(position, 60 + number, 50).save(root / split / wnid / f"{name}.JPEG", format="JPEG")


def names(dataset) -> list[str]:
    return [file.name for file in dataset.files]


def test_celeba_splits(tmp_path) -> None:
    make_celeba(tmp_path)
    sizes = {
        split: len(open_dataset(f"celeba:{tmp_path}", 16, split=split)) for split in ("train", "valid", "test", "all")
    }
    assert sizes == {"train": 7, "valid": 1, "test": 2, "all": 10}
    dataset = open_dataset(f"celeba:{tmp_path}", 16, split="test")
    assert names(dataset) == ["000009.jpg", "000010.jpg"]
    assert set(dataset[0]) == {"image"}
    assert dataset[0]["image"].shape == (3, 16, 16)
    with pytest.raises(UsageError, match="no split 'everything': use one of train, valid, val, test, all"):
        open_dataset(f"celeba:{tmp_path}", 16, split="everything")


@pytest.mark.parametrize("layout", ["itself", "list inside", "official", "kaggle", "png", "torchvision"])
def test_celeba_is_found_in_its_usual_places(tmp_path, layout: str) -> None:
    folders = {"official": "Img/img_align_celeba", "kaggle": "img_align_celeba/img_align_celeba"}
    folder = {**folders, "torchvision": "celeba/img_align_celeba"}.get(layout)
    make_celeba(tmp_path, folder or "img_align_celeba", suffix=".png" if layout == "png" else ".jpg")
    listing, root = tmp_path / "list_eval_partition.txt", tmp_path
    if layout == "itself":
        root = tmp_path / "img_align_celeba"
    elif layout == "list inside":
        root = tmp_path / "img_align_celeba"
        listing.rename(root / listing.name)
    elif layout == "official":
        (tmp_path / "Eval").mkdir()
        listing.rename(tmp_path / "Eval" / listing.name)
    elif layout == "torchvision":
        listing.rename(tmp_path / "celeba" / listing.name)
    elif layout == "kaggle":
        lines = ["image_id,partition", *(line.replace(" ", ",") for line in listing.read_text().splitlines())]
        listing.with_suffix(".csv").write_text("\n".join(lines))
        listing.unlink()
    dataset = open_dataset(f"celeba:{root}", 16, split="valid")
    assert names(dataset) == ["000008.png" if layout == "png" else "000008.jpg"]


LISTS = {
    "byte order mark": ("\ufeff{name} {part}\n", "", "\n"),
    "carriage returns": ("{name} {part}", "", "\r\n"),
    "commas": ("{name},{part}", "image_id,partition\n", "\n"),
    "quotes": ('"{name}", "{part}"', '"image_id","partition"\n', "\n"),
    "index": ("{index},{name},{part}", ",image_id,partition\n", "\n"),
    "count": ("{name}  {part}", "10\nimage_id partition\n", "\n"),
    "tabs": ("{name}\t{part}\t", "", "\n\n"),
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_as_programs_write_them(tmp_path, case: str) -> None:
    make_celeba(tmp_path)
    row, head, end = LISTS[case]
    parts = [0] * 7 + [1] + [2] * 2
    lines = [row.format(index=i, name=f"{i + 1:06d}.jpg", part=part) for i, part in enumerate(parts)]
    if case == "byte order mark":
        lines = [line if i == 0 else line.lstrip("\ufeff") for i, line in enumerate(lines)]
    (tmp_path / "list_eval_partition.txt").write_bytes((head + end.join(lines)).encode())
    for split, expected in (("train", 7), ("valid", 1), ("test", 2)):
        assert len(open_dataset(f"celeba:{tmp_path}", 16, split=split)) == expected


@pytest.mark.parametrize("line", ["../../000001.jpg 0", "000001.jpg 0 0", "000001.jpg", "x,000001.jpg,0", "\xff\xfe"])
def test_other_lines_are_named(tmp_path, line: str) -> None:
    make_celeba(tmp_path)
    (tmp_path / "list_eval_partition.txt").write_bytes(b"000001.jpg 0\n" + line.encode("latin-1") + b"\n")
    with pytest.raises(UsageError, match="Line 2 of"):
        open_dataset(f"celeba:{tmp_path}", 16)


def test_pictures_that_no_list_names_are_counted(tmp_path) -> None:
    make_celeba(tmp_path)
    assert open_dataset(f"celeba:{tmp_path}", 16).opening_notes == []
    for name in ("000011.jpg", "000012.jpg"):
        picture(0).save(tmp_path / "img_align_celeba" / name)
    notes = open_dataset(f"celeba:{tmp_path}", 16).opening_notes
    assert len(notes) == 1
    assert "2 pictures are not in" in notes[0]
    assert notes[0].endswith("the first is 000011.jpg.")


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_celeba_layouts_show_the_tree(tmp_path) -> None:
    tree = f"{tmp_path}/list_eval_partition.txt, {tmp_path}/img_align_celeba/000001.jpg"
    for problem in ("holds no CelebA pictures", "does not exist"):
        root = tmp_path if "holds" in problem else tmp_path / "nothing"
        with pytest.raises(UsageError, match=problem) as error:
            open_dataset(f"celeba:{root}", 16)
        assert tree.replace(str(tmp_path), str(root)) in one_line(error)
    make_celeba(tmp_path)
    (tmp_path / "list_eval_partition.txt").unlink()
    with pytest.raises(UsageError, match=r"no list_eval_partition\.txt") as error:
        open_dataset(f"celeba:{tmp_path}", 16)
    assert tree in one_line(error)
    assert len(open_dataset(f"celeba:{tmp_path}", 16, split="all")) == 10


def test_incomplete_celeba_is_noticed(tmp_path) -> None:
    make_celeba(tmp_path)
    (tmp_path / "img_align_celeba" / "000003.jpg").unlink()
    with pytest.raises(UsageError, match=r"1 of the 7 pictures .* first is 000003\.jpg") as error:
        open_dataset(f"celeba:{tmp_path}", 16)
    one_line(error)
    assert len(open_dataset(f"celeba:{tmp_path}", 16, split="test")) == 2
    dataset = open_dataset(f"celeba:{tmp_path}", 16, skip_bad_images=True)
    assert (dataset[2]["image"] == dataset[3]["image"]).all()
    assert dataset.bad_images == ["000003.jpg"]
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg seven\n")
    with pytest.raises(UsageError, match="Line 2 of"):
        open_dataset(f"celeba:{tmp_path}", 16)


def test_imagenet_labels_are_sorted_wnids(tmp_path) -> None:
    make_imagenet(tmp_path)
    dataset = open_dataset(f"imagenet:{tmp_path}", 16)
    assert [item["label"] for item in dataset] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.num_classes == dataset.provenance["num_classes"] == 3
    for split in ("val", "valid"):
        validation = open_dataset(f"imagenet:{tmp_path}", 16, split=split)
        assert [item["label"] for item in validation] == [0, 1, 2]
        assert validation.provenance["split"] == "val"


def test_validation_labels_are_those_of_training(tmp_path) -> None:
    make_imagenet(tmp_path)
    for file in (tmp_path / "val" / WNIDS[0]).iterdir():
        file.unlink()
    (tmp_path / "val" / WNIDS[0]).rmdir()
    dataset = open_dataset(f"imagenet:{tmp_path}", 16, split="val")
    assert [item["label"] for item in dataset] == [1, 2]
    assert dataset.num_classes == 3
    (tmp_path / "val" / WNIDS[1]).rename(tmp_path / "val" / "n09999999")
    with pytest.raises(UsageError, match="n09999999 has no counterpart"):
        open_dataset(f"imagenet:{tmp_path}", 16, split="val")


@pytest.mark.parametrize("problem", ["missing", "flat", "no class", "empty class", "empty"])
def test_wrong_imagenet_layouts_show_the_tree(tmp_path, problem: str) -> None:
    if problem != "missing":
        make_imagenet(tmp_path)
    if problem == "flat":
        picture(0).save(tmp_path / "train" / "ILSVRC2012_0.JPEG")
    elif problem == "no class":
        (tmp_path / "train" / "cats").mkdir()
    elif problem == "empty class":
        (tmp_path / "train" / "n09999999").mkdir()
    elif problem == "empty":
        (tmp_path / "train").rename(tmp_path / "elsewhere")
        (tmp_path / "train").mkdir()
    with pytest.raises(UsageError) as error:
        open_dataset(f"imagenet:{tmp_path}", 16)
    assert f"expected {tmp_path}/train/n01440764/n01440764_10026.JPEG" in one_line(error)


def test_imagenet_reads_every_format_and_counts_the_rest(tmp_path) -> None:
    make_imagenet(tmp_path)
    folder = tmp_path / "train" / WNIDS[0]
    for name in ("a.webp", "b.bmp", "c.TIFF"):
        picture(0, 20, 20).save(folder / name)
    (folder / "boxes.txt").write_text("x")
    dataset = open_dataset(f"imagenet:{tmp_path}", 16)
    assert [item["label"] for item in dataset] == [0] * 6 + [1] * 3 + [2] * 3
    assert dataset.class_names == WNIDS
    assert dataset.opening_notes == [f"imagenet:{tmp_path}: 1 file that is not a picture was skipped: 1 .txt."]


def test_deeper_pictures_are_read_and_told(tmp_path) -> None:
    """As in Tiny ImageNet: train/n01443537/images/n01443537_0.JPEG."""
    make_imagenet(tmp_path)
    folder = tmp_path / "train" / WNIDS[1]
    (folder / "images").mkdir()
    (folder / f"{WNIDS[1]}_0.JPEG").rename(folder / "images" / "x.JPEG")
    dataset = open_dataset(f"imagenet:{tmp_path}", 16)
    assert len(dataset) == 9
    assert (dataset.image_name(3), dataset[3]["label"]) == (f"{WNIDS[1]}/images/x.JPEG", 1)
    assert "1 of the 9 pictures lie deeper" in dataset.opening_notes[0]
    assert f"the first is {WNIDS[1]}/images/x.JPEG" in dataset.opening_notes[0]


def test_imagenet_of_links(tmp_path) -> None:
    make_imagenet(tmp_path / "real")
    (tmp_path / "train").mkdir()
    for wnid in WNIDS:
        (tmp_path / "train" / wnid).symlink_to(tmp_path / "real" / "train" / wnid)
    (tmp_path / "real" / "train" / WNIDS[0] / "up").symlink_to("..")
    dataset = open_dataset(f"imagenet:{tmp_path}", 16)
    assert [item["label"] for item in dataset] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_kaggle_imagenet(tmp_path) -> None:
    make_imagenet(tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    assert len(open_dataset(f"imagenet:{tmp_path}", 16)) == 9


def cropped(image: Image.Image, left: int, top: int, side: int) -> Image.Image:
    return Image.fromarray(np.array(image)[top : top + side, left : left + side])


def bilinear_weights(in_length: int, out_length: int) -> np.ndarray:
    """Triangle of the width of an output pixel, from the definition: (out_length, in_length), float64."""
    scale = in_length / out_length
    centres = (np.arange(out_length)[:, None] + 0.5) * scale
    weights = np.clip(1 - np.abs(np.arange(in_length) + 0.5 - centres) / scale, 0, None)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("preset", "left", "top", "side"), [("ddim128", 25, 57, 128), ("sde140", 19, 39, 140)])
def test_celeba_presets_are_their_box_and_a_triangle_filter(preset: str, left: int, top: int, side: int) -> None:
    image = picture(3)
    same_size = PRESETS[preset].apply(image, (side, side), "x")
    assert np.array_equal(same_size, np.array(cropped(image, left, top, side)))
    matrix = bilinear_weights(side, 64)
    expected = np.einsum(
        "yh,xw,hwc->yxc", matrix, matrix, np.array(cropped(image, left, top, side), dtype=float), optimize=True
    )
    assert (
        np.abs(PRESETS[preset].apply(image, (64, 64), "x") - expected).max() <= 1
    )  # Pillow rounds after each direction


def test_adm_halves_with_box_and_ends_with_bicubic() -> None:
    square = cropped(picture(4), 0, 20, 178)
    narrowed = np.floor(np.array(square, dtype=np.float64).reshape(178, 89, 2, 3).mean(2) + 0.5)  # Pillow rounds here
    halved = np.floor(narrowed.reshape(89, 2, 89, 3).mean(1) + 0.5)
    expected = Image.fromarray(halved.astype(np.uint8)).resize((64, 64), Image.BICUBIC)
    assert np.array_equal(np.array(center_crop_resize(square, (64, 64))), np.array(expected))
    unhalved = square.resize((90, 90), Image.BICUBIC)
    assert np.array_equal(np.array(center_crop_resize(square, (90, 90))), np.array(unhalved))


def test_adm_shrinks_the_whole_picture_and_then_crops() -> None:
    whole = picture(5).resize((89, 109), Image.BOX).resize((64, 78), Image.BICUBIC)
    assert np.array_equal(np.array(center_crop_resize(picture(5), (64, 64))), np.array(whole)[7:71])


def test_presets_of_a_data_set(tmp_path) -> None:
    make_celeba(tmp_path)
    image = Image.open(tmp_path / "img_align_celeba" / "000001.jpg")
    dataset = open_dataset(f"celeba:{tmp_path}", 32, preset="sde140")
    assert np.array_equal(dataset.pixels(0), PRESETS["sde140"].apply(image, (32, 32), "x"))
    assert dataset.provenance["filter"] == "bilinear, antialiased"


def test_presets_that_do_not_fit_are_refused(tmp_path) -> None:
    make_imagenet(tmp_path / "imagenet")
    make_celeba(tmp_path / "celeba")
    with pytest.raises(UsageError, match="Unknown preset 'center': use one of adm, ddim128, sde140"):
        open_dataset(f"celeba:{tmp_path / 'celeba'}", 64, preset="center")
    with pytest.raises(UsageError, match="cuts out 128 x 128 pixels, fewer than the 256 x 256"):
        open_dataset(f"celeba:{tmp_path / 'celeba'}", 256, preset="ddim128")
    for spec in (f"imagenet:{tmp_path / 'imagenet'}", f"folder:{tmp_path / 'imagenet'}"):
        with pytest.raises(UsageError, match=r"aligned CelebA pictures .* has 60 x 50") as error:
            open_dataset(spec, 32, preset="sde140")
        one_line(error)
    with pytest.raises(UsageError, match="nothing to crop"):
        open_dataset("digits", 16, preset="ddim128")
