"""What the server of `support` imports before it forks children. It must compute nothing: threads do not survive a fork."""

from __future__ import annotations

import pytest  # noqa: F401
import support  # noqa: F401
import torch
import torch._dynamo  # torch.optim imports it at its first step

import models.api  # noqa: F401
from models.registry import MODELS

torch.set_num_threads(1)
for entry in MODELS.entries().values():
    entry.module()
