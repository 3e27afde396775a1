"""The most memory that this process had at once: resident on the CPU, of torch's allocator on a GPU."""

import ctypes
from pathlib import Path

from heading import has_gpu


class PeakMemory:
    """Bytes that were in use at most since the last `restart`."""

    def __init__(self):
        import torch

        self._cuda = torch.cuda if has_gpu() else None

    def restart(self):
        """Count from now on."""
        if self._cuda:
            self._cuda.reset_peak_memory_stats()
            return
        ctypes.CDLL(None).malloc_trim(0)  # give back what is free, else it counts as resident
        Path("/proc/self/clear_refs").write_text("5")

    def read(self):
        """The peak in bytes."""
        if self._cuda:
            return self._cuda.max_memory_allocated()
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
