"""The README says only what is true: its plug-in is run as it stands there."""

import re
from collections.abc import Callable
from pathlib import Path

from bench import metrics, record

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_plug_in_in_the_readme_runs_by_file(tiny: Callable, bench: Callable, tmp_path: Path) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(text.splitlines()) < 60
    path = tmp_path / "rotation.py"
    path.write_text(text)
    done = tiny("--plugin", path, "--pretext", "random_init,rotation", "--downstream", "voc_cls,voc_seg")
    assert done.code == 0, done.err
    assert {one.pretext for one in record.read(tmp_path / "runs")} == {"random_init", "rotation"}
    one = next(one for one in record.read(tmp_path / "runs") if one.pretext == "rotation")
    shown = bench("show", one.id, "--plugin", path, "--out", tmp_path / "runs").out
    assert f"bench run --plugin {path} --pretext rotation" in shown
    report = bench("report", "--out", tmp_path / "runs")
    assert "rotation" in report.out and "accuracy" in report.out
    listed = bench("list", "pretexts", "--plugin", path)
    assert "Rotation prediction" in listed.out
    path.write_text(text.replace("lr=self.recipe.lr", "lr=self.recipe.lr / 2"))
    from bench import registry

    assert registry.source_digest("pretexts", "rotation") not in {
        one.pretrain.job["source"] for one in record.read(tmp_path / "runs")
    }


def test_every_metric_is_explained() -> None:
    assert all(f"`{name}`" in README for name in metrics.METRICS)


def test_every_command_in_the_readme_exists() -> None:
    from bench.cli.app import app, data_app

    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    data_names = {command.name or command.callback.__name__ for command in data_app.registered_commands if command.callback}
    for line in re.findall(r"^    bench (\S+) ?(\S*)", README, re.MULTILINE):
        assert line[0] in names or (line[0] == "data" and line[1] in data_names), line
