import copy

import pytest
import timm.optim.muon
import torch
from torch import nn

from overtone.engine import muon
from overtone.engine.muon import QUINTIC, Muon, orthogonalized

SETTINGS = {"lr": 0.05, "weight_decay": 0.01, "momentum": 0.9, "nesterov": True, "betas": (0.9, 0.99), "eps": 1e-8}


@pytest.mark.parametrize("shape", [(24, 240), (3, 24, 240), (240, 24), (24, 24), (24, 30), (1, 6)])
def test_the_iteration_of_square_matrices_is_that_of_the_wide_one(shape):
    torch.manual_seed(0)
    decreasing = torch.diag(torch.logspace(0, -4, shape[-1], dtype=torch.float64))
    matrices = torch.randn(shape, dtype=torch.float64) @ decreasing
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True)
    for a, b, c in QUINTIC:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    torch.testing.assert_close(orthogonalized(matrices.float()).double(), x, rtol=0, atol=1e-4)


def test_singular_values_come_near_one_and_a_zero_gradient_stays_zero():
    matrix = torch.randn(32, 288, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalized(matrix))
    assert values.min() > 0.7 and values.max() < 1.3
    assert torch.equal(orthogonalized(torch.zeros(4, 36)), torch.zeros(4, 36))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))


def step(model, optimizer, seed):
    images = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), torch.arange(6) % 5).backward()
    optimizer.step()


def test_steps_are_those_of_timm_in_float32_and_take_up_its_state(monkeypatch):
    def exact(matrix, steps, coefficients, **_):
        return iteration(matrix, steps, coefficients, dtype=torch.float32)

    iteration = timm.optim.muon.zeropower_via_newtonschulz
    monkeypatch.setattr(timm.optim.muon, "zeropower_via_newtonschulz", exact)
    one, other = network(), network()
    ours, theirs = Muon(one.parameters(), **SETTINGS), timm.optim.muon.Muon(other.parameters(), **SETTINGS)
    step(one, ours, 0)
    step(other, theirs, 0)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    one.load_state_dict(other.state_dict())
    started = {name: value.clone() for name, value in one.named_parameters()}
    step(one, ours, 1)
    step(other, theirs, 1)
    for (name, mine), its in zip(one.named_parameters(), other.parameters(), strict=True):
        moved, expected = mine - started[name], its - started[name]
        assert (moved - expected).norm() < 1e-4 * expected.norm(), name
        assert mine.grad is not None


def test_a_tall_matrix_moves_as_its_blocks_do(monkeypatch):
    monkeypatch.setattr(muon, "_ROWS", 4)
    generator = torch.Generator().manual_seed(2)
    start, grad = torch.randn(8, 6, 3, 3, generator=generator), torch.randn(8, 6, 3, 3, generator=generator)

    def moved(values, gradient):
        parameter = nn.Parameter(values.clone())
        parameter.grad = gradient.clone()
        Muon([parameter], **SETTINGS).step()
        return parameter.detach()

    halves = [moved(values, gradient) for values, gradient in zip(start.split(4), grad.split(4), strict=True)]
    torch.testing.assert_close(moved(start, grad), torch.cat(halves), rtol=0, atol=1e-6)
    monkeypatch.setattr(muon, "_ROWS", 8)
    assert (moved(start, grad) - torch.cat(halves)).abs().max() > 1e-3
