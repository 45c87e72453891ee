"""What a time depends on besides the method."""

import platform
from pathlib import Path
from typing import Any

import torch
import transformers

CPU_INFO = Path("/proc/cpuinfo")


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def surroundings(model: Any) -> dict[str, Any]:
    """What a time depends on besides the method."""
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else processor_name()
    return {
        "device": device,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def processor_name() -> str:
    """The CPU's name where Linux tells it, else its architecture."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
