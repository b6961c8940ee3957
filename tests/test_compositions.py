"""Data sets made of others: some of the items, several sets, pairs, labels from a table; in the words of `--data`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from PIL import Image

import models
from models import api
from models.data.batches import Batches, spec_of, to_float
from models.data.clauses import labelled_by
from models.data.dataset import ImageData
from models.data.images import resized
from models.data.items import Chosen, Field, Items, Joined
from models.data.load import describe, load, named_sets, parse, settled
from models.errors import UserError
from models.training import places, sources
from models.training.build import build


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four grey 4x4 images, each of one brightness, two of them in a sub-folder."""
    folder = tmp_path_factory.mktemp("captioned")
    (folder / "more").mkdir()
    for name, value in (("a.png", 0), ("b.png", 80), ("more/c.png", 160), ("more/a.png", 240)):
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(folder / name)
    return folder


def table(folder: Path, *lines: str) -> str:
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


# ---- what is asked -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "clauses", "split"),
    [
        ("mnist", (), "train"),
        ("mnist:test[label=0,1,2]", (("label", "0,1,2"),), "test"),
        ("mnist[ label = 0 ; first=5 ]", (("label", "0"), ("first", "5")), "train"),
    ],
)
def test_brackets_are_read_and_written(text: str, clauses: tuple[tuple[str, str], ...], split: str) -> None:
    request = parse(text)
    assert (request.name, request.clauses, request.split) == ("mnist", clauses, split)
    assert parse(str(request)) == request


def test_a_plus_outside_of_brackets_joins(pictures: Path) -> None:
    request = parse("mnist[first=5]+kmnist:test+fashion_mnist", size=(8, 8))
    assert [str(one) for one in request.joined] == ["kmnist:test", "fashion-mnist"]
    assert [one.size for one in request.joined] == [(8, 8)] * 2
    assert str(request) == "mnist[first=5]+kmnist:test+fashion-mnist"
    assert {one.split for one in request.everywhere(split="test").joined} == {"test"}


def test_a_folder_whose_name_has_brackets_or_a_plus_is_that_folder(tmp_path: Path) -> None:
    for name in ("a+b", "a[label=1]"):
        folder = support.write_pictures(tmp_path / name, 4)
        assert parse(str(folder)) == parse(str(folder)).plain
        assert parse(str(folder)).name == str(folder)


def test_paths_are_settled_inside_of_brackets_too(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures.parent)
    here = settled(parse(f"{pictures.name}[target={pictures.name};first=3]+mnist"))
    assert str(here) == f"{pictures}[target={pictures};first=3]+mnist"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{0}[colour=red]", "unknown clause 'colour'"),
        ("{0}[label]", "brackets without KEY=VALUE"),
        ("{0}[label=cros]", "unknown class 'cros'"),
        ("{0}[label=2]", "unknown class '2'"),
        ("{0}[first=21]", "the first 21 of 20 items"),
        ("{0}[first=0]", "the first 0 of 20 items"),
        ("{0}[last=21]", "the last 21 of 20 items"),
        ("{0}[input=blue]", "unknown input 'blue'"),
        ("{0}[input=small:3]", "16x16 cannot be made 3 times smaller"),
        ("{0}[input=small]", "16x16 cannot be made ? times smaller"),
        ("{0}[input=grey:2]", "unknown input 'grey:2'"),
        ("{0}[label=0;target={0}]", "this goes with a folder of images, as its first clause"),
        ("glyphs[labels=x.csv]", "this goes with a folder of images"),
        ("{0}[target=nosuch]", "no such folder: "),
        ("{0}[labels=nosuch.csv]", "the table cannot be read (No such file or directory)"),
        ("{0}+nosuch", "neither a data set nor a folder: nosuch"),
        ("{0}+svhn[label=11]", "unknown class '11'"),
        ("glyphs+street", "image is (1, 32, 32) and (3, 32, 32) in sets that are joined"),
    ],
)
def test_what_cannot_be_is_refused(text: str, message: str, pictures: Path, data_root_or_none: Path | None) -> None:
    if "svhn" in text and data_root_or_none is None:
        pytest.skip("no SVHN here")
    with pytest.raises(UserError) as error:
        load(parse(text.format(pictures), root=data_root_or_none))
    assert message in str(error.value)


