"""How far photographs are off what a network's batch norms expect, by size and normalisation: where the audit's limits come from.

    python -m tests.benchmarks.audit timm:tf_efficientnet_lite0 WEIGHTS FOLDER --own half

WEIGHTS is a file that was trained with the normalisation `--own`, on photographs like those in FOLDER. The limits in
bench/models/audit.py lie between the lines of the network's own normalisation and those of the others. The last line of a size
has tensors of the same kind and shape exchanged among each other, which is what loading into wrong places does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from bench.contract import Preprocessing
from bench.data import packs
from bench.data.dataset import decode
from bench.initialisation import USUAL
from bench.models import audit, matching, weights_file
from bench.models.trunk import TrunkName, make_trunk

SIZES = (64, 128, 160, 224, 384)
IMAGES = 64


def shuffled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of the same kind, such as `running_var`, and shape in each other's places."""
    places: dict[tuple[str, torch.Size], list[str]] = {}
    for name, tensor in state.items():
        places.setdefault((name.rpartition(".")[2], tensor.shape), []).append(name)
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for names in places.values():
        order = torch.randperm(len(names), generator=generator).tolist()
        found |= {name: state[names[place]].clone() for name, place in zip(names, order, strict=True)}
    return found


def photographs(folder: Path, size: int) -> list[Tensor]:
    """Return batches of images uint8 (N, 3, size, size), spread over a folder's files in the order of their names."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = paths[:: max(1, len(paths) // IMAGES)][:IMAGES]
    rule = packs.PackRule(size=size, resize="squash")
    images = [torch.from_numpy(packs.fit(decode(path), rule, size)[0]).permute(2, 0, 1) for path in chosen]
    return list(torch.split(torch.stack(images), 32))


def main() -> None:
    """Print a line for each size and normalisation."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.audit", description=__doc__.partition("\n")[0])
    parser.add_argument("trunk", help="such as timm:tf_efficientnet_lite0")
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--own", choices=USUAL, required=True, help="the normalisation that the weights were trained with")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="sides of the images in pixels")
    asked = parser.parse_args()
    name = TrunkName.parse(f"{asked.trunk},preprocessing=rgb")
    trunk = make_trunk(str(name))
    found = matching.match(weights_file.read(asked.weights), trunk, name)
    print(f"{found.summary}\n{'size':>5} {'normalisation':<14} first shift, scale   worst shift, scale   cosine  problem")
    for size in asked.sizes:
        images = photographs(asked.folder, size)
        for normalize in (asked.own, *(other for other in USUAL if other != asked.own), "shuffled"):
            matching.load(found, trunk)
            if normalize == "shuffled":
                trunk.down.load_state_dict(shuffled(trunk.down.state_dict()))
            trunk.preprocessing = Preprocessing("rgb", *USUAL[asked.own if normalize == "shuffled" else normalize])
            one = audit.measure(trunk, images)
            print(
                f"{size:>5} {normalize:<14} {one['first_shift']:11.3f} {one['first_scale']:7.3f} {one['shift']:12.3f} "
                f"{one['scale']:8.3f} {one['cosine'] if one['cosine'] is not None else float('nan'):9.3f}  "
                f"{audit.problem(trunk, images, one)[:60]}"
            )


if __name__ == "__main__":
    main()
