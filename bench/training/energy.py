"""Energy that the device says it used, in joules: NVML's counter of a GPU, RAPL's of a processor; None where neither tells."""

from __future__ import annotations

from pathlib import Path

import torch

RAPL = Path("/sys/class/powercap")


class Meter:
    """Counts joules from the moment it is made."""

    def __init__(self, device: torch.device, rapl: Path = RAPL) -> None:
        self.device, self.rapl = device, rapl
        self.before = self._read()

    def joules(self) -> float | None:
        """Return the energy used so far; a processor's counter covers all that ran on it."""
        now = self._read()
        if not self.before or now.keys() != self.before.keys():
            return None
        return sum((value - self.before[name][0]) % limit for name, (value, limit) in now.items())

    def _read(self) -> dict[str, tuple[float, float]]:
        """Return each counter's joules and where it begins again at zero."""
        return self._gpu() if self.device.type == "cuda" else self._processor()

    def _gpu(self) -> dict[str, tuple[float, float]]:
        try:
            import pynvml

            pynvml.nvmlInit()
            identity = str(torch.cuda.get_device_properties(self.device).uuid)
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{identity}")
            return {"gpu": (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, float("inf"))}
        except Exception:  # no NVML, no right to read it, or a GPU that does not count
            return {}

    def _processor(self) -> dict[str, tuple[float, float]]:
        found = {}
        for zone in sorted(self.rapl.glob("intel-rapl:[0-9]")):
            try:
                value, limit = (int((zone / name).read_text()) / 1e6 for name in ("energy_uj", "max_energy_range_uj"))
            except (OSError, ValueError):
                return {}
            found[zone.name] = (value, limit)
        return found