@pytest.fixture
def data_root_or_none() -> Path | None:
    return None


# ---- some items, several sets ----------------------------------------------------------------------------------------------------------


def test_a_class_and_a_number_of_items(pictures: Path) -> None:
    whole, disc = load(parse(str(pictures))), load(parse(f"{pictures}[label=disc;first=7]"))
    ends = [load(parse(f"{pictures}[{clause}]")) for clause in ("first=13", "last=7")]
    assert np.array_equal(np.concatenate([end.all("image") for end in ends]), whole.all("image"))
    assert len({end.fingerprint() for end in (*ends, load(parse(f"{pictures}[first=7]")))}) == 3
    assert len(disc) == 7
    assert disc.fields["label"] == Field("number", names=("disc",), count=1)
    assert disc.all("label").tolist() == [0] * 7
    assert np.array_equal(disc.all("image"), whole.all("image")[10:17])
    assert disc.files == whole.files[10:17]
    assert load(parse(f"{pictures}[label=1,0]")).fields == whole.fields
    assert disc.fingerprint() != load(parse(f"{pictures}[label=disc;first=8]")).fingerprint()


def test_items_with_an_attribute() -> None:
    faces = load(parse("faces:test"))
    name = faces.fields["attributes"].names[0]
    some = load(parse(f"faces:test[{name}=1]"))
    assert 0 < len(some) < len(faces)
    assert some.all("attributes")[:, 0].tolist() == [1] * len(some)
    assert some.fields == faces.fields
    with pytest.raises(UserError, match="is neither 0 nor 1"):
        load(parse(f"faces:test[{name}=2]"))


def sets() -> tuple[ImageData, ImageData]:
    def one(values: list[int], labels: list[int], classes: tuple[str, ...], people: list[int]) -> ImageData:
        images = np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
        return ImageData("x", images, np.array(labels), classes, identities=np.array(people))

    return one([1, 2, 3], [0, 1, 1], ("cat", "dog"), [0, 0, 1]), one([4, 5], [1, 0], ("dog", "eel"), [0, 2])


def test_joined_sets_number_their_classes_by_name_and_their_people_anew() -> None:
    both = Joined(sets(), "both")
    assert both.fields["label"] == Field("number", names=("cat", "dog", "eel"), count=3)
    assert both.fields["identity"] == Field("number", count=5)
    order = np.array([4, 0, 3, 2, 1])
    assert both.rows("image", order)[:, 0, 0, 0].tolist() == [5, 1, 4, 3, 2]
    assert both.rows("label", order).tolist() == [1, 0, 2, 1, 1]
    assert both.rows("identity", order).tolist() == [4, 0, 2, 1, 0]
    assert both.rows("label", np.array([], np.int64)).shape == (0,)
    with pytest.raises(UserError, match="the data have no factors"):
        both.rows("factors", order)


def test_joined_sets_keep_what_all_of_them_have() -> None:
    first, second = sets()
    both = Joined([first, ImageData("y", second.images)], "both")
    assert set(both.fields) == {"image"}


def test_a_set_of_some_items_trains_like_the_same_images(pictures: Path, tmp_path: Path) -> None:
    """What a model sees of `[label=disc]` is what it sees of a folder of these images."""
    for part in ("a", "b"):
        (tmp_path / "discs" / part).mkdir(parents=True)
    for number, file in enumerate(sorted((pictures / "disc").iterdir())):
        (tmp_path / "discs" / "ab"[number % 2 > 9] / file.name).write_bytes(file.read_bytes())
    tiny = support.tiny("vae", images=16)
    ours = models.train("vae", f"{pictures}[label=disc]", out=tmp_path / "run", **tiny)
    theirs = models.train("vae", str(tmp_path / "discs"), out=tmp_path / "other", **tiny)
    assert all(torch.equal(a, b) for a, b in zip(ours.model.state_dict().values(), theirs.model.state_dict().values(), strict=True))
    assert ours.header.config.data == f"{pictures}[label=disc]"
    assert places.first_run("vae", f"{pictures}[label=disc]").name == f"vae-{pictures.name}-label-disc"
    assert places.first_run("cross-domain", "street", "mnist", "street").name == "cross-domain-street-mnist"


