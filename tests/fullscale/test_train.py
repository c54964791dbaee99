"""Training an adapter: the base stays frozen, it learns, a killed run resumes to the bit, two processes are one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gen_affect_lib.errors import UserError
from gen_affect_lib.flow import RectifiedFlow, sample_sigma, timestep
from gen_affect_lib.fullscale import train
from gen_affect_lib.fullscale.adapter import WAYS, lora_weights
from gen_affect_lib.fullscale.train import AdapterSizes, make_adapter, make_trainer
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.recipe import TrainingConfig
from gen_affect_lib.training.checkpoint import read_checkpoint
from tests.fullscale.tiny import SIZES, inputs, opened, prepared, tiny_adapter, tiny_base, tiny_trainer
from tests.fullscale.tiny_killed import MOMENTS, STEPS

PROGRAM = Path(__file__).with_name("tiny_killed.py")


@pytest.mark.parametrize("way, rank", [("tokens", 0), ("decoupled", 0), ("both", 2)])
def test_the_base_is_frozen_and_unchanged_and_not_in_the_checkpoint(tmp_path, way, rank):
    trainer = tiny_trainer(tmp_path, way, rank)
    base = trainer.networks["model"]
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    trainer.fit(max_steps=3)
    changed = {name for name, tensor in base.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(lora_weights(base))
    tensors, _ = read_checkpoint(tmp_path / "last.safetensors")
    kept = {name.removeprefix("model.") for name in tensors if name.startswith("model.")}
    assert kept == set(lora_weights(base))
    adapter = {name.removeprefix("condition_encoder.") for name in tensors if name.startswith("condition_encoder.")}
    frozen = {name for name, p in trainer.networks["condition_encoder"].named_parameters() if not p.requires_grad}
    assert adapter == set(trainer.networks["condition_encoder"].state_dict()) - frozen


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, PROGRAM, folder], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(MOMENTS)))
def test_a_killed_training_of_an_adapter_resumes_to_the_bit(killed, number):
    folder, signals = killed
    assert set(signals.values()) == {signal.SIGKILL}
    whole, resumed = (read_checkpoint(folder / name / "last.safetensors") for name in ("whole", f"{number}"))
    assert whole[1]["step"] == resumed[1]["step"] == STEPS
    assert whole[0].keys() == resumed[0].keys()
    assert all(torch.equal(whole[0][name], resumed[0][name]) for name in whole[0])


def test_two_processes_train_as_one(killed, launch, tmp_path):
    done = launch(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr
    main, other = (json.loads((tmp_path / f"{n}.json").read_text()) for n in range(2))
    assert main["processes"] == 2 and main == other, "both end with the same weights"
    whole, together = (read_checkpoint(f / "last.safetensors") for f in (killed[0] / "whole", tmp_path / "together"))
    assert whole[0].keys() == together[0].keys()
    for name, tensor in whole[0].items():
        if "random" not in name:
            torch.testing.assert_close(together[0][name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    losses = [[row.get("training/loss") for row in state["history"]] for _, state in (whole, together)]
    assert losses[0] == [pytest.approx(loss, rel=1e-4) if loss else loss for loss in losses[1]]


def test_processes_exchange_gradients_once_a_step(tmp_path, monkeypatch):
    trainer = tiny_trainer(tmp_path, accumulation=3)
    entered = []
    no_sync = trainer.processes.no_sync

    def counted(model):
        entered.append(model)
        return no_sync(model)

    monkeypatch.setattr(trainer.processes, "no_sync", counted)
    trainer.learn(1e-3)
    assert entered == [trainer.objective.distributed] * 2


class Patterns:
    """Each target is one of four patterns, which follows from identity and expression; texts are zeros."""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.identities = torch.randn(2, 1, 512, generator=generator)
        self.expressions = torch.randn(2, 48, generator=generator)
        self.patterns = torch.randn(2, 2, 4, 1, 1, generator=generator).expand(2, 2, 4, 8, 8)

    def batch(self, step, size):
        who, what = torch.randint(2, (2, size), generator=torch.Generator().manual_seed(step))
        batch = {"identity": self.identities[who], "expression": self.expressions[what]}
        batch |= {"text": torch.zeros(size, 24, 20), "pooled": torch.zeros(size, 12)}
        return batch | {"target": self.patterns[who, what]}

    def validation(self, size):
        return self.batch(10**6, size)


@pytest.fixture(scope="module")
def drawing_base():
    """A base that was trained to draw the patterns without being told which, and is frozen then."""
    torch.manual_seed(0)
    base, data, flow = MMDiT(**SIZES), Patterns(), RectifiedFlow()
    optimizer = torch.optim.AdamW(base.parameters(), lr=1e-2)
    for step in range(150):
        batch = data.batch(step, 32)

        def network(noisy, sigma):
            return base(noisy, batch["text"], batch["pooled"], timestep(sigma))

        noise = torch.randn_like(batch["target"])
        optimizer.zero_grad()
        flow.loss(network, batch["target"], noise, sample_sigma(32)).mean().backward()
        optimizer.step()
    return base.eval()


@pytest.mark.parametrize("way", WAYS)
def test_it_learns_who_and_which_expression_over_a_base_that_knows_neither(drawing_base, tmp_path, way):
    torch.manual_seed(1)
    adapter, data = make_adapter(drawing_base, AdapterSizes(way, width=16)), Patterns()
    config = TrainingConfig(batch_size=16, warmup_steps=5, learning_rate=2e-2, steps=160, validation_size=8)
    trainer = make_trainer(drawing_base, adapter, data, config, tmp_path, {})
    batch = data.batch(10**6, 64)
    noise = torch.randn(batch["target"].shape, generator=torch.Generator().manual_seed(7))
    sigma = torch.full((64,), 0.8)

    def loss(**changed):
        with torch.no_grad():
            return trainer.objective.loss(batch | changed, noise, sigma).mean().item()

    before = loss()
    trainer.fit()
    right = loss()
    assert right < 0.95 * before
    who = (batch["identity"] == data.identities[0]).flatten(1).all(1).long()
    what = (batch["expression"] == data.expressions[0]).all(1).long()
    assert right < 0.97 * loss(identity=data.identities[who])
    assert right < 0.97 * loss(expression=data.expressions[what])


def test_an_adapter_is_trained_on_prepared_photographs_and_loads_again(tmp_path):
    made, base = prepared(tmp_path), tiny_base()
    config = TrainingConfig(batch_size=2, steps=3, warmup_steps=1, validation_size=2)
    sizes = train.AdapterSizes("both", width=16, rank=2)
    folder = train.train_adapter(base, "tiny", made, config, sizes, tmp_path / "run")
    other = tiny_base()
    adapter, about = train.load_adapter(folder, other)
    assert about["base"] == "tiny" and about["size"] == [64, 64] and about["people"] == 3 and about["steps"] == 3
    assert len(about["landmarks"]) == 9 and about["recognizer"] == made.index["recognizer"]
    assert lora_weights(other).keys() == lora_weights(base).keys() != set()
    given = inputs(base)
    text, _, _ = adapter(given["identity"], given["expression"], given["text"], given["pooled"])
    assert not torch.equal(text, given["text"])
    # the same command again finds the training finished and changes nothing
    again = train.train_adapter(tiny_base(), "tiny", made, config, sizes, tmp_path / "run", resume=True)
    assert torch.equal(train.load_adapter(again, tiny_base())[0].tokens.to_text.weight, adapter.tokens.to_text.weight)
    with pytest.raises(UserError, match="base was tiny and is now another"):
        train.train_adapter(tiny_base(), "another", made, config, sizes, tmp_path / "run", resume=True)


def test_a_base_in_bfloat16_trains_an_adapter_in_float32_on_the_cpu(tmp_path):
    trainer = tiny_trainer(tmp_path)
    base = trainer.networks["model"].to(torch.bfloat16)
    trainer.objective.bfloat16 = True
    trainer.fit(max_steps=2)
    assert base.dtype == torch.bfloat16
    assert {p.dtype for p in trainer.parameters.values()} == {torch.float32}
    assert all(row["training/loss"] > 0 for row in trainer.history if "training/loss" in row)


def test_recomputed_activations_give_the_same_step(tmp_path):
    plain, saving = tiny_trainer(tmp_path / "plain"), tiny_trainer(tmp_path / "saving")
    saving.networks["model"].enable_gradient_checkpointing()
    for trainer in (plain, saving):
        trainer.learn(1e-2)
    for name, parameter in plain.parameters.items():
        torch.testing.assert_close(saving.parameters[name], parameter, rtol=1e-4, atol=1e-6)


def test_the_precision_is_what_accelerate_says(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert train.precision() == torch.bfloat16 and train.precision("no") == torch.float32
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(UserError, match="'fp16' is not supported for training: give bf16 or no"):
        train.precision()
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    assert train.precision() in train.PRECISIONS.values()


def test_a_damaged_adapter_and_none_at_all_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no adapter.*outputs/fullscale/adapter"):
        train.load_adapter(tmp_path, tiny_base())
    base = tiny_base()
    train.save_adapter(opened(tiny_adapter(base)), base, tmp_path / "adapter", {})
    with pytest.raises(UserError, match="num_layers 3, and this base has 2"):
        train.load_adapter(tmp_path / "adapter", tiny_base(num_layers=2, dual_attention_layers=()))


def test_photographs_of_another_base_are_refused(tmp_path):
    with pytest.raises(UserError, match="prepared with 4 channels, and the base has 8: prepare them with this base"):
        train.train_adapter(
            tiny_base(in_channels=8),
            "tiny",
            prepared(tmp_path),
            TrainingConfig(steps=1),
            train.AdapterSizes(),
            tmp_path,
        )
