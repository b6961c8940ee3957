"""What the server of `support` imports before it forks children. It must compute nothing: threads do not survive a fork."""

import pytest  # noqa: F401
import torch
import torch._dynamo  # noqa: F401  (torch.optim imports it at its first step)

import lgcli.app
import lgcli.render
import models.api
import models.zoo.aegan
import models.zoo.vae
import support  # noqa: F401

torch.set_num_threads(1)
