"""Energy in joules, as the device reports it: by NVML for a GPU, by RAPL for a processor; None where neither reports any."""

from __future__ import annotations

from pathlib import Path

import torch

RAPL = Path("/sys/class/powercap")


class Meter:
    """Measures the joules that a device uses from the meter's creation on."""

    def __init__(self, device: torch.device, rapl: Path = RAPL) -> None:
        self.device, self.rapl = device, rapl
        self.before = self._read()

    def joules(self) -> float | None:
        """Return the energy used since then, by all programs on the device; None where the device does not report it."""
        now = self._read()
        if not self.before or now.keys() != self.before.keys():
            return None
        return sum((value - self.before[name][0]) % limit for name, (value, limit) in now.items())

    def _read(self) -> dict[str, tuple[float, float]]:
        """Return for each counter, by name, its joules and the value at which it wraps to zero; {} where there is none."""
        return self._gpu() if self.device.type == "cuda" else self._processor()

    def _gpu(self) -> dict[str, tuple[float, float]]:
        try:
            import pynvml

            pynvml.nvmlInit()
            identity = str(torch.cuda.get_device_properties(self.device).uuid)
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{identity}")
            return {"gpu": (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, float("inf"))}
        except Exception:  # no NVML, no permission to read it, or a GPU without an energy counter
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
