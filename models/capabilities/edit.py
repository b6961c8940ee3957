"""The same thing with another attribute: codes of images are moved until they show what is asked for, and decoded again.

How a code is moved depends on what there is to go by:

* a model with critics of codes (`Constrains`) searches by gradient, from the image's own code, until its critic takes the code for real and
  its reader sees what was asked for; or it moves the code at once (`fast`; see `constrained.py`);
* a classifier of pictures (`reader`) leads a search through the codes of any auto-encoder whose decoder is told nothing, for a picture that
  shows what was asked for and differs from the reconstruction in few places;
* a rule, any differentiable function of images that is above 0 where it is kept (`rule`), is searched for like an attribute, among the
  codes of any auto-encoder whose decoder is told nothing;
* with labelled data (`data`), any auto-encoder adds the mean code with an attribute and takes away the mean code without it, as Radford et
  al. did with noise (DCGAN, 2016, section 6.3.2);
* a model whose decoder is told what to show decodes the same code, told something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from models.base import Classifies, Constrains, DataSpec, Encodes, LatentModel
from models.capabilities import verb
from models.capabilities.ask import device_of, evaluating, images_from, models_with, read_by, require, require_alike
from models.capabilities.classify import require_classifier, target_of
from models.capabilities.constrained import Aim, Effort, Rule, Verdict, flag_of, judged, judged_in_pictures, moved, searched, settled
from models.capabilities.inputs import checked
from models.capabilities.interpolate import blend
from models.capabilities.reconstruct import codes_of
from models.capabilities.told import Told, Words, columns, condition_of, has_to_tell, in_words_of, listed
from models.data.batches import to_float
from models.data.items import Items
from models.errors import UserError, nearest, printable
from models.randomness import some

if TYPE_CHECKING:
    from models.capabilities.trained import Trained

# What of an `Effort` each way of editing makes use of.
LED = frozenset({"steps", "lr", "certainty", "picture_weight"})  # by a classifier of pictures
JUDGED = frozenset({"realism", "certainty", "look"})  # in one pass: critics say what they think of it
SEARCHED = JUDGED | {"search", "steps", "lr", "realism_weight", "distance_weight"}
EXAMPLES = 10_000  # items at most, whose mean codes are taken for arithmetic
# The codes of the examples that were taken last, for the next edit by the same data.
_known_examples: WeakKeyDictionary[LatentModel, tuple[Items, Tensor]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Edited:
    """Images that were edited.

    Attributes:
        images: uint8 (N, H, W, C).
        start, codes: of the images as they were, and as they became: (N, latent...) float32 on the CPU.
        told: what the decoder was told at the start and at the end, a row for each image; None for a decoder that is told nothing.
        verdict: what critics and the rule say; None after arithmetic, and where only the decoder was told.
    """

    images: np.ndarray
    start: Tensor
    codes: Tensor
    told: tuple[Told, Told] | None = None
    verdict: Verdict | None = None


@verb
def edit(
    trained: Trained,
    images: np.ndarray,
    wanted: Words | None = None,
    *,
    told: Words | None = None,
    fast: bool = False,
    data: Items | None = None,
    strength: float = 1.0,
    reader: Trained | None = None,
    rule: Rule | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **effort: Any,
) -> Edited:
    """Uint8 images (N, H, W, C) with other attributes, or another class. What is not named stays as it is.

    Args:
        wanted: attributes by name ({"smile": 1}), or a class: one for all, or one for each image.
        told: what the images show now; where nobody says, the model's reader or classifier does.
        fast: one pass of a model with critics instead of a search.
        data: labelled data for arithmetic with mean codes; `wanted` are then words of these data. With a reader its search begins there.
        strength: how far arithmetic goes: so many times the way between the mean codes.
        reader: a classifier of such pictures, a model of its own, that leads a search; `wanted` and `told` are then its words.
        rule: images (B, C, H, W) in [-1, 1] -> numbers (B,), above 0 where all is well; differentiable. It goes with `wanted`, or alone.
        progress: called with (steps done, steps in all).
        effort: fields of `Effort`, for a search.

    Raises UserError.
    """
    model = trained.model
    require(model, Encodes, "edit")
    require_alike(model, "decode", "edit")
    shown, tried = checked(trained, images), Effort(**effort) if reader is None else Effort.in_pictures(target_of(reader.model), **effort)
    if wanted is None and rule is None:
        raise UserError("nothing is asked for", "--attributes", "say what to change: --attributes smile=1, or --label 3")
    if fast and rule is not None:
        raise UserError("one pass follows no rule", "fast", "leave it out")
    if not np.isfinite(strength) or (data is None and strength != 1):
        fix = "give a number" if data is not None else "it is for arithmetic: give labelled data (--data)"
        raise UserError(f"a strength of {printable(strength)}", "--strength", fix)
    if reader is not None:
        for flag, given in (("--fast", fast), ("rule", rule is not None)):
            if given:
                raise UserError("a classifier of pictures leads this way of editing, alone", flag, "leave it out, or --reader")
        assert wanted is not None
        _refuse_unused(effort, LED, "a classifier of pictures leads this way of editing")
        _require_leader(reader.model, model)
        start = codes_of(model, shown, None)
        begin = None if data is None else _added(model, start, wanted, data, strength)
        return _by_reader(model, start, wanted, told, reader.model, begin, tried, progress)
    if data is not None or has_to_tell(model, "decode"):
        for flag, given in (("--fast", fast), ("rule", rule is not None)):
            if given:
                raise UserError("there are no critics in this way of editing", flag, "leave it out")
        assert wanted is not None
        _refuse_unused(effort, frozenset(), "there is no search in this way of editing")
        return _by_condition(trained, shown, wanted, told) if data is None else _by_arithmetic(model, shown, wanted, data, strength)
    if wanted is not None and not isinstance(model, Constrains):
        raise _no_critics(model)
    if wanted is not None and condition_of(model) is None:
        what = "this run was trained without labels: it knows what is plausible, but nothing by name"
        raise UserError(what, "--attributes", "give labelled data for arithmetic (--data), or train it with labels (--labels FILE.csv)")
    _refuse_unused(effort, JUDGED if fast else SEARCHED, "there is no search in one pass" if fast else "no classifier of pictures leads it")
    aim = _aim(trained, shown, wanted, told) if isinstance(model, Constrains) and trained.condition is not None else None
    start, tried = codes_of(model, shown, None), settled(model, rule, tried)
    if fast:
        assert aim is not None
        codes, steps = moved(model, start, aim), np.zeros(len(start), int)
    else:
        codes, steps = searched(model, start, aim, rule, tried, progress)
    return Edited(images_from(model, codes, "code"), start, codes, verdict=judged(model, start, codes, steps, aim, rule, tried))


def _refuse_unused(effort: Mapping[str, Any], used: frozenset[str], why: str) -> None:
    """Raise UserError where something was asked of a search that has no part in this way of editing."""
    if unused := next((name for name in effort if name not in used), None):
        raise UserError(why, flag_of(unused), "leave it out")


def _aim(trained: Trained, images: np.ndarray, wanted: Words | None, told: Words | None) -> Aim:
    """What a model is asked for, in place of what the images show in its words."""
    kind = condition_of(trained.model)

    def shown() -> Told:
        own = trained.shown_by(images, told)
        assert own is not None
        return own

    assert kind is not None
    return _aim_of(kind, trained.model.spec, len(images), wanted, shown)


def _aim_of(kind: str, spec: DataSpec, count: int, wanted: Words | None, shown: Callable[[], Told]) -> Aim:
    """What is asked of `count` images, in place of what they show; all that they show where nothing is asked for."""
    if wanted is not None and kind != "attributes":
        each = in_words_of(kind, spec, wanted).for_each(count)
        return Aim(each, each.soft().values > 0)
    own = shown()
    if wanted is None:
        return Aim(own, torch.zeros_like(own.soft().values, dtype=torch.bool))
    values, named = own.values.clone(), torch.zeros(own.values.shape, dtype=torch.bool)
    for row, one in enumerate(_for_each(wanted, count)):
        if not isinstance(one, Mapping):
            raise UserError("this model is asked by attributes, not by label", "--label", "use --attributes")
        if not one:
            raise UserError("nothing is asked for", "--attributes", "name an attribute: --attributes smile=1")
        for column, given in columns(spec.attributes, one).items():
            values[row, column], named[row, column] = given, True
    return Aim(Told(own.kind, own.spec, values), named)


def _for_each(wanted: Words, count: int) -> list[Any]:
    """What is wanted of each image."""
    several = listed(wanted)
    if len(several) not in (1, count):
        raise UserError(f"{len(several)} for {count} images", "wanted", "give one for all, or one for each image")
    return several * count if len(several) == 1 else several


def _no_critics(model: LatentModel) -> UserError:
    able = models_with("move", "realism")
    what = "this model has no critics of its codes, and its decoder is told nothing"
    fix = f"give a classifier (--reader RUN) or labelled data (--data celeba), or train critics on it (lgm train {able} --part vae=RUN)"
    return UserError(what, type(model).__module__.rpartition(".")[2], fix)


def _by_condition(trained: Trained, images: np.ndarray, wanted: Words, told: Words | None) -> Edited:
    """The same code, decoded under what is asked for."""
    if told is None and not trained.classifies:
        raise UserError(f"nobody says which {trained.condition} the images show", "--told", "say it: this model has to be told")
    own, aim = trained.shown_by(images, told), _aim(trained, images, wanted, told)
    assert own is not None
    code = codes_of(trained.model, images, own)
    return Edited(images_from(trained.model, code, "code", aim.told), code, code, told=(own, aim.told))


def _require_leader(reader: LatentModel, model: LatentModel) -> None:
    """Raise UserError where a classifier cannot lead a search through the model's codes."""
    if has_to_tell(model, "encode", "decode"):
        raise UserError("this model's decoder is told what to show", "--reader", "leave it out: it needs no search")
    require_classifier(reader)
    if reader.spec.shape != model.spec.shape:
        its, own = ("{2} x {1} in {0} channels".format(*spec.shape) for spec in (reader.spec, model.spec))
        raise UserError(f"the classifier looks at {its}, the pictures are {own}", "--reader", "train one on such pictures")
    if (its_place := device_of(reader)) != (place := device_of(model)):
        raise UserError(f"the classifier is on {its_place}, the model on {place}", "--reader", "load both on the same device")


