"""`bench show` speaks to a reader."""

from bench.experiment import reproduction
from tests.results.made import make


def test_the_images_of_a_run_are_counted_in_words() -> None:
    one = make("random_init", 0, 0.2)
    origin = {"machine": {}, "commit": None, "dirty": None, "versions": {}, "command": [], "started": ""}
    _, rows = reproduction.description(one.model_copy(update={"provenance": origin}))
    counted = ", ".join(f"{count:,} {name} images" for name, count in one.data.counts.items())
    assert counted in dict(rows)["data"] and "{" not in dict(rows)["data"]
