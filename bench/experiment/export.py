"""Export: a pretrained trunk, or a fine-tuned network, as a folder that timm, this program and a model hub open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import __version__, record
from bench.config import PAPER_SIZE
from bench.errors import UsageError, unknown
from bench.experiment.finetuning import make_model
from bench.experiment.pretraining import load_pretrained
from bench.experiment.runs import NETWORK
from bench.models import exported
from bench.models.trunk import TrunkName
from bench.record import PretrainRecord, Record
from bench.storage import files
from bench.text import duration, plain
from bench.training import checkpoint

INPUTS = {
    "l": "lightness (CIE L*, -1 to 1).",
    "rgb": "colour, normalised as config.json says.",
    "l+ab": "lightness and ab (CIE L* / 50 - 1, ab / 128).",
}
CITE = "Treneska et al. 2022, GAN-Based Image Colorization for Self-Supervised Visual Feature Learning, doi:10.3390/s22041599"


@dataclass(frozen=True)
class Chosen:
    """What is exported: a pretrained trunk, the run whose fine-tuned network is asked for (or None), and the trunk's runs."""

    pretrained: PretrainRecord
    run: Record | None
    runs: Sequence[Record]


def choose(out: Path, beginning: str, network: bool) -> Chosen:
    """Return what a beginning of an id names: a run, and so its trunk or its network, or a pretrained trunk.

    UsageError when it names none or several, or when a trunk has no network to export.
    """
    records = {path.parent.name: path for path in record.paths(out)}
    trunks = {path.parent.name: path for path in sorted((out / "pretrained").glob("[!.]*/pretrain.json"))}
    matching = [name for name in (*records, *trunks) if name.startswith(beginning)]
    exact = [name for name in matching if name == beginning]
    found = exact or matching
    if not found:
        raise unknown("run or pretrained trunk", beginning, [*records, *trunks])
    of_trunk = {record.read_one(records[one]).pretrain.id if one in records else one for one in found}
    if len(found) > 1 and (network or len(of_trunk) > 1):
        raise UsageError(f"{beginning!r} begins {len(found)} ids: {', '.join(sorted(found)[:10])}.")
    name = found[0]
    run = record.read_one(records[name]) if name in records else None
    if network and run is None:
        raise UsageError(f"{name} is a pretrained trunk; --network exports the fine-tuned network of a run.")
    pretrained = run.pretrain if run is not None else record.read_pretrained(trunks[name])
    runs = [one for one in record.read(out) if one.pretrain.id == pretrained.id]
    return Chosen(pretrained, run if network else None, [run] if run is not None and network else runs)