def _by_reader(
    model: LatentModel,
    start: Tensor,
    wanted: Words,
    told: Words | None,
    reader: LatentModel,
    begin: Tensor | None,
    effort: Effort,
    progress: Callable[[int, int], None],
) -> Edited:
    """A search for codes in whose pictures a classifier sees what was asked for, and which differ little from the reconstructions; from
    the codes `begin`, or from the images' own, `start`."""
    assert isinstance(reader, Classifies)

    def shown() -> Told:
        if told is not None:
            return in_words_of(reader.target, reader.spec, told).for_each(len(start))
        return read_by(reader, to_float(torch.from_numpy(images_from(model, start, "code"))))

    with evaluating(reader):
        aim = _aim_of(reader.target, reader.spec, len(start), wanted, shown)
        codes, steps = searched(model, start, aim, None, effort, progress, reader, begin)
        verdict = judged_in_pictures(model, reader, start, codes, steps, aim, effort)
    return Edited(images_from(model, codes, "code"), start, codes, verdict=verdict)


def _by_arithmetic(model: LatentModel, images: np.ndarray, wanted: Words, data: Items, strength: float) -> Edited:
    """Arithmetic with mean codes, and the pictures of what comes out."""
    if has_to_tell(model, "encode", "decode"):
        raise UserError("this model's decoder is told what to show", "--data", "leave it out: it needs no arithmetic")
    start = codes_of(model, images, None)
    codes = _added(model, start, wanted, data, strength)
    return Edited(images_from(model, codes, "code"), start, codes)