def test_the_test_split_of_a_composition_is_composed_alike(tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("test", 1)):
        support.write_pictures(tmp_path / "set" / split, 8, seed=seed)
    planned = api.plan("classifier", f"{tmp_path / 'set'}[label=cross,disc;first=6]", **support.tiny("classifier", batch=4))
    model = build(planned.config, planned.spec, torch.device("cpu"), {})
    found = sources.held_out(planned.config, model, planned.data)
    assert len(found) == 8  # all of them: `first` says how many to train on
    assert "test" in found.files[0]


# ---- pairs -----------------------------------------------------------------------------------------------------------------------------


def brightness(items: Items, key: str) -> list[float]:
    return items.all(key).mean((1, 2, 3)).round().tolist()


def test_two_folders_with_the_same_names(captioned: Path, tmp_path: Path) -> None:
    for name, value in (("more/a.png", 1), ("more/c.jpg", 2), ("b.png", 3), ("a.png", 4), ("other.png", 9)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(tmp_path / name, quality=100)
    found = load(parse(f"{captioned}[target={tmp_path}]"))
    assert dict(zip(brightness(found, "image"), brightness(found, "target"), strict=True)) == {0: 4, 80: 3, 160: 2, 240: 1}
    assert (found.fields["image"].shape, found.fields["target"].shape) == ((1, 4, 4), (1, 4, 4))
    (tmp_path / "b.png").unlink()
    with pytest.raises(UserError, match="1 of 4 images have no target, the first is b"):
        load(parse(f"{captioned}[target={tmp_path}]"))


def test_one_image_that_shows_both_sides(tmp_path: Path) -> None:
    for number in range(3):
        both = np.concatenate([np.full((4, 4), 10 * number), np.full((4, 4), 200 + number)], 1)
        Image.fromarray(both.astype(np.uint8)).save(tmp_path / f"{number}.png")
    found = load(parse(f"{tmp_path}[input=left]"))
    assert (brightness(found, "image"), brightness(found, "target")) == ([0, 10, 20], [200, 201, 202])
    other = load(parse(f"{tmp_path}[input=right]", size=(2, 2)))
    assert (brightness(other, "image"), brightness(other, "target")) == ([200, 201, 202], [0, 10, 20])
    assert other.fields["image"].shape == other.fields["target"].shape == (1, 2, 2)
    for file in tmp_path.iterdir():  # larger than a folder's images may be by default: the whole is two of them
        Image.open(file).resize((400, 200), Image.Resampling.NEAREST).save(file)
    large = load(parse(f"{tmp_path}[input=left]"))
    assert (brightness(large, "image"), brightness(large, "target")) == ([0, 10, 20], [200, 201, 202])
    assert large.fields["image"].shape == (1, 200, 200)


def test_inputs_made_from_targets(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    (tmp_path / "x.png").parent.mkdir(exist_ok=True)
    pixels = dice.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    grey, small, masked = (load(parse(f"{tmp_path}[input={rule}]")) for rule in ("grey", "small:4", "masked"))
    for found in (grey, small, masked):
        assert np.array_equal(found.all("target")[0], pixels)
    assert np.array_equal(grey.all("image")[0, :, :, 0], np.asarray(Image.fromarray(pixels).convert("L")))
    assert small.fields["image"].shape == (3, 2, 3)
    assert np.abs(small.all("image")[0] - pixels.reshape(2, 4, 3, 4, 3).mean((1, 3))).max() <= 0.5
    hole = np.zeros((8, 12), bool)
    hole[2:6, 3:9] = True
    assert (masked.all("image")[0][hole] == 127).all()
    assert np.array_equal(masked.all("image")[0][~hole], pixels[~hole])
    batch = Batches(small, torch.device("cpu")).at([0])
    assert (batch.image.shape, batch.target.shape) == ((1, 3, 2, 3), (1, 3, 8, 12))
    assert spec_of(small).provides == {"image", "target"}
    assert describe(small)["target"] == "image of shape (3, 8, 12)"


def test_resized_images_are_means_of_what_they_cover() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    assert np.array_equal(resized(images, (8, 8)), images)
    assert np.abs(resized(images, (4, 2))[:, 0, 0, 0] - images[:, :2, :4, 0].mean((1, 2))).max() <= 0.5
    assert resized(images, (5, 3)).shape == (2, 5, 3, 1)
    assert resized(images[None], (4, 4)).shape == (1, 2, 4, 4, 1)  # clips too


# ---- labels from a table -----------------------------------------------------------------------------------------------------------------


def test_a_table_of_everything(captioned: Path, tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "file,label,identity,smile,caption",
        "more/a.png,ten,7,1,A cat!",
        "a.png,nine,3,0,the dog",
        'b.png,ten,7,-1,"a dog, a cat"',
        "c.png,nine,12,1,",
    )
    found = load(parse(f"{captioned}[labels={path}]"))
    order = np.argsort(found.all("image").mean((1, 2, 3)))  # 0 a, 80 b, 160 more/c, 240 more/a
    assert found.fields["label"].names == ("nine", "ten")
    assert found.all("label")[order].tolist() == [0, 1, 0, 1]
    assert found.all("identity")[order].tolist() == [0, 1, 2, 1]
    assert found.fields["attributes"] == Field("flags", (1,), ("smile",))
    assert found.all("attributes")[order].tolist() == [[0], [0], [1], [1]]
    words = found.fields["caption"]
    assert (words.kind, words.shape, words.names) == ("tokens", (5,), ("", "!", ",", "a", "cat", "dog", "the"))
    assert found.all("caption")[order].tolist() == [[6, 5, 0, 0, 0], [3, 5, 2, 3, 4], [0] * 5, [3, 4, 1, 0, 0]]
    assert Batches(found, torch.device("cpu")).at([0]).caption.dtype == torch.int64
    assert found.fingerprint() != load(parse(str(captioned))).fingerprint()
    assert load(parse(f"{captioned}[labels={path};smile=1]")).all("label").tolist() == [1, 0]


def test_classes_that_are_numbers_are_in_their_order(captioned: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "file,class", "more/a.png,10", "a.png,9", "b.png,10", "c.png,-1")
    assert load(parse(f"{captioned}[labels={path}]")).fields["label"].names == ("-1", "9", "10")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "a table has a column of file names and more"),
        (["file"], "a table has a column of file names and more"),
        (["file,label,label"], "a table has a column of file names and more"),
        (["file,label,class"], "two columns of classes"),
        (["file,label", "a.png"], "line 2 has 1 columns, the first line 2"),
        (["file,label", "b.png,x", "c.png,x", "more/a.png,x"], "no line for the image a.png"),
        (["file,label", "a.png,x", "b.png,x", "c.png,x"], "a.png is the name of several images"),
        (["file,smile", "a.png,1", "b.png,yes", "c.png,1", "more/a.png,0"], "smile is 'yes' for an image"),
        (["file,label", "a.png,x", "b.png, ", "c.png,x", "more/a.png,y", ",", " ,"], "no label for the image b.png"),
        (["file,identity", "a.png,1", "b.png,2", "c.png,", "more/a.png,1"], "no identity for the image more/c.png"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(lines: list[str], message: str, captioned: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load(parse(f"{captioned}[labels={table(tmp_path, *lines)}]"))


def test_chosen_items_of_chosen_items() -> None:
    first, _ = sets()
    some = Chosen(Chosen(first, np.array([2, 0]), "x"), np.array([1]), "y", kept=[0])
    assert (some.all("image")[0, 0, 0, 0], some.all("label").tolist(), some.fields["label"].names) == (1, [0], ("cat",))


# ---- fields ------------------------------------------------------------------------------------------------------------------------------


class Films(Items):
    """Three items that are no images: clips of two frames, a vector, flags, a number and words."""

    def __init__(self) -> None:
        dice = np.random.default_rng(0)
        self.name = "films"
        self.fields = {
            "clip": Field("clip", (2, 3, 4, 6)),
            "place": Field("vector", (2,)),
            "signs": Field("flags", (2,), ("a", "b")),
            "year": Field("number", count=9),
            "title": Field("tokens", (5,), count=7),
        }
        self.columns = {
            "clip": dice.integers(0, 256, (3, 2, 4, 6, 3), dtype=np.uint8),
            "place": dice.normal(size=(3, 2)).astype(np.float32),
            "signs": dice.integers(0, 2, (3, 2)).astype(np.uint8),
            "year": np.array([8, 0, 3]),
            "title": dice.integers(0, 7, (3, 5)),
        }

    def __len__(self) -> int:
        return 3

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        return self.columns[key][index]


def test_every_kind_of_field_reaches_a_batch_as_described() -> None:
    films = Films()
    batch = next(Batches(films, torch.device("cpu")).stream(seed=0, batch=2, seen=0))
    assert batch.clip.shape == (2, 2, 3, 4, 6)
    chosen = batch.index.numpy()
    assert torch.equal(batch.clip[1, 1], to_float(torch.from_numpy(films.columns["clip"][chosen[1]]))[1])
    types = {key: batch.get(key).dtype for key in films.fields}
    floats = dict.fromkeys(("clip", "place", "signs"), torch.float32)
    assert types == floats | {"year": torch.int64, "title": torch.int64}
    for key, field in films.fields.items():
        assert tuple(batch.get(key).shape[1:]) == field.shape
    assert spec_of(films).provides == set(films.fields)
    before = films.fingerprint()
    films.columns["year"][0] = 7
    assert films.fingerprint() != before
    both = Joined([films, Films()], "twice")
    assert both.rows("clip", np.array([5, 0])).shape == (2, 2, 4, 6, 3)
    assert both.fields["year"].count == 18


# ---- what a composition must not get wrong -------------------------------------------------------------------------------------------


def grey_picture(path: Path, value: int, size: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), value, np.uint8)).save(path)


def test_targets_are_of_the_same_split(tmp_path: Path) -> None:
    for split, value in (("train", 10), ("test", 100)):
        grey_picture(tmp_path / "a" / split / "1.png", value)
        grey_picture(tmp_path / "b" / split / "1.png", value + 1)
    for text, expected in ((f"{tmp_path}/a:test[target={tmp_path}/b]", 100), (f"{tmp_path}/a[target={tmp_path}/b]", 10)):
        found = load(parse(text))
        assert (brightness(found, "image"), brightness(found, "target")) == ([expected], [expected + 1])


def test_the_only_sub_folder_belongs_to_a_name(tmp_path: Path) -> None:
    grey_picture(tmp_path / "a" / "2020" / "1.png", 10)
    for year, value in (("2020", 20), ("2021", 21)):
        grey_picture(tmp_path / "b" / year / "1.png", value)
    assert brightness(load(parse(f"{tmp_path}/a[target={tmp_path}/b]")), "target") == [20]
    path = table(tmp_path, "file,label", "2020/1.png,x")
    assert load(parse(f"{tmp_path}/a[labels={path}]")).fields["label"].names == ("x",)


def test_one_table_for_both_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        grey_picture(tmp_path / "a" / split / "1.png", 10)
    path = table(tmp_path, "file,label", "train/1.png,x", "test/1.png,y")
    assert load(parse(f"{tmp_path}/a:test[labels={path}]")).fields["label"].names == ("y",)


def test_a_damaged_target_is_left_out_with_its_image(tmp_path: Path) -> None:
    for number in range(3):
        grey_picture(tmp_path / "a" / f"{number}.png", 10 + number)
        grey_picture(tmp_path / "b" / f"{number}.png", 20 + number)
    (tmp_path / "b" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of 3 images cannot be used"):
        load(parse(f"{tmp_path}/a[target={tmp_path}/b]"))
    found = load(parse(f"{tmp_path}/a[target={tmp_path}/b]", skip_bad=True))
    assert (brightness(found, "image"), brightness(found, "target")) == ([10, 12], [20, 22])
    assert [Path(path).name for path, _ in found.bad] == ["1.png"]
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "b" / "2.jpg")
    with pytest.raises(UserError, match="two targets are called 2"):
        load(parse(f"{tmp_path}/a[target={tmp_path}/b]", skip_bad=True))


def test_named_sets_are_told_from_folders_that_are_gone() -> None:
    assert named_sets("/gone/a[first=2]+/gone/b+glyphs:test[first=3]+/gone/c") == ("", "glyphs:test[first=3]", "")
    assert named_sets("glyphs+glyphs") == ("glyphs", "glyphs")
    assert named_sets("/gone/c++/imgs") == ("",)


@pytest.mark.parametrize("folder", ["c++/imgs", "[2024] x/imgs", "q[1]", "a+b"])
def test_brackets_and_pluses_in_a_path_stay_in_it(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    support.write_pictures(tmp_path / folder, 4)
    text = places.anywhere(f"{tmp_path / folder}[first=2]")
    assert len(load(parse(text))) == 2
    assert len(load(parse(f"{text}+{tmp_path / folder}"))) == 6
    monkeypatch.chdir((tmp_path / folder).parent)
    assert places.anywhere(f"{Path(folder).name}[first=2]") == text


def test_an_input_made_smaller_or_grey_keeps_its_shape_wherever_it_is_read_again(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("cross", "disc"):
            for number in range(4):
                path = tmp_path / "set" / split / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(dice.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    for rule, shape in (("small:2", (3, 8, 8)), ("grey", (1, 16, 16))):
        text = f"{tmp_path / 'set'}[input={rule}]"
        trained = models.train("classifier", text, out=tmp_path / rule[:4], **support.tiny("classifier", images=8, batch=4))
        assert trained.model.spec.shape == shape
        held_out = sources.held_out(trained.header.config, trained.model, load(parse(text)))
        for again in (held_out, trained.data(text)):
            assert again.fields["image"].shape == shape
            assert again.fields["target"].shape == (3, 16, 16)
        assert trained.images([f"{text}:3"]).shape == (1, *shape[1:], shape[0])
    base = models.train("vae", f"{tmp_path / 'set'}[input=small:2]", out=tmp_path / "base", **support.tiny("vae", images=8))
    planned = api.plan("aegan", parts={"base": tmp_path / "base"}, batch=4)
    assert planned.spec.shape == base.model.spec.shape == (3, 8, 8)


def test_a_join_with_a_test_split_has_no_held_out_images() -> None:
    planned = api.plan("vae", "glyphs[first=40]+glyphs:test[first=40]", batch=4)
    model = build(planned.config, planned.spec, torch.device("cpu"), {})
    with pytest.raises(UserError, match="it trains on the test split itself"):
        sources.held_out(planned.config, model, planned.data)


def test_names_that_are_the_same_number_have_an_order(captioned: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "file,class", "more/a.png,1", "a.png,01", "b.png,001", "c.png,1")
    assert load(parse(f"{captioned}[labels={path}]")).fields["label"].names == ("001", "01", "1")
    with pytest.raises(UserError, match=re.escape("line 3 names a.png for the second time")):
        load(parse(f"{captioned}[labels={table(tmp_path, 'file,class', 'a.png,1', 'a.png,2')}]"))


def test_the_option_for_labels_is_a_clause_in_front_of_the_others(pictures: Path) -> None:
    request = labelled_by(parse(f"{pictures}[first=3]"), "/tables/x.csv")
    assert str(request) == f"{pictures}[labels=/tables/x.csv;first=3]"
    with pytest.raises(UserError, match="labels for several sets"):
        labelled_by(parse(f"{pictures}+{pictures}"), "x.csv")
    with pytest.raises(UserError, match="cannot stand in brackets"):
        labelled_by(parse(str(pictures)), "x;y.csv")


def test_one_source_is_named_once(pictures: Path) -> None:
    with pytest.raises(UserError, match="two --data for data, which needs no name"):
        api.plan("vae", {"": str(pictures), "data": str(pictures)}, batch=4)


def test_the_folder_of_a_run_on_a_long_composition_has_a_short_name(tmp_path: Path) -> None:
    folder = support.write_pictures(tmp_path / ("long" * 40), 4)
    name = places.first_run("vae", f"{folder}[label=cross]+{folder}[target={folder}]").name
    assert len(name) < 120
    assert "/" not in name
