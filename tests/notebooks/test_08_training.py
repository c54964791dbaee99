"""What notebook 08 builds by hand is what the library does: the schedule, the average, and a whole step."""

import copy
import math

import pytest
import torch
from torch import nn

from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.flow import RectifiedFlow
from gen_affect_lib.profiles import PROFILES
from gen_affect_lib.recipe import TrainingConfig
from gen_affect_lib.training import assembly
from gen_affect_lib.training.trainer import Trainer

BUILT = ("learning_rate", "update_average", "learn")


@pytest.fixture(scope="module")
def by_hand(definitions) -> dict:
    return definitions("08_training", BUILT, torch=torch, math=math, nn=nn)


class Pairs:
    def batch(self, step, size):
        generator = torch.Generator().manual_seed(step)
        return {
            "identity": torch.randn(size, 2, 512, generator=generator),
            "target": torch.randn(size, 16, 4, 4, generator=generator),
            "expression": torch.rand(size, 48, generator=generator),
        }


@pytest.fixture
def trainer(tmp_path):
    torch.manual_seed(0)
    networks = assembly.make_networks(PROFILES["smoke"], LatentCodec(**vars(PROFILES["smoke"].codec)), 64)
    networks = [network.cpu() for network in networks]
    nn.init.normal_(networks[0].proj_out.weight, std=0.1)  # or the first step would reach little else
    return Trainer(TrainingConfig(batch_size=6, warmup_steps=3), *networks, RectifiedFlow(), Pairs(), tmp_path)


@pytest.mark.parametrize("step, used", [(0, 0.0), (2, 0.001), (50, 0.5), (999, 0.999)])
def test_the_learning_rate_is_the_same(by_hand, trainer, step, used):
    trainer.step, config = step, trainer.config
    mine = by_hand["learning_rate"](step, used, config.learning_rate, config.warmup_steps, config.final_learning_rate)
    assert mine == pytest.approx(trainer.learning_rate(used))


def test_steps_end_at_the_same_weights_and_averages(by_hand, trainer):
    config = trainer.config
    twins = copy.deepcopy(trainer.networks["model"]), copy.deepcopy(trainer.networks["condition_encoder"])
    parameters = [p for network in twins for p in network.parameters()]
    average = [p.detach().clone() for p in parameters]
    matrices, others = [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=config.weight_decay)
    started = [p.detach().clone() for p in parameters]
    for step in range(4):
        trainer.step = step
        rate = trainer.learning_rate(step / 4)
        by_hand["learn"](*twins, optimizer, average, trainer.objective.draw(step), rate, step, config.clip_norm)
        trainer.learn(rate)
    for mine, theirs in ((parameters, trainer.parameters), (average, trainer.average)):
        for a, b in zip(mine, theirs.values()):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-3)
    moved = max((a - b).abs().max().item() for a, b in zip(parameters, started))
    assert moved > 50 * 2e-5, "too little has moved for the comparison to mean anything"