def _added(model: LatentModel, start: Tensor, wanted: Words, data: Items, strength: float) -> Tensor:
    """Codes plus the mean code with what is asked for, less the mean code without it: of another class, that of the nearest one."""
    several = _for_each(wanted, len(start))
    field = "attributes" if isinstance(several[0], Mapping) else "label"
    if field not in data.fields or not data.fields[field].names:
        raise UserError(f"these data have no {field}", "--data", "give data that have, such as 'FOLDER[labels=FILE.csv]'")
    names, chosen = data.fields[field].names, some(min(len(data), EXAMPLES), len(data), 0, "edit")
    shown = torch.from_numpy(data.rows(field, chosen)).long()
    if (known := _known_examples.get(model)) is None or known[0] is not data:
        known = _known_examples[model] = (data, codes_of(model, data.rows("image", chosen), None))
    examples = known[1]
    codes = start.clone()

    @cache
    def way(column: int) -> Tensor:
        """From the mean code of images without an attribute to that of images with it."""
        has, name = shown[:, column] == 1, names[column]
        return mean(has, f"has {name}") - mean(~has, f"is without {name}")

    @cache
    def of_class(number: int) -> Tensor:
        return mean(shown == number, f"of class {names[number]}")

    def mean(of: Tensor, what: str) -> Tensor:
        if not of.any():
            raise UserError(f"no image {printable(what)}", "--data", "give data that have both kinds")
        return examples[of].mean(0)

    for row, one in enumerate(several):
        if field == "attributes":
            for column, given in columns(names, one).items():
                codes[row] += strength * (way(column) if given else -way(column))
            continue
        number = data.fields[field].number_of(str(one))
        if number is None:
            raise UserError(f"unknown class {printable(one)!r}", "--label", printable(nearest(str(one), names)))
        means = torch.stack([of_class(k) for k in shown.unique().tolist()])
        now = (means - start[row]).square().flatten(1).sum(1).argmin()
        codes[row] += strength * (of_class(number) - means[now])
    return codes


def on_the_way(trained: Trained, edited: Edited, steps: int) -> np.ndarray:
    """Pictures of the way from the reconstructions to the edits, both included: uint8 (N, steps, H, W, C); one step is the first."""

    def between(a: Tensor, b: Tensor) -> Tensor:
        return blend(a, b, steps, "lerp").transpose(0, 1).flatten(0, 1)

    points, told = between(edited.start, edited.codes), None
    if edited.told is not None:
        before, after = (one.soft() for one in edited.told)
        told = Told(before.kind, before.spec, between(before.values, after.values))
    made = images_from(trained.model, points, "code", told)
    return made.reshape(len(edited.images), steps, *made.shape[1:])
