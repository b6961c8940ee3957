"""Labels from a table beside the images: `--labels FILE.csv`, or ``FOLDER[labels=FILE.csv]``. No torch here.

The first line names the columns, the first column holds file names (with their sub-folder where a name occurs twice). A column called
`label` or `class` holds classes, `identity` who is shown, `caption` a sentence; every other column is an attribute, 0 or 1 (or -1 or 1).
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from models.data.dataset import ImageData
from models.data.items import Field
from models.errors import UserError, printable

_CLASS = ("label", "class")


def labelled(data: ImageData, path: str, name: str) -> ImageData:
    """`data` with what the table says of each file, in place of what its sub-folders say. Raises UserError naming the line that is wrong.

    Classes are in the order of their names (numbers in theirs), identities numbered in the order of theirs, words in that of the alphabet.
    """
    names = [
        tuple(os.path.relpath(file, root).replace(os.sep, "/") for root in (data.root, os.path.dirname(data.root))) for file in data.files
    ]
    changes: dict[str, object] = {"name": name, "labels": None, "classes": ()}
    for key, (told, values) in table_of(names, path).items():
        if key == "label":
            changes["classes"], changes["labels"] = told.names, values
        elif key == "identity":
            changes["identities"] = values
        elif key == "attributes":
            changes["attribute_names"], changes["attributes"] = told.names, values
        else:
            changes["more"] = {**data.more, key: (told, values)}
    return data.replace(**changes)


def table_of(names: Sequence[tuple[str, ...]], path: str) -> dict[str, tuple[Field, np.ndarray]]:
    """What a table says: field by field, a row for each image. `names` are what the table may call an image by, beside its bare name."""
    titles, table = _read(path)
    rows = [table[key] for key in _matched(names, table, path)]
    columns = {title: [row[number] for row in rows] for number, title in enumerate(titles)}
    found: dict[str, tuple[Field, np.ndarray]] = {}
    flags = []
    for title, values in columns.items():
        if title in (*_CLASS, "identity") and "" in values:
            which = printable(names[values.index("")][0])
            raise UserError(f"no {title} for the image {which}", path, "write one, or take the image out of the data")
        if title in _CLASS:
            classes, numbers = numbered(values)
            found["label"] = Field("number", names=classes, count=len(classes)), numbers
        elif title == "identity":
            people, numbers = numbered(values)
            found["identity"] = Field("number", count=len(people)), numbers
        elif title == "caption":
            found["caption"] = tokens(values)
        else:
            flags.append(title)
    if flags:
        wrong = next(((title, value) for title in flags for value in columns[title] if value not in ("-1", "0", "1")), None)
        if wrong:
            fix = (
                f"an attribute is 0 or 1; a column of classes is called label, of people identity, of sentences caption (not {wrong[0]!r})"
            )
            raise UserError(f"{printable(wrong[0])} is {printable(wrong[1])!r} for an image", path, fix)
        shown = np.array([[columns[title][n] == "1" for title in flags] for n in range(len(rows))], np.uint8)
        found["attributes"] = Field("flags", (len(flags),), tuple(printable(title) for title in flags)), shown
    return found


def _read(path: str) -> tuple[list[str], dict[str, list[str]]]:
    """The titles of the columns behind the first, and file name -> what stands in them."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"the table cannot be read ({getattr(error, 'strerror', None) or printable(error)})", path, "give a CSV file"
        ) from error
    titles = [title.strip() for title in lines[0]] if lines else []
    if len(titles) < 2 or "" in titles or len(set(titles)) < len(titles):
        fix = "the first line names the columns, such as: file,label"
        raise UserError("a table has a column of file names and more, each with its own title", path, fix)
    if len([title for title in titles[1:] if title in _CLASS]) > 1:
        raise UserError("two columns of classes, label and class", path, "keep one of them")
    table = {}
    for number, line in enumerate(lines[1:], start=2):
        if not "".join(line).strip():
            continue
        if len(line) != len(titles):
            raise UserError(
                f"line {number} has {len(line)} columns, the first line {len(titles)}", path, "put text with commas into quotes"
            )
        name = line[0].strip().replace("\\", "/")
        if name in table:
            raise UserError(f"line {number} names {printable(name)} for the second time", path, "keep one of the two lines")
        table[name] = [value.strip() for value in line[1:]]
    return titles[1:], table


def _matched(names: Sequence[tuple[str, ...]], table: dict[str, list[str]], path: str) -> list[str]:
    """The table's name of each file: as it lies under the images' folder (or under the folder of all splits), or its bare name."""
    found = []
    for known in names:
        key = next((key for key in (*known, os.path.basename(known[0])) if key in table), None)
        if key is None:
            raise UserError(f"no line for the image {printable(known[0])}", path, "add one, or take the image out of the data")
        found.append(key)
    if twice := [key for key, count in Counter(found).items() if count > 1]:
        raise UserError(f"{printable(twice[0])} is the name of several images", path, "write it with its sub-folder")
    return found


def numbered(values: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The different values in order, and each one's number (N,) int64."""
    numeric = all(re.fullmatch(r"-?\d{1,15}", value) for value in values)
    names = sorted(set(values), key=(lambda value: (int(value), value)) if numeric else None)
    places = {name: number for number, name in enumerate(names)}
    return tuple(map(printable, names)), np.array([places[value] for value in values], np.int64)


def tokens(sentences: Sequence[str]) -> tuple[Field, np.ndarray]:
    """Sentences as numbers of their words: a field of `tokens`, and (N, L) int64, 0 behind a sentence's end."""
    split = [re.findall(r"\w+|[^\w\s]", sentence.lower()) for sentence in sentences]
    words = ("", *sorted({word for sentence in split for word in sentence}))
    places = {word: number for number, word in enumerate(words)}
    length = max(1, max(map(len, split)))
    rows = np.zeros((len(split), length), np.int64)
    for row, sentence in zip(rows, split):
        row[: len(sentence)] = [places[word] for word in sentence]
    return Field("tokens", (length,), words, len(words)), rows
