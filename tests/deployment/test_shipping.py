"""Networks sent to another process."""

import multiprocessing
import threading

import pytest
import torch
from torch import nn

from overtone import create_model, deploy
from overtone.deployment.timing.shipping import Shipped


class Tied(nn.Module):
    """Two layers with one weight, in a layout of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.first.weight.data = self.first.weight.data.contiguous(memory_format=torch.channels_last)
        self.second.weight = self.first.weight
        self.register_buffer("factor", torch.tensor(2.0), persistent=False)

    def forward(self, x):
        """(B, 4, H, W) -> the same."""
        return self.second(self.first(x)) * self.factor


def sent(net):
    """The network as it comes out of a pipe."""
    here, there = multiprocessing.Pipe()
    sender = threading.Thread(target=here.send, args=(Shipped(net),))  # a pipe holds little
    sender.start()
    found = there.recv()
    sender.join()
    return found.unpacked()


@pytest.mark.parametrize("name", ["hbonet_x010", "hornet_tiny_7x7"])
def test_the_same_network_comes_out(name):
    net = deploy(create_model(name), 32)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = sent(net.to(torch.bfloat16).to(torch.float32))
    with torch.inference_mode():
        torch.testing.assert_close(found(images), net(images), rtol=0, atol=0)
    assert [p.stride() for p in found.parameters()] == [p.stride() for p in net.parameters()]


def test_tied_weights_stay_tied():
    net = Tied()
    before = {name: (id(value), value.clone()) for name, value in net.state_dict(keep_vars=True).items()}
    found = sent(net)
    assert found.first.weight is found.second.weight
    assert isinstance(found.first.weight, nn.Parameter) and found.first.weight.requires_grad
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(found(x), net(x), rtol=0, atol=0)
    after = net.state_dict(keep_vars=True)
    assert all(id(after[name]) == place and after[name].equal(value) for name, (place, value) in before.items())
