"""What a table says of its data: the scored list, what a mean leaves out, what was not used."""

from results import data_notes
from tests.results.made import make


def test_a_mean_that_leaves_classes_out_is_said_below_the_table() -> None:
    one = make("l1_color", 0, per_class={})
    main = one.metric_ids[0]
    some = one.model_copy(update={"per_class": {main: {"b": 0.5, "c": None}}})
    assert data_notes.notes([one]) == []
    (note,) = data_notes.notes([one, some])
    assert note == f"{one.title}: {main} is not defined for 1 class (c) here; its mean leaves them out."


def test_the_scored_list_and_what_is_not_used_are_said() -> None:
    one = make("l1_color", 0, per_class={})
    data = one.data.model_copy(update={"scored_list": "ImageSets/Main/val.txt", "unused": {"images in no split": 1200}})
    assert data_notes.notes([one.model_copy(update={"data": data})]) == [
        "Scored images: ImageSets/Main/val.txt.",
        f"{data.name}: images in no split: 1,200.",
    ]


def test_counts_that_differ_by_task_name_the_tasks() -> None:
    some = [make("l1_color", 0, downstream=task, per_class={}) for task in ("voc_seg", "voc_cls")]
    told = [
        one.model_copy(update={"data": one.data.model_copy(update={"unused": {"images in no split": count, "links": 3}})})
        for one, count in zip(some, (500, 7), strict=True)
    ]
    assert data_notes.notes(told) == ["voc: images in no split: 500 (Segmentation), 7 (Classification); links: 3."]
