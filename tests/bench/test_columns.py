"""Columns hold what a tuple would, in less memory and in the same JSON, so that nothing is known by another fingerprint."""

import hashlib
import json
import tracemalloc
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.data.columns import Texts
from bench.data.dataset import Dataset, ImageFile, ImageFiles
from bench.schema import canonical, digest_of

NAMES = ["a.jpg", "", "ä/ö.jpg", "日本.png", "caf\udce9.jpg"]


def unlabelled(count: int) -> Dataset:
    names = (f"picture_{place:012}.jpg" for place in range(count))
    images = ImageFiles(ImageFile(id=name, file=name, part="train") for name in names)
    return Dataset(name="d", kind="folder", root=Path("/d"), images=images)


def test_texts_are_the_ones_that_were_given() -> None:
    texts = Texts(NAMES)
    assert (len(texts), list(texts), texts[2]) == (5, NAMES, NAMES[2])
    for place in (-1, 5):
        with pytest.raises(IndexError, match=f"there are 5 texts, but got place {place}"):
            texts[place]


def test_an_index_is_a_list_of_pictures_and_read_as_one() -> None:
    given = [ImageFile(id="a", file="a.jpg", labels=(1, -1)), ImageFile(id="b", file="b.jpg", part="val")]
    dataset = Dataset(name="d", kind="folder", root=Path("/d"), images=ImageFiles(given))
    text = dataset.model_dump_json()
    assert '"images":[{"id":"a","file":"a.jpg","part":"","labels":[1,-1]},{"id":"b",' in text
    read = Dataset.model_validate(json.loads(text))
    assert list(read.images) == given and read.model_dump_json() == text
    assert read.known_labels() == {"a": (1, -1)}
    with pytest.raises(ValidationError, match=r"1\.file\n  Input should be a valid string"):
        Dataset.model_validate(json.loads(text.replace('"file":"b.jpg"', '"file":1')))


def test_a_hundred_thousand_pictures_are_a_few_megabytes() -> None:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    dataset = unlabelled(10_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(dataset.images) == 10_000
    assert (after - before) / 10_000 < 120, "bytes a image"


def test_an_iterator_is_hashed_as_the_list_it_would_be() -> None:
    fields = {"b": [1, {"z": None, "a": "ä"}], "a": [], "c": {"y": 1.5}}
    digest = hashlib.sha256(canonical(fields).encode()).hexdigest()
    assert digest_of(fields) == digest_of({**fields, "a": iter([]), "b": iter(fields["b"])}) == digest
    assert digest_of({}) == hashlib.sha256(b"{}").hexdigest()
