"""The engines by the name of their launcher; each is imported only when it is used."""

from __future__ import annotations

from bench.launch.engine import Engine


def engine_class(launcher: str) -> type[Engine]:
    """Return the class of an engine by its launcher's name: local, slurm or ray."""
    if launcher == "slurm":
        from bench.launch.slurm import Slurm

        return Slurm
    if launcher == "ray":
        from bench.launch.ray_engine import Ray

        return Ray
    from bench.launch.local import Local

    return Local
