"""What one device can compute at most, from its maker's data sheet: dense matrix products, no sparsity."""

from __future__ import annotations

import re

from cami2v.training.engine import EngineSettings, Precision

# Pattern of `torch.cuda.get_device_name`; TFLOP/s in bf16 or fp16 with fp32 sums, in TF32, in fp32. The first match
# counts.
_PEAKS: tuple[tuple[str, float, float, float], ...] = (
    (r"H200\b(?! NVL)", 989, 494, 67),
    (r"H100 PCIe", 756, 378, 51),
    (r"H100 NVL", 835, 417, 60),
    (r"H100\b", 989, 494, 67),
    (r"A[18]00\b", 312, 156, 19.5),
    (r"L40S\b", 362, 183, 91.6),
    (r"A40$", 149.7, 74.8, 37.4),
    (r"RTX 4090$", 165.2, 82.6, 82.6),
    (r"RTX 3090$", 71, 35.6, 35.6),
)


def peak_flops(device_name: str, engine: EngineSettings) -> float | None:
    """Return operations per second in the format the engine multiplies in; None for a device or share not listed."""
    for pattern, half, tf32, full in _PEAKS:
        if re.search(pattern, device_name) and "MIG" not in device_name:
            if engine.precision is not Precision.FP32:
                return half * 1e12
            return (tf32 if engine.allow_tf32 else full) * 1e12
    return None
