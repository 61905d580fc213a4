from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from beatgan_cases import CPU, TINY
from torch import Tensor, nn
from torch.nn import functional

from kdsearch.methods.beatgan.distillation import distillation_terms
from kdsearch.methods.beatgan.networks import (
    Discriminator,
    Generator,
    NetworkState,
    build,
    initial_state,
)
from kdsearch.methods.beatgan.optimiser import StackedAdam
from kdsearch.methods.beatgan.stacked import Parameters, StackedDiscriminator, StackedGenerator
from kdsearch.methods.beatgan.step import Players, Terms, Weights, train_step
from kdsearch.methods.protocol import Compute

LR, W_ADV = 1e-3, 0.7


def initial_states() -> tuple[NetworkState, NetworkState]:
    rng = torch.Generator().manual_seed(3)
    return initial_state(Generator, TINY, rng), initial_state(Discriminator, TINY, rng)


def networks() -> tuple[Generator, Discriminator]:
    both = build(Generator, TINY), build(Discriminator, TINY)
    for network, state in zip(both, initial_states(), strict=True):
        network.load_state_dict(state)
    return both


def mini_batches(steps: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(4)
    return [torch.rand(8, 1, 32, generator=rng, dtype=torch.float64) for _ in range(steps)]


def published_steps(batches: list[Tensor]) -> tuple[Generator, Discriminator]:
    """The published step: sigmoid, the generator run twice, nothing detached or frozen."""
    generator, discriminator = (network.double() for network in networks())
    adam_g, adam_d = (
        torch.optim.Adam(network.parameters(), lr=LR, betas=(0.5, 0.999))
        for network in (generator, discriminator)
    )
    for x in batches:
        discriminator.zero_grad()
        real, fake = (discriminator(v).sigmoid() for v in (x, generator(x)))
        entropy = functional.binary_cross_entropy
        (
            entropy(real, torch.ones_like(real)) + entropy(fake, torch.zeros_like(fake))
        ).backward()
        adam_d.step()
        generator.zero_grad()
        fake = generator(x)
        features = discriminator.features(fake), discriminator.features(x)
        loss = functional.mse_loss(fake, x) + W_ADV * functional.mse_loss(*features)
        loss.backward()
        adam_g.step()
    return generator, discriminator


def players(compute: Compute = CPU, dtype: torch.dtype = torch.float32) -> Players:
    generator = StackedGenerator(TINY, 1, compute, dtype)
    discriminator = StackedDiscriminator(TINY, 1, compute, dtype)
    networks = generator, discriminator
    for network, state in zip(networks, initial_states(), strict=True):
        network.put(0, state)
    adams = [StackedAdam(network, 0.5) for network in networks]
    for adam in adams:
        adam.lr.fill_(LR)
    return Players(*networks, *adams)


def one_step(
    *targets: str,
    alpha: float = 0.5,
    temperature: float = 1.0,
    compute: Compute = CPU,
    term_weights: Mapping[str, float] | None = None,
) -> tuple[Players, Terms]:
    both, rows = players(compute), torch.arange(8).unsqueeze(1)
    taught = {
        "score": torch.linspace(0.01, 0.03, 8).numpy(),
        "reconstruction": torch.zeros(8, 1, 32).numpy(),
    }
    of_terms = {name: torch.tensor([(term_weights or {}).get(name, 1.0)]) for name in targets}
    terms = train_step(
        both,
        rows,
        mini_batches(1)[0].float().unsqueeze(1),
        weights=Weights(torch.tensor([W_ADV]), torch.tensor([alpha]), of_terms),
        distillation=distillation_terms(targets, taught, torch.tensor([temperature])),
    )
    return both, terms


def first_moment(both: Players) -> Tensor:
    """After one step Adam's first moment is half the gradient."""
    return torch.cat([v.flatten() for v in both.generator_adam.take(0)["exp_avg"].values()])


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in network.named_parameters()}


