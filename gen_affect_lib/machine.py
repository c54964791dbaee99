"""A description of this machine, to report with timings, and the memory that processes use."""

import os
import platform
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil


def cores() -> int:
    """How many cores this process may use; a container or a scheduler may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict:
    """Processor, cores, memory in GiB, GPU and versions, for the reports of timings."""
    try:
        torch_version = version("torch")
    except PackageNotFoundError:
        torch_version = None
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "gpu": gpu_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch_version,
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def free_memory(device) -> int:
    """Bytes that are free on a torch device; on the CPU, what programs can still get without swapping."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


class PeakMemory:
    """The peak resident memory of all descendants of a process while the `with` block runs.

    The process itself is excluded: it is papermill, and the memory of its kernel is measured.

    Args:
        pid: the process.
        every: seconds between two samples.
    Attributes:
        peak: bytes.
    """

    def __init__(self, pid: int, every: float = 0.2):
        self.peak = 0
        self._root = psutil.Process(pid)
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.is_set():
            total = 0
            try:
                for child in self._root.children(recursive=True):
                    try:
                        total += child.memory_info().rss
                    except psutil.Error:
                        pass  # the process ended between the two calls
            except psutil.Error:
                return
            self.peak = max(self.peak, total)
            self._stop.wait(self._every)
