"""`bench export`: a pretrained trunk, or a fine-tuned network, as a folder that timm and a model hub open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import completion
from bench.cli.common import add, use
from bench.cli.options import Out, Plugins, checked

EXAMPLE = "bench export cgan_color-voc_seg-0a1b2c3d4e5f --to my-trunk"


def export(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_TRUNK",
            help="The id of a run or of a pretrained trunk, or the beginning of it.",
            autocompletion=completion.completer(completion.runs),
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="The new folder.", callback=checked)],
    out: Out = Path("runs"),
    network: Annotated[
        bool, typer.Option("--network", help="The fine-tuned network of a run that was made with --keep-networks.")
    ] = False,
    licence: Annotated[str, typer.Option("--license", help="The licence that the model card states.")] = "",
    plugin: Plugins = None,
) -> None:
    """Write the trunk of a run as model.safetensors, config.json and a model card.

    timm opens the folder of a timm encoder (timm.create_model("local-dir:FOLDER", pretrained=True)), Python that of every trunk
    (bench.load_trunk("FOLDER")), and `bench run --init LABEL=FOLDER` scores it again, to the bit.
    """
    from bench.experiment import export as exporting

    add(plugin)
    use()
    names = exporting.export(exporting.choose(out, what, network), out, to, licence)
    print(f"wrote {', '.join(names)} in {to}")
