"""BeatGAN in plain PyTorch, as published: networks, training and validation.

What `plain_ray.py` searches with Ray Tune. Nothing here is slowed down on purpose, nothing is
shared with kdsearch, and Ray is not needed.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch import nn

LATENT, BATCH = 50, 64


def encoder(width, outputs):
    layers = [nn.Conv1d(1, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for i in range(4):
        layers += [
            nn.Conv1d(width * 2**i, width * 2 ** (i + 1), 4, 2, 1, bias=False),
            nn.BatchNorm1d(width * 2 ** (i + 1)),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return [*layers, nn.Conv1d(width * 16, outputs, 10, 1, 0, bias=False)]


def decoder(width):
    layers = [
        nn.ConvTranspose1d(LATENT, width * 16, 10, 1, 0, bias=False),
        nn.BatchNorm1d(width * 16),
        nn.ReLU(inplace=True),
    ]
    for i in range(4, 0, -1):
        layers += [
            nn.ConvTranspose1d(width * 2**i, width * 2 ** (i - 1), 4, 2, 1, bias=False),
            nn.BatchNorm1d(width * 2 ** (i - 1)),
            nn.ReLU(inplace=True),
        ]
    return [*layers, nn.ConvTranspose1d(width, 1, 4, 2, 1, bias=False), nn.Tanh()]


class Discriminator(nn.Module):
    def __init__(self, width):
        super().__init__()
        layers = encoder(width, 1)
        self.features = nn.Sequential(*layers[:-1])
        self.classifier = nn.Sequential(layers[-1], nn.Sigmoid())

    def forward(self, x):
        features = self.features(x)
        return self.classifier(features).view(-1), features


def generator(width):
    return nn.Sequential(*encoder(width, LATENT), *decoder(width))


def initialise(layer):
    if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
        nn.init.xavier_normal_(layer.weight)
    elif isinstance(layer, nn.BatchNorm1d):
        layer.weight.data.normal_(1.0, 0.02)
        layer.bias.data.fill_(0)


def scores_of(network, x, device):
    with torch.no_grad():
        parts = [((network(b.to(device)) - b.to(device)) ** 2).mean((1, 2)).cpu() for b in x]
    return torch.cat(parts).numpy()


def validate(network, loader, labels, device):
    """As published: every threshold is tried."""
    scores = scores_of(network, (batch for batch, _ in loader), device)
    scores = (scores - scores.min()) / (scores.max() - scores.min())
    best_f1 = max(f1_score(labels, scores >= t) for t in np.unique(scores))
    return roc_auc_score(labels, scores), average_precision_score(labels, scores), best_f1


def quick_auc(network, loader, labels, device):
    """As a good user has it: in evaluation mode, and the area alone."""
    network.eval()
    scores = scores_of(network, (batch for batch, _ in loader), device)
    network.train()
    return roc_auc_score(labels, scores)


def new_players(width, lr, device):
    """Both networks and their optimisers."""
    g, d = generator(width).to(device), Discriminator(width).to(device)
    g.apply(initialise)
    d.apply(initialise)
    g_adam = torch.optim.Adam(g.parameters(), lr=lr, betas=(0.5, 0.999))
    d_adam = torch.optim.Adam(d.parameters(), lr=lr, betas=(0.5, 0.999))
    return g, d, g_adam, d_adam


def train(players, batches, device, w_adv=1.0, distilled=0.0):
    """Train on each mini-batch, as published; yields after each."""
    g, d, g_adam, d_adam = players
    bce, mse = nn.BCELoss(), nn.MSELoss()
    for batch, _ in batches:
        real = batch.to(device)
        ones, zeros = (torch.full((len(real),), v, device=device) for v in (1.0, 0.0))
        # Discriminator
        d.zero_grad()
        judged_real, _ = d(real)
        fake = g(real)
        judged_fake, _ = d(fake)
        loss_d = bce(judged_real, ones) + bce(judged_fake, zeros)
        loss_d.backward()
        d_adam.step()
        # Generator
        g.zero_grad()
        fake = g(real)
        _, features_fake = d(fake)
        _, features_real = d(real)
        adversarial = mse(features_fake, features_real)
        loss_g = mse(fake, real) + w_adv * adversarial + distilled
        loss_g.backward()
        g_adam.step()
        if loss_d.item() < 5e-6:
            d.apply(initialise)
        yield
