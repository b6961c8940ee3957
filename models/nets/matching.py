"""Which items of two data sets belong together: by class, by identity, by all shared attributes, or any with any."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.base import DataSpec
from models.errors import UserError, nearest, printable

WHERE = "--map"


def class_map(words: Sequence[str], here: DataSpec, there: DataSpec) -> dict[int, int]:
    """Class of here -> class of there, as `1=6` or `shirt=coat` say it; without words, the classes of equal names. No class twice.

    Raises UserError for words that say something else, and where no class has a partner.
    """
    found = {here.classes.index(name): there.classes.index(name) for name in here.classes if name in there.classes} if not words else {}
    for word in words:
        left, equals, right = word.partition("=")
        if not equals:
            raise UserError(f"{printable(word)!r} is not CLASS=CLASS", WHERE, "write it as --map 1=6,2=7: of the one side, of the other")
        a, b = _class(left.strip(), here), _class(right.strip(), there)
        if a in found or b in found.values():
            raise UserError(f"{printable(word)!r}: a class has two partners", WHERE, "name each class once on its side")
        found[a] = b
    if not found:
        names = ", ".join(map(printable, here.classes[:5])), ", ".join(map(printable, there.classes[:5]))
        raise UserError(f"no class of one side is called like one of the other ({names[0]}; {names[1]})", WHERE, "say it: --map 1=6,2=7")
    return found


def groups(here: Tensor, there: Tensor, pairs: dict[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """Numbers of the groups that items of both sides belong to, -1 for those without a partner: (N,) or (N, A) and (M, ...) -> (N,), (M,).

    `pairs` say which value of here goes with which of there; None: equal values.
    """
    if pairs is not None:
        sides = ((here, pairs), (there, pairs.values()))
        one, other = (torch.full((max(int(shown.max()), *classes) + 1,), -1, device=shown.device) for shown, classes in sides)
        for number, (a, b) in enumerate(pairs.items()):
            one[a], other[b] = number, number
        return one[here], other[there]
    _, numbers = torch.unique(torch.cat([here, there]), dim=0, return_inverse=True)
    mine, its = numbers[: len(here)], numbers[len(here) :]
    return torch.where(torch.isin(mine, its), mine, -1), torch.where(torch.isin(its, mine), its, -1)


def check_partners(one: Members, other: Members, names: Sequence[str], what: str) -> None:
    """Raise UserError where nothing matches, or where a group has no items on one side; `names` of the groups, where they have any."""
    if not len(one.items) or not len(other.items):
        raise UserError(f"no {what} is on both sides", f"--pairs {what}", "give data that share some, or --pairs none")
    for members in (one, other):
        empty = [name for number, name in enumerate(names) if number >= len(members.counts) or not members.counts[number]]
        if empty:
            raise UserError(f"no images of {printable(empty[0])}", WHERE, "leave it out of the map, or give data that have some")


class Members:
    """The items of each group, to draw from: `group` (N,) are the items' groups, -1 for those that are never drawn."""

    def __init__(self, group: Tensor) -> None:
        self.items = torch.argsort(group, stable=True)[int((group < 0).sum()) :]  # by group
        self.group = group
        self.counts = torch.bincount(group[self.items], minlength=int(group.max()) + 1)
        self.starts = self.counts.cumsum(0) - self.counts

    def some(self, index: Tensor) -> Tensor:
        """Items that have a partner, one for each of `index` (B,): those themselves that have, others in place of the rest."""
        return self.items[index % len(self.items)]

    def draw(self, group: Tensor) -> Tensor:
        """A random item of each group (B,): (B,)."""
        counts = self.counts[group]
        place = (torch.rand(len(group), device=group.device) * counts).long().minimum(counts - 1)
        return self.items[self.starts[group] + place]


def _class(word: str, spec: DataSpec) -> int:
    """A class by its name, else by its number."""
    number = spec.fields["label"].number_of(word)
    if number is None:
        raise UserError(f"unknown class {printable(word)!r}", WHERE, printable(nearest(word, spec.classes)))
    return number