def export(chosen: Chosen, out: Path, folder: Path, licence: str) -> list[str]:
    """Write what was chosen into a new folder and return the names of its files.

    UsageError when the folder exists and is not empty, or when the network was not kept; DataError when weights are damaged.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name a new folder.")
    pretrained, run = chosen.pretrained, chosen.run
    job = pretrained.job
    trunk = load_pretrained(pretrained, out)
    facts: dict[str, Any] = {
        "label": pretrained.label,
        "made_by": f"pretext-bench {__version__}",
        "pretrained": pretrained.id,
        "supervision": pretrained.supervision,
    }
    head = None
    if run is not None:
        path = record.record_path(out, run.id).parent / NETWORK
        if not path.is_file():
            if run.job.probe is not None:
                raise UsageError(f"{run.id} is a probe, which trains no network; leave --network out, and its trunk is exported.")
            raise UsageError(f"the network of {run.id} was not kept; run it with --keep-networks in a new folder.")
        _, model = make_model(run.job, trunk, len(run.data.classes))
        checkpoint.load_network(path, run.weights, model)
        head = model.head
        labels = f"labels of {run.data.name}"
        known = pretrained.supervision
        facts |= {"run": run.id, "supervision": labels if known == "none" else f"{known}, {labels}", "classes": run.data.classes}
        facts |= {"downstream": run.downstream, "protocol": run.job.protocol}

    own = job.weights.size if job.weights is not None and "img_size" not in job.trunk else 0
    size = run.job.size if run is not None else own or job.size

    def fill(place: Path) -> None:
        filled = exported.write(place, trunk, job.trunk, size, facts, head)
        (place / "README.md").write_text(_card(chosen, facts, filled, licence))

    files.publish_folder(folder, fill, "README.md", checkpoint.bytes_of(trunk))
    return sorted(path.name for path in folder.iterdir())


def _card(chosen: Chosen, facts: dict[str, Any], filled: Sequence[str], licence: str) -> str:
    """Return a model card: what a hub reads between the dashes, and what a person wants to know."""
    pretrained, job = chosen.pretrained, chosen.pretrained.job
    data, origin, cost = pretrained.data, pretrained.origin, pretrained.cost
    timm = job.trunk.startswith("timm:")
    what = "fine-tuned network" if chosen.run is not None else "trunk"
    lines = [
        "---",
        f"license: {licence or 'other'}",
        f"library_name: {'timm' if timm else 'pytorch'}",
        "tags: [self-supervised-learning, image-feature-extraction]",
        "---",
        f"# {facts['label']}: {what} {job.trunk}",
        "",
        f"Made by pretext-bench {__version__} at {job.size} px; input: " + INPUTS[TrunkName.parse(job.trunk).preprocessing],
        "",
        "| What | Value |",
        "|---|---|",
        f"| Initialisation | {facts['label']} |",
        f"| Labels used in training | {facts['supervision']} |",
    ]
    if origin is not None:
        digest = job.weights.sha256 if job.weights else ""
        source = Path(origin.source).name if Path(origin.source).is_absolute() else origin.source  # a card is read by others
        lines.append(f"| Source of the weights | {source}, SHA-256 {digest[:16]}, {origin.loaded} of {origin.wanted} tensors |")
    if data is not None:
        lines.append(f"| Pretrained on | {data.title}, {data.counts.get('train', 0):,} images, {data.fingerprint[:12]} |")
        lines.append(f"| Recipe | {plain(pretrained.recipe)} |")
        lines.append(f"| Cost | {duration(cost.seconds)} on {cost.device}, {cost.images:,} images |")
    lines.append(f"| Licence | {licence or 'not stated by the person who exported it'} |")
    lines += [
        "",
        "## Scores",
        "",
        "| Task | Data | Protocol | Schedule | Seed | Metric | Value |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in chosen.runs:
        name = one.metric_ids[0]
        value = one.metrics[name]
        shown = "undefined" if value is None else f"{100 * value:.2f} %"
        lines.append(
            f"| {one.title} | {one.data.title} | {one.job.protocol} | {one.job.about} | {one.job.seed} | {name} | {shown} |"
        )
    if not chosen.runs:
        lines.append("| none yet | | | | | | |")
    lines += [
        "",
        "Values are those of single runs; compare rows by `bench report`, with their intervals.",
        "",
        "## Use",
        "",
        "```python",
    ]
    lines += [
        "import bench",
        "",
        'trunk = bench.load_trunk("FOLDER")',
        f'features = bench.embed(trunk, ["photo.jpg"], size={job.size})',
    ]
    if timm and chosen.run is None:
        opened = 'timm.create_model("local-dir:FOLDER", pretrained=True, features_only=True)'
        lines += ["", "import timm", "", f"encoder = {opened}"]
    lines += ["```", ""]
    if filled:
        lines += [
            f"timm's plain network has {len(filled)} tensors that the trunk does not keep ({', '.join(filled[:4])}, ...): they "
            "are random, so take its features.",
            "",
        ]
    size = "" if job.size == PAPER_SIZE else f" at {job.size} px"
    lines += ["## Cite", "", f"The bench: pretext-bench {__version__}{size}. The evaluation it follows: {CITE}.", ""]
    return "\n".join(lines)