def values(stack: Parameters) -> dict[str, Tensor]:
    return stack.named(stack.values[0])


def test_the_lean_step_is_the_published_step() -> None:
    batches, both = mini_batches(3), players(dtype=torch.float64)
    for x in batches:
        train_step(
            both,
            torch.arange(8).unsqueeze(1),
            x.unsqueeze(1),
            weights=Weights(torch.tensor([W_ADV]).double(), torch.zeros(1).double(), {}),
            distillation={},
        )
    generator, discriminator = published_steps(batches)
    torch.testing.assert_close(values(both.generator), parameters(generator))
    torch.testing.assert_close(values(both.discriminator), parameters(discriminator))


def test_terms_add_up() -> None:
    _, terms = one_step("score", alpha=0.5)
    total = terms["reconstruction"] + W_ADV * terms["feature_matching"]
    torch.testing.assert_close(terms["generator"], total + 0.5 * terms["distillation"])
    assert {name: tuple(term.shape) for name, term in terms.items()} == dict.fromkeys(
        ["reconstruction", "feature_matching", "distillation", "generator", "discriminator"],
        (1,),
    )
    assert not any(term.requires_grad for term in terms.values())


def test_several_targets_add_up() -> None:
    base, one, other = one_step(), one_step("score"), one_step("reconstruction")
    both, terms = one_step("score", "reconstruction")
    for name, (_, alone) in (("score", one), ("reconstruction", other)):
        torch.testing.assert_close(terms[f"distillation.{name}"], alone["distillation"])
    distilled = one[1]["distillation"] + other[1]["distillation"]
    torch.testing.assert_close(terms["distillation"], distilled)
    torch.testing.assert_close(terms["generator"], base[1]["generator"] + 0.5 * distilled)
    first, second, none = (first_moment(step[0]) for step in (one, other, base))
    torch.testing.assert_close(first_moment(both), first + second - none, rtol=1e-3, atol=1e-6)


def test_distillation_reaches_the_student_and_moves_with_alpha_and_temperature() -> None:
    base = first_moment(one_step()[0])
    pulled = first_moment(one_step("score")[0]) - base
    harder = first_moment(one_step("score", alpha=1.0)[0]) - base
    warmer = first_moment(one_step("score", temperature=4.0)[0]) - base
    assert pulled.norm() > 1e-3 * base.norm()
    torch.testing.assert_close(harder, 2 * pulled, rtol=1e-2, atol=1e-5)
    assert (warmer - pulled).norm() > 0.1 * pulled.norm()


def test_each_term_counts_with_its_own_weight() -> None:
    both = "score", "reconstruction"
    _, terms = one_step(*both, term_weights={"score": 1.0, "reconstruction": 0.3})
    expected = terms["distillation.score"] + 0.3 * terms["distillation.reconstruction"]
    torch.testing.assert_close(terms["distillation"], expected)
    base, whole, part, without = (
        first_moment(one_step(*both, term_weights={"reconstruction": weight})[0])
        for weight in (0.0, 1.0, 0.3, 0.0)
    )
    assert torch.equal(base, without)
    torch.testing.assert_close(part - base, 0.3 * (whole - base), atol=1e-6, rtol=1e-3)
    assert (whole - base).abs().max() > 1e-4


@pytest.mark.parametrize("target", ["published", "published_scores"])
def test_published_distillation_changes_the_loss_and_nothing_else(target: str) -> None:
    base, inert = one_step(), one_step(target, alpha=5.0)
    assert inert[1]["generator"] > base[1]["generator"]
    assert torch.equal(first_moment(base[0]), first_moment(inert[0]))


def test_bf16_stays_close_and_loses_nothing_to_the_losses() -> None:
    _, full = one_step("score")
    _, half = one_step("score", compute=Compute("cpu", "bf16"))
    for name, term in half.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(full[name].item(), rel=0.1), name
