# SPDX-License-Identifier: Apache-2.0
"""A small network in training: the losses must be the same, the speed is a FIGURE."""

import time

import torch
from torch import nn

torch.manual_seed(7)
torch.backends.cudnn.deterministic = True
torch.backends.cudnn.benchmark = False
torch.use_deterministic_algorithms(True, warn_only=True)
device = torch.device("cuda")
model = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(64 * 16 * 16, 256),
    nn.ReLU(),
    nn.Linear(256, 10),
).to(device)
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
images = torch.randn(128, 3, 32, 32).to(device)
labels = torch.randint(0, 10, (128,)).to(device)


def step() -> torch.Tensor:
    optimiser.zero_grad(set_to_none=True)
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimiser.step()
    return loss


for index in range(10):
    print("loss %d: %.4f" % (index, step().item()))
torch.cuda.synchronize()
start = time.perf_counter()
STEPS = 200
for _ in range(STEPS):
    loss = step()
torch.cuda.synchronize()
print("FIGURE steps/s %.1f" % (STEPS / (time.perf_counter() - start)))
print("last loss below 0.1: %s" % (loss.item() < 0.1))
big = torch.randn(4096, 4096, device=device)
torch.cuda.synchronize()
start = time.perf_counter()
for _ in range(20):
    product = big @ big
torch.cuda.synchronize()
print("FIGURE matmul/s %.1f" % (20 / (time.perf_counter() - start)))
