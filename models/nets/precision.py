"""Where rounding to half precision would cost more than it saves."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Inside, float32 stays float32 whatever autocast says outside. On the meta device, which computes nothing, there is no autocast."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
