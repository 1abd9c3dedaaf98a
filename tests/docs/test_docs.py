"""The documentation says only what is true: commands parse, plug-ins run as they stand there, the reference is complete."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer

from bench import metrics, record, registry
from bench.models.trunk import make_trunk
from bench.probe import PROBES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OLD_WORDS = (
    *("picture", "optimiser", "eye", "desk", "player", "turns", "course", "augment", "backbone"),
    *("validation part", "test part", "training part", "`trivial`", "`view`", "`report`", "report_images"),
)
"""Words that have given way to others: one word a thing."""


def blocks(text: str) -> Iterator[list[str]]:
    """Yield the lines of each fenced block, and of all that is indented by four spaces outside of them."""
    inside: list[str] | None = None
    indented: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            if inside is not None:
                yield inside
            inside = None if inside is not None else []
        elif inside is not None:
            inside.append(line)
        elif line.startswith("    "):
            indented.append(line)
    yield indented


def shown(text: str) -> list[str]:
    """Return every command line of `bench` in fenced and indented blocks, continued lines joined."""
    lines = (line for block in blocks(text) for line in "\n".join(block).replace("\\\n", " ").splitlines())
    return [line.strip() for line in lines if line.strip().startswith("bench ")]


def mentioned(text: str) -> list[str]:
    """Return every command of `bench` between backticks in the running text."""
    return re.findall(r"`(bench [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def parse(line: str, complete: bool = True) -> None:
    """Parse a command line as `bench` does, without running it; raise the parser's error.

    A line that is not `complete` may leave out what is required.
    """
    from bench.cli.app import app

    command, name, words = typer.main.get_command(app), "bench", shlex.split(line, comments=True)[1:]
    if words == ["--install-completion"]:  # to parse it is to install it
        assert any(words[0] in param.opts for param in command.params)
        return
    while True:
        try:
            context = command.make_context(name, list(words))
        except typer.Exit:  # --help and --version
            return
        except Exception as error:
            if not complete and type(error).__name__ == "MissingParameter":
                return
            raise
        if not hasattr(command, "commands"):
            return
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])


def cases(find: Callable[[str], list[str]]) -> list[object]:
    """Return a case for each command line that is found in the pages."""
    found = [(page, line) for page in PAGES for line in dict.fromkeys(find(page.read_text()))]
    return [pytest.param(line, id=f"{page.stem}: {line}") for page, line in found]


@pytest.mark.parametrize("line", cases(shown))
def test_a_command_that_is_shown_parses(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", cases(mentioned))
def test_a_command_that_is_mentioned_exists(line: str) -> None:
    parse(line, complete=False)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("bench rnu --pretext a --downstream b", "UsageError"),
        ("bench data prepre voc2012", "UsageError"),
        ("bench run --pretxt a --downstream b", "NoSuchOption"),
        ("bench run --pretext a", "MissingParameter"),
        ("bench run --pretext a --downstream b --size large", "BadParameter"),
        ("bench run --pretext a --downstream b stray", "UsageError"),
    ],
)
def test_a_wrong_command_does_not_parse(line: str, error: str) -> None:
    with pytest.raises(Exception) as raised:
        parse(line)
    assert type(raised.value).__name__ == error


def test_commands_are_found_in_both_kinds_of_blocks() -> None:
    text = "    bench a\n```sh\nmake\nbench b \\\n  --c\n```\n`bench d`\n```python\n`bench e`\n```\n"
    assert shown(text) == ["bench b    --c", "bench a"]
    assert mentioned(text) == ["bench d"]
    assert len(cases(shown)) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_no_old_words(page: Path) -> None:
    assert not [word for word in OLD_WORDS if re.search(rf"(?<!\w){word}s?(?!\w)", page.read_text(), re.IGNORECASE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_that_a_page_links_to_exists(page: Path) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", page.read_text())
    generated = (ROOT / "docs" / "reference").resolve()
    targets = [(page.parent / link).resolve() for link in links]
    assert not [target for target in targets if not target.exists() and not target.is_relative_to(generated)]


def plugin(page: str, name: str) -> str:
    """Return the text of the plug-in of a page whose class has this name."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    (text,) = [text for text in found if f"class {name}(" in text]
    return str(text)


def test_the_readme_has_the_plug_in_of_the_documentation() -> None:
    assert plugin("README.md", "UpsideDown") == plugin("docs/your-pretext-task.md", "UpsideDown")


def test_the_plug_in_runs_by_file(tiny: Callable, bench: Callable, tmp_path: Path) -> None:
    text = plugin("docs/your-pretext-task.md", "UpsideDown")
    assert len(text.splitlines()) < 60
    path = tmp_path / "upside_down.py"
    path.write_text(text)
    done = tiny("--plugin", path, "--pretext", "random_init,upside_down", "--downstream", "voc_cls,voc_seg")
    assert done.code == 0, done.err
    records = record.read(tmp_path / "runs")
    assert {one.pretext for one in records} == {"random_init", "upside_down"}
    one = next(one for one in records if one.pretext == "upside_down")
    made_again = bench("show", one.id, "--plugin", path, "--out", tmp_path / "runs").out
    assert f"bench run --plugin {path} --pretext upside_down" in made_again
    report = bench("report", "--out", tmp_path / "runs")
    assert "upside_down" in report.out and "accuracy" in report.out
    listed = bench("list", "pretexts", "--plugin", path)
    assert "Upside down or not" in listed.out
    path.write_text(text.replace("> 0)", ">= 0)"))
    assert registry.source_digest("pretexts", "upside_down") not in {one.pretrain.job.source for one in records}


def test_the_plug_in_learns_where_images_have_an_orientation(tmp_path: Path) -> None:
    path = tmp_path / "upside_down.py"
    path.write_text(plugin("docs/your-pretext-task.md", "UpsideDown"))
    registry.add_plugin(path)
    found = registry.load("pretexts", "upside_down")
    torch.manual_seed(0)
    task = found(found.Recipe(lr=3e-3, beta1=0.9), make_trunk("unet:depth=5,width=8"))
    optimizer, generator = task.optimizers()["loss"], torch.Generator().manual_seed(0)
    sky = torch.linspace(255, 30, 32)[:, None].expand(64, 3, 32, 32)
    images = (sky - 25 * torch.rand(64, 3, 32, 32)).byte()
    before = task.eval().evaluate(images, generator)["accuracy"].mean()
    task.train()
    for _ in range(80):
        for _, loss in task.training_step(task.make_batch(images, generator)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = task.eval().evaluate(images, generator)["accuracy"].mean()
    assert before < 0.7 and after > 0.95


def test_the_plug_in_that_derives_from_another_task_runs(tiny: Callable, tmp_path: Path) -> None:
    path = tmp_path / "vivid.py"
    path.write_text(plugin("docs/your-pretext-task.md", "Vivid"))
    done = tiny("--plugin", path, "--pretext", "l1_color,vivid", "--downstream", "voc_seg")
    assert done.code == 0, done.err
    l1, vivid = (one.pretrain for one in record.read(tmp_path / "runs"))
    assert (l1.job.pretext, vivid.job.pretext) == ("l1_color", "vivid")
    assert l1.weights != vivid.weights and l1.evaluation.keys() == vivid.evaluation.keys()


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    specification = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(ROOT / "docs"))  # as for `python docs/generate.py`
    specification.loader.exec_module(module)
    sys.path.remove(str(ROOT / "docs"))
    yield module
    sys.modules.pop("pieces")


@pytest.fixture(scope="module")
def reference(generate: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the reference pages."""
    folder = tmp_path_factory.mktemp("docs") / "reference"
    generate.main(folder)
    return folder


def test_the_reference_has_what_the_program_lists(reference: Path, bench: Callable) -> None:
    def listed(what: str) -> list[list[str]]:
        return [line.split("\t") for line in bench("list", what).out.splitlines()[1:]]

    protocols, columns = (reference / "protocols.md").read_text(), (reference / "columns.md").read_text()
    assert all(f"### {task}, protocol {name}\n" in protocols for name, task, *_ in listed("protocols"))
    assert all(f"| `{column}` |" in columns for _, column, _ in listed("columns"))
    assert all(f"`{key}`" in (reference / "metrics.md").read_text() for key, *_ in listed("metrics"))
    assert all(f"## {name}\n" in (reference / "pretexts.md").read_text() for name, *_ in listed("pretexts"))


def test_the_reference_has_every_setting_of_a_protocol_and_what_each_protocol_changes(reference: Path) -> None:
    from bench.protocol import Protocol

    settings, *sections = re.split("\n### ", (reference / "protocols.md").read_text())
    named = {"summary", "schedules", "metrics"}
    assert all(settings.count(f"\n| `{name}` |") == 1 for name in Protocol.model_fields if name not in named)
    small = next(text for text in sections if text.startswith("voc_cls, protocol small\n"))
    assert "| `size` | `64` |" in small and "`head_width` | `512` |" in small
    assert "`void`" not in small  # it has its default
    assert "| two-phase | 1 | head | 12 | 0.0005 |" in small


def test_the_reference_shows_what_the_studies_say(reference: Path) -> None:
    text = (reference / "protocols.md").read_text().replace("\\", "")
    study = (ROOT / "results" / "studies" / "voc_mini" / "README.md").read_text()
    assert "| cgan_color, two-phase | map_voc@1 33.31 [28.69, 37.94] | 3 |" in text and "| 33.31 | [28.69, 37.94] | 3 |" in study


def test_what_a_type_says_stands_beside_the_settings_of_that_type(generate: ModuleType) -> None:
    from bench.protocol import Protocol

    meanings = generate.comments(Protocol)
    assert (
        meanings["statistics"]
        == "what batch norm normalises with at inference: its running statistics, or those of the batch; one of: running, batch"
    )
    assert meanings["head_width"] == "0: one linear layer"


@pytest.mark.parametrize(("page", "count"), [("protocols", 10), ("probes", 7)])
def test_the_commands_of_a_page_of_settings_parse(reference: Path, page: str, count: int) -> None:
    lines = shown((reference / f"{page}.md").read_text())
    assert len(lines) >= count
    for line in lines:
        parse(line)


def test_the_reference_has_every_setting_of_every_probe_with_its_default(reference: Path) -> None:
    _, *sections = re.split("\n## ", (reference / "probes.md").read_text())
    assert [text.partition("\n")[0] for text in sections] == list(PROBES)
    for text, kind in zip(sections, PROBES.values(), strict=True):
        assert ["kind", *re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)] == list(kind.model_fields)
    assert "| `k` | `[5, 10, 20, 50, 100, 200]` |" in sections[0] and "| `level` | `null` | the encoder level" in sections[0]
    assert "| `penalties` | `[1.0, 3.16, 10.0," in sections[1]


def test_the_reference_has_every_command_with_an_example_that_parses(reference: Path, bench: Callable) -> None:
    text = (reference / "commands.md").read_text()
    examples = shown(text)
    assert len(examples) == text.count("\n## bench ") > 10
    for line in examples:
        parse(line)


def test_the_reference_has_the_defaults_of_options(reference: Path) -> None:
    text = (reference / "commands.md").read_text()
    assert "| `--vary` | `all` |" in text and "| `--out` | `runs` |" in text and "| `--downstream` | required |" in text


def test_what_markdown_would_read_as_markup_is_escaped(generate: ModuleType) -> None:
    assert generate.prose("a_b_c `a_b` [0, 1] <x>") == r"a\_b\_c `a_b` \[0, 1\] \<x\>"
    assert generate.prose("see https://a.example/b_c, and") == "see <https://a.example/b_c>, and"
    assert generate.table(("A",), [("b|c",)]) == "| A |\n| --- |\n| b\\|c |\n"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_the_glossary_is_short() -> None:
    rows = re.findall(r"^\| ([a-z][^|]*) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert 20 < len(rows) <= 35 and rows == sorted(rows)


def test_a_room_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    paths = re.findall(r"`((?:bench|results|pretexts|downstream|tests|docs)/[\w/.]*)`", text)
    assert len(paths) > 20
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_every_metric_is_explained() -> None:
    text = (ROOT / "docs" / "reading-a-row.md").read_text()
    assert all(f"`{name}`" in text for name in metrics.METRICS)
