"""Building blocks of the networks."""

from __future__ import annotations

import torch

from models.nets.conv import ToMaps, ToVector


def test_flattening_and_back_is_the_identity_and_copies_nothing_in_channels_last() -> None:
    maps = torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last)
    vector = ToVector()(maps)
    again = ToMaps(4, 5, 6)(vector)
    assert vector.shape == (3, 120)
    assert torch.equal(again, maps)
    assert again.is_contiguous(memory_format=torch.channels_last)
    assert again.data_ptr() == vector.data_ptr() == maps.data_ptr()
