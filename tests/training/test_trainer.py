"""The loop takes the steps that it says, and no kill, full disk or damaged file changes where a run ends."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from gen_affect_lib.errors import UserError
from gen_affect_lib.flow import RectifiedFlow, interpolate
from gen_affect_lib.recipe import TrainingConfig
from gen_affect_lib.training import checkpoint, logbook, loop
from gen_affect_lib.training.checkpoint import read_checkpoint, read_last_checkpoint, write_checkpoint
from gen_affect_lib.training.codec import face_weight
from gen_affect_lib.training.trainer import Trainer

TINY = Path(__file__).with_name("tiny_training.py")
spec = importlib.util.spec_from_file_location("tiny_training", TINY)
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
tiny_trainer, StopsAtStep7 = tiny.tiny_trainer, tiny.StopsAtStep7


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.networks.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


# A killed run


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, TINY, folder], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.parametrize("moment", [*tiny.MOMENTS, "again and again"])
def test_a_run_killed_at_any_moment_ends_bit_identical_to_one_never_interrupted(killed, moment):
    folder, ended = killed
    assert ended[moment]["signal"] == signal.SIGKILL
    whole, whole_state = read_checkpoint(folder / "whole" / "last.safetensors")
    resumed, resumed_state = read_checkpoint(folder / ended[moment]["folder"] / "last.safetensors")
    assert whole_state["step"] == resumed_state["step"] == tiny.STEPS
    assert_equal(whole, resumed)
    curve = [row["validation/sigma_0.5"] for row in whole_state["history"] if "validation/sigma_0.5" in row]
    assert curve == [row["validation/sigma_0.5"] for row in resumed_state["history"] if "validation/sigma_0.5" in row]


def test_a_kill_while_saving_never_leaves_a_half_checkpoint_under_a_name_that_is_read(killed):
    _, ended = killed
    assert ended["in the middle of the first file"]["left"] == ["unfinished.safetensors"]
    assert ended["between two renamings"]["left"] == ["previous.safetensors", "unfinished.safetensors"]


def test_a_checkpoint_holds_everything_and_nothing_is_pickled(tmp_path, monkeypatch):
    monkeypatch.setattr("pickle.dumps", lambda *_: pytest.fail("pickled"))
    monkeypatch.setattr(torch, "save", lambda *_: pytest.fail("pickled"))
    trainer = tiny_trainer(tmp_path)
    trainer.fit(max_steps=6)
    tensors, state = read_checkpoint(tmp_path / "last.safetensors")
    for name in ("model.enter.weight", "model.batches_seen", "condition_encoder.identity.bias", "random.cpu"):
        assert name in tensors
    for name in trainer.parameters:
        assert {f"average.{name}", f"optimizer.{name}.exp_avg", f"optimizer.{name}.exp_avg_sq"} <= tensors.keys()
    assert state["step"] == 6 and state["seconds"] > 0 and state["history"] == trainer.history
    assert state["settings"]["learning_rate"] == 1e-2 and state["settings"]["flow.prediction"] == "v"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.suffix == ".safetensors" or "tfevents" in path.name for path in files)


def test_an_interrupted_cell_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = tiny_trainer(tmp_path / "whole")
    whole.fit(max_steps=8)

    trainer = tiny_trainer(tmp_path / "stopped")
    clip = torch.nn.utils.clip_grad_norm_

    def interrupted(*args):
        if trainer.step == 4:  # the gradients are there, and their step is not
            monkeypatch.undo()
            raise KeyboardInterrupt
        return clip(*args)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(max_steps=8)
    trainer.fit(max_steps=8)
    assert_equal(weights(whole), weights(trainer))


def test_the_momentum_of_muon_and_the_moments_of_adamw_survive_a_stop(tmp_path):
    settings = dict(optimizer="muon", width=64)  # wide enough that one matrix is Muon's
    whole = tiny_trainer(tmp_path / "whole", **settings)
    whole.fit(max_steps=12)
    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(tmp_path / "stopped", data=StopsAtStep7(), **settings).fit(max_steps=12)
    resumed = tiny_trainer(tmp_path / "stopped", **settings)
    resumed.fit(max_steps=12)
    assert resumed.data.asked == list(range(6, 12))
    assert_equal(weights(whole), weights(resumed))
    tensors, _ = read_checkpoint(tmp_path / "stopped" / "last.safetensors")
    kept = {
        name.removeprefix("optimizer.model.token.") for name in tensors if name.startswith("optimizer.model.token.")
    }
    assert kept == {"weight.momentum", "bias.exp_avg", "bias.exp_avg_sq", "bias.step"}


# What can be wrong with a folder


@pytest.fixture
def half_way(tmp_path):
    """The folder of a run to 12 steps that was left at step 7, with the checkpoints of steps 6 and 3."""
    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(tmp_path, data=StopsAtStep7()).fit(max_steps=12)
    return tmp_path


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut in the header":
        content = content[:20]
    elif how == "cut by one byte":
        content = content[:-1]
    elif how == "empty":
        content = b""
    elif how == "one bit flipped in the tensors":
        content[-5] ^= 1
    elif how == "another step in the header":
        content = content.replace(b'step\\": 6', b'step\\": 7')
    elif how == "not a checkpoint":
        content = b"a picture of a cat" * 100
    assert bytes(content) != path.read_bytes()
    path.write_bytes(bytes(content))


DAMAGES = ["cut in the header", "cut by one byte", "empty", "one bit flipped in the tensors", "not a checkpoint"]
DAMAGES += ["another step in the header"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_ends_the_same(half_way, tmp_path_factory, how):
    damage(half_way / "last.safetensors", how)
    trainer = tiny_trainer(half_way)
    with pytest.warns(UserWarning, match="not a complete checkpoint.*resuming from previous.safetensors"):
        trainer.fit(max_steps=12)
    whole = tiny_trainer(tmp_path_factory.mktemp("whole"))
    whole.fit(max_steps=12)
    assert_equal(weights(whole), weights(trainer))


def test_the_only_whole_checkpoint_survives_the_next_write_after_a_fall_back(half_way, monkeypatch):
    damage(half_way / "last.safetensors", "cut by one byte")
    with pytest.warns(UserWarning):
        tiny_trainer(half_way).restore()
    assert not (half_way / "last.safetensors").exists() and (half_way / "damaged.safetensors").exists()
    assert read_checkpoint(half_way / "previous.safetensors")[1]["step"] == 3


def test_no_whole_checkpoint_at_all_is_one_clear_line(half_way):
    damage(half_way / "last.safetensors", "empty")
    damage(half_way / "previous.safetensors", "cut in the header")
    with pytest.raises(UserError, match=r"last\.safetensors is not a complete checkpoint.*previous") as error:
        tiny_trainer(half_way).fit(max_steps=12)
    assert "\n" not in str(error.value)


def test_a_fresh_start_needs_no_whole_checkpoint(half_way):
    damage(half_way / "last.safetensors", "empty")
    damage(half_way / "previous.safetensors", "empty")
    trainer = tiny_trainer(half_way)
    trainer.fit(max_steps=3, resume=False)
    assert trainer.step == 3 and read_last_checkpoint(half_way)[1]["step"] == 3
    assert not (half_way / "previous.safetensors").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_leaves_the_earlier_checkpoints_and_says_so(half_way):
    before = (half_way / "last.safetensors").read_bytes()
    (half_way / "unfinished.safetensors").symlink_to("/dev/full")
    with pytest.raises(UserError, match="could not write a checkpoint.*No space left.*intact; free some disk space"):
        tiny_trainer(half_way).fit(max_steps=12)
    assert (half_way / "last.safetensors").read_bytes() == before
    trainer = tiny_trainer(half_way)  # and now there is room again
    trainer.fit(max_steps=12)
    assert trainer.step == 12


def test_a_full_disk_does_not_end_a_run_where_a_curve_is_written(tmp_path, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    expected = tiny_trainer(tmp_path / "a")
    expected.fit(max_steps=4)
    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    trainer = tiny_trainer(tmp_path / "b")
    with pytest.warns(UserWarning, match="logging failed, the training goes on: .*No space left"):
        trainer.fit(max_steps=4)
    assert_equal(weights(trainer), weights(expected))
    assert [row["step"] for row in trainer.history] == [row["step"] for row in expected.history]


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot write to .*run"):
        tiny_trainer(tmp_path / "run").fit(max_steps=4)


def test_a_tensor_of_any_type_and_shape_comes_back_as_it_was(tmp_path):
    tensors = {
        "number": torch.tensor(3.5),
        "half": torch.randn(2, 3).bfloat16(),
        "none": torch.zeros(0, 4),
        "turned": torch.arange(6.0).reshape(2, 3).T,
    }
    write_checkpoint(tmp_path, tensors, {"step": 1, "loss": math.nan})
    back, state = read_last_checkpoint(tmp_path)
    assert_equal(back, tensors)
    assert state["step"] == 1 and math.isnan(state["loss"])


# Several processes


@pytest.fixture(scope="module")
def together(tmp_path_factory, launch):
    """The folder of two processes that trained together, and what each of them left."""
    folder = tmp_path_factory.mktemp("together")
    done = launch(TINY.with_name("tiny_processes.py"), folder)
    assert done.returncode == 0, done.stderr
    return folder, [json.loads((folder / f"{n}.json").read_text()) for n in range(2)]


def test_two_processes_take_the_steps_of_one(together, tmp_path):
    folder, (main, other) = together
    assert main["processes"] == other["processes"] == 2
    one = tiny.steady_trainer(tmp_path)
    one.fit(max_steps=tiny.STEPS)
    tensors, state = read_checkpoint(folder / "whole" / "last.safetensors")
    assert [row["step"] for row in state["history"]] == [row["step"] for row in one.history]
    for mine, theirs in zip(one.history, state["history"]):
        for name in mine.keys() - {"seconds", "training/images_per_second"}:
            assert theirs[name] == pytest.approx(mine[name], rel=1e-4), name
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-4, atol=1e-6)
        if name in one.average:
            torch.testing.assert_close(tensors[f"average.{name}"], one.average[name], rtol=1e-4, atol=1e-6)
    assert main["sum"] == other["sum"], "they end with the same weights"


def test_of_two_processes_the_main_one_alone_looks_and_writes(together):
    folder, (main, other) = together
    assert main["history"] and not other["history"]
    assert len(list((folder / "whole" / "logs").iterdir())) == 1


def test_the_threads_of_two_processes_end_before_python_does(together):
    folder, left = together
    if sys.platform == "linux":
        assert all(one["threads"] for one in left), "there is something to end"
    ends = [json.loads((folder / f"at the end {n}.json").read_text()) for n in range(2)]
    assert ends == [{"group": False, "threads": []}] * 2


def test_two_processes_resume_where_they_were(together):
    folder, left = together
    assert [one["asked"] for one in left] == [list(range(6, tiny.STEPS))] * 2
    whole, stopped = (read_checkpoint(folder / name / "last.safetensors")[0] for name in ("whole", "stopped"))
    assert_equal(whole, stopped)


def test_two_processes_stop_at_the_same_step_by_the_clock_of_the_main_one(together):
    assert [one["steps in six seconds"] for one in together[1]] == [6, 6]


def test_processes_that_cannot_train_together_say_why(together):
    _, (main, other) = together
    assert main["uneven"] == other["uneven"] == "batch_size 9 is not divisible by 2 processes: give a multiple of 2"
    assert main["apart"] is None and other["apart"].endswith(
        "is not the folder of the main process: let all machines share a disk"
    )


# What must stay the same, and what may change


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(learning_rate=0.5), "learning_rate was 0.01 and is now 0.5"),
        (dict(batch_size=4, seed=3), "batch_size was 8 and is now 4, seed was 0 and is now 3"),
        (dict(flow=RectifiedFlow("x")), "flow.prediction was v and is now x"),
    ],
)
def test_another_config_does_not_resume(half_way, change, message):
    with pytest.raises(UserError, match=f"{message}; use the old values, or another folder"):
        tiny_trainer(half_way, **change).fit(max_steps=12)
    assert read_last_checkpoint(half_way)[1]["step"] == 6


def test_a_checkpoint_from_before_there_was_a_setting_resumes_at_its_default(half_way):
    tensors, state = read_last_checkpoint(half_way)
    del state["settings"]["optimizer"], state["settings"]["sigma_mean"]
    write_checkpoint(half_way, tensors, state)
    with pytest.raises(UserError, match="sigma_mean was 0.0 and is now 1.0"):
        tiny_trainer(half_way, sigma_mean=1.0).restore()
    assert tiny_trainer(half_way).restore()


def test_another_network_does_not_resume(half_way):
    trainer = tiny_trainer(half_way)
    trainer.networks["model"].time = torch.nn.Linear(2, 8)
    with pytest.raises(UserError, match=r"model.time.weight was \(8, 1\) and is now \(8, 2\)"):
        trainer.fit(max_steps=12)


def test_looking_more_often_is_no_other_run_and_learns_the_same(tmp_path, half_way):
    """Even with a preview that draws from the global random numbers, as dropout does while learning."""

    def preview(step):
        torch.randn(100)
        return np.zeros((8, 8, 3), np.uint8)

    seldom = tiny_trainer(tmp_path / "seldom", log_every=100, validate_every=100)
    seldom.fit(max_steps=12)
    often = dict(log_every=1, validate_every=1, preview_every=1, validation_size=4, checkpoint_every=1)
    watched = tiny_trainer(half_way, preview=preview, **often)
    watched.fit(max_steps=12)
    assert watched.data.asked == list(range(6, 12))
    assert_equal(weights(seldom), weights(watched))


def test_a_run_that_is_over_stays_as_it_is(half_way):
    trainer = tiny_trainer(half_way)
    history = trainer.fit(max_steps=6)
    assert trainer.step == 6 and not trainer.data.asked
    assert history == read_last_checkpoint(half_way)[1]["history"]


def test_starting_over_in_one_process_is_a_fresh_run_from_the_weights_there_are(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.fit(max_steps=4)
    trainer.fit(max_steps=2, resume=False)
    assert trainer.step == 2 and trainer.data.asked == [0, 1, 2, 3, 0, 1]
    assert all(moments["step"] == 2 for moments in trainer.optimizers[0].state.values())


@pytest.mark.parametrize("limits", [{}, dict(max_steps=0), dict(max_minutes=-1), dict(max_steps=5, max_minutes=0)])
def test_a_run_without_an_end_is_refused(tmp_path, limits):
    with pytest.raises(UserError, match="has no end|give a value above 0"):
        tiny_trainer(tmp_path).fit(**limits)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(batch_size=0),
        dict(drop_identity=1.5),
        dict(ema_decay=-0.1),
        dict(warmup_steps=-1),
        dict(seed=-1),
        dict(optimizer="adam"),
        dict(sigma_std=-1),
        dict(sigma_mean=1.0, sigma_distribution="uniform"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_by_name(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        TrainingConfig(**wrong)


# One step


def test_it_learns(tmp_path):
    trainer = tiny_trainer(tmp_path, validate_every=1000, batch_size=32, validation_size=64)
    before = trainer.validate()
    trainer.fit(max_steps=250)
    after = trainer.validate()
    assert all(after[name] < 0.5 * before[name] for name in ("validation/sigma_0.5", "validation/sigma_0.8"))


def test_one_step_is_clipped_adamw_on_the_mean_over_its_batches_and_then_the_average(tmp_path):
    trainer = tiny_trainer(tmp_path, accumulation=3, clip_norm=0.05, weight_decay=0.1, ema_decay=0.7)
    trainer.networks["model"].drop.p = 0.0
    ours, average = trainer.parameters, {name: p.detach().clone() for name, p in trainer.parameters.items()}
    other = tiny_trainer(tmp_path, accumulation=3)
    other.networks["model"].drop.p = 0.0
    plain = dict(other.networks.named_parameters())
    groups = [
        {"params": [p for p in plain.values() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in plain.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.95), foreach=False)
    for step in range(3):
        trainer.step = other.step = step
        trainer.learn(0.02)

        optimizer.zero_grad()
        torch.cat([other.objective.loss(*other.objective.draw(step, part)) for part in range(3)]).mean().backward()
        norm = torch.cat([p.grad.flatten() for p in plain.values()]).norm()
        assert norm > 0.05 and trainer.sums.norm.item() == pytest.approx(norm.item(), rel=1e-4)
        trainer.sums = logbook.Sums(trainer.device)
        for p in plain.values():
            p.grad *= 0.05 / norm
        optimizer.step()
        decay = min(0.7, (1 + step) / (10 + step))
        for name, p in plain.items():
            torch.testing.assert_close(ours[name], p, rtol=1e-4, atol=1e-6)
            average[name] = decay * average[name] + (1 - decay) * ours[name].detach()
            torch.testing.assert_close(trainer.average[name], average[name])


def test_muon_steps_the_large_matrices_and_adamw_the_rest_at_one_rate(tmp_path):
    trainer = tiny_trainer(tmp_path, optimizer="muon", width=64)
    muon, adamw = trainer.optimizers
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(trainer.parameters["model.token.weight"])]
    assert sum(len(group["params"]) for group in adamw.param_groups) == len(trainer.parameters) - 1
    before = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    trainer.learn(0.02)
    assert {group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups} == {0.02}
    assert all((p != before[name]).any() and p.grad is None for name, p in trainer.parameters.items())


def test_the_loss_is_the_flows_with_the_condition_embedded_and_the_timestep_1000_sigma(tmp_path):
    trainer = tiny_trainer(tmp_path)
    model, encoder = trainer.networks["model"].eval(), trainer.networks["condition_encoder"]
    batch, noise, sigma, keep_identity, keep_expression = trainer.objective.draw(0)
    ours = trainer.objective.loss(batch, noise, sigma, keep_identity, keep_expression)
    assert torch.equal(model.told[-1], 1000 * sigma)
    assert encoder.kept[-1][0] is keep_identity and encoder.kept[-1][1] is keep_expression

    tokens, pooled = encoder(batch["identity"], batch["expression"], keep_identity, keep_expression)
    velocity = model(interpolate(batch["target"], noise, sigma), tokens, pooled, 1000 * sigma)
    expected = (velocity - (noise - batch["target"])).square().mean((1, 2, 3))
    torch.testing.assert_close(ours, expected)


def test_a_draw_depends_on_seed_and_step_and_part_alone(tmp_path):
    def flat(trainer, step, part=0):
        batch, noise, sigma, keep_identity, keep_expression = trainer.objective.draw(step, part)
        kept = torch.stack([keep_identity, keep_expression]).float()
        return torch.cat([t.flatten() for t in (*batch.values(), noise, sigma, kept)])

    trainer, other = tiny_trainer(tmp_path, accumulation=2), tiny_trainer(tmp_path, accumulation=2)
    expected = flat(trainer, 5)
    torch.randn(7), flat(other, 3), flat(other, 0)
    assert torch.equal(flat(other, 5), expected)
    for different in (flat(trainer, 6), flat(trainer, 5, part=1), flat(tiny_trainer(tmp_path, seed=1), 5)):
        assert not torch.equal(different, expected)
    trainer.data.asked.clear()
    flat(trainer, 5), flat(trainer, 5, 1), flat(trainer, 6)
    assert trainer.data.asked == [10, 11, 12]  # no batch is seen twice


def test_identity_and_expression_are_left_out_at_their_rates_and_apart(tmp_path):
    trainer = tiny_trainer(tmp_path, batch_size=1000, drop_identity=0.2, drop_expression=0.4)
    kept = []
    for step in range(20):
        kept.append(torch.stack(trainer.objective.draw(step)[3:]).float())
    identity, expression = torch.cat(kept, 1)
    assert identity.mean().item() == pytest.approx(0.8, abs=0.012)  # four standard errors
    assert expression.mean().item() == pytest.approx(0.6, abs=0.014)
    assert (identity * expression).mean().item() == pytest.approx(0.48, abs=0.014)


@pytest.mark.parametrize("rate, kept", [(0.0, True), (1.0, False)])
def test_a_rate_of_zero_or_one_is_exact(tmp_path, rate, kept):
    trainer = tiny_trainer(tmp_path, drop_identity=rate, drop_expression=rate, batch_size=500)
    assert all((keep == kept).all() for keep in trainer.objective.draw(0)[3:])


@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (-1.0, 0.5)])
def test_sigmas_have_the_mean_and_the_deviation_that_are_asked_for(tmp_path, mean, std):
    trainer = tiny_trainer(tmp_path, batch_size=4000, sigma_mean=mean, sigma_std=std)
    logits = torch.logit(trainer.objective.draw(0)[2])
    assert logits.mean().item() == pytest.approx(mean, abs=0.06) and logits.std().item() == pytest.approx(std, rel=0.06)


def test_the_learning_rate_warms_up_and_follows_half_a_cosine(tmp_path):
    trainer = tiny_trainer(tmp_path, warmup_steps=4, learning_rate=1.0, final_learning_rate=0.1)
    rates = []
    for trainer.step in range(4):
        rates.append(trainer.learning_rate(0.0))
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert [trainer.learning_rate(used) for used in (0, 0.5, 1)] == pytest.approx([1.0, 0.55, 0.1])


def test_the_learning_rate_reaches_the_optimizer(tmp_path):
    trainer = tiny_trainer(tmp_path, log_every=1)
    history = trainer.fit(max_steps=10)
    rates = [row["training/learning_rate"] for row in history if "training/learning_rate" in row]
    expected = [1e-2 * min(1, (n + 1) / 3) * (0.01 + 0.99 * (1 + math.cos(math.pi * n / 10)) / 2) for n in range(10)]
    assert rates == pytest.approx(expected)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected[-1])


def test_what_learns_is_compiled_and_what_looks_is_not(tmp_path, monkeypatch):
    calls = []

    def compile(networks):
        def compiled(*arguments):
            calls.append(torch.is_grad_enabled())
            return networks(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    trainer = tiny_trainer(tmp_path, compile=True, validate_every=2)
    trainer.fit(max_steps=4)
    assert calls == [True] * 4
    plain = tiny_trainer(tmp_path / "plain", validate_every=2)
    plain.fit(max_steps=4)
    assert_equal(weights(trainer), weights(plain))


# Limits


class Clock:
    """A clock on which each step of the optimizer takes a second."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        step = torch.optim.AdamW.step
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda *a: (step(*a), setattr(self, "now", self.now + 1)))
        monkeypatch.setattr(loop.time, "perf_counter", lambda: self.now)


def test_a_limit_in_minutes_ends_the_run_and_bends_the_cosine(tmp_path, monkeypatch):
    Clock(monkeypatch)
    trainer = tiny_trainer(tmp_path, log_every=1, warmup_steps=0)
    history = trainer.fit(max_minutes=0.1)
    assert trainer.step == 6 and trainer.seconds == 6
    rates = [row["training/learning_rate"] for row in history if "training/learning_rate" in row]
    assert rates == pytest.approx([1e-2 * (0.01 + 0.99 * (1 + math.cos(math.pi * n / 6)) / 2) for n in range(6)])
    assert [row["training/images_per_second"] for row in history if "training/loss" in row] == pytest.approx([8] * 6)


def test_minutes_count_over_all_resumptions(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    tiny_trainer(tmp_path).fit(max_steps=4)
    clock.now += 10_000  # the night in between does not count
    trainer = tiny_trainer(tmp_path)
    trainer.fit(max_minutes=0.1)
    assert trainer.step == 6 and trainer.seconds == 6


def test_of_two_limits_the_first_one_ends_the_run(tmp_path, monkeypatch):
    Clock(monkeypatch)
    trainer = tiny_trainer(tmp_path)
    trainer.fit(max_steps=100, max_minutes=0.1)
    assert trainer.step == 6
    trainer.fit(max_steps=8, max_minutes=100)
    assert trainer.step == 8


# Looking


def test_validation_is_at_fixed_sigmas_of_the_averaged_weights_and_changes_nothing(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.fit(max_steps=7)
    model, before = trainer.networks["model"], weights(trainer)
    model.told.clear()
    model.train()
    losses = trainer.validate()
    assert losses == trainer.validate() and model.training
    assert_equal(weights(trainer), before)
    assert [told.unique().item() for told in model.told[:3]] == pytest.approx([200, 500, 800])

    with trainer.averaged_weights():
        assert not model.training
        assert torch.equal(model.enter.weight, trainer.average["model.enter.weight"])
        assert not torch.equal(model.enter.weight, before["model.enter.weight"])
        batch = trainer.data.validation(8)
        noise = torch.randn(batch["target"].shape, generator=trainer.objective.generator("validation"))
        expected = trainer.objective.loss(batch, noise, torch.full((8,), 0.5)).mean().item()
    assert losses["validation/sigma_0.5"] == pytest.approx(expected)


def test_validation_does_not_depend_on_the_size_of_its_pieces(tmp_path):
    whole, pieces = (tiny_trainer(tmp_path, batch_size=size, validation_size=8).validate() for size in (8, 3))
    assert whole == pytest.approx(pieces, rel=1e-5)


def test_the_weights_come_back_where_a_preview_fails(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.fit(max_steps=4)
    before = weights(trainer)
    with pytest.raises(RuntimeError), trainer.averaged_weights():
        raise RuntimeError("no font")
    assert_equal(weights(trainer), before)


@pytest.mark.parametrize("error", [UserError("no face"), MemoryError(), RuntimeError("CUDA out of memory")])
def test_no_look_at_a_run_ends_it(tmp_path, error):
    def fails(*_):
        raise error

    expected = tiny_trainer(tmp_path / "a")
    expected.fit(max_steps=6)
    trainer = tiny_trainer(tmp_path / "b", preview=fails, preview_every=2, validate_every=3)
    trainer.objective.validation_losses = fails
    with pytest.warns(UserWarning, match="the preview failed, the training goes on") as warned:
        trainer.fit(max_steps=6)
    assert any("the validation failed" in str(one.message) for one in warned)
    assert_equal(weights(trainer), weights(expected))
    assert tiny_trainer(tmp_path / "b").restore()  # and its checkpoint is there


def test_curves_and_sample_grids_reach_tensorboard_once_for_each_step(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def preview(step):
        return np.full((4, 6, 3), step, np.uint8)

    settings = dict(preview=preview, preview_every=4, log_every=1, checkpoint_every=6)
    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(tmp_path, data=StopsAtStep7(), **settings).fit(max_steps=8)
    tiny_trainer(tmp_path, **settings).fit(max_steps=8)  # which takes, and logs, the seventh step again
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert {"training/loss", "training/images_per_second", "validation/sigma_0.2"} <= set(events.Tags()["scalars"])
    assert [point.step for point in events.Scalars("training/loss")] == list(range(1, 9))
    pictures = events.Images("samples")
    assert [(p.step, p.width, p.height) for p in pictures] == [(4, 6, 4), (8, 6, 4)]


def test_the_preview_sees_the_averaged_weights(tmp_path):
    seen = []

    def preview(step):
        seen.append(torch.equal(trainer.networks["model"].enter.weight, trainer.average["model.enter.weight"]))
        return np.zeros((2, 2, 3), np.uint8)

    trainer = tiny_trainer(tmp_path, preview, preview_every=3)
    trainer.fit(max_steps=7)
    assert seen == [True, True, True]  # after 3, after 6, and at the end


def test_the_bar_shows_speed_and_time_left(tmp_path, capsys):
    tiny_trainer(tmp_path).fit(max_steps=4)
    shown = capsys.readouterr().err
    assert "100%" in shown and "step 4, loss" in shown and "images/s" in shown and "left]" in shown


def test_speed_does_not_count_the_time_spent_looking(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(logbook.time, "perf_counter", lambda: now[0])
    speed = logbook.Speed()
    now[0] = 2.0
    with speed.paused():
        now[0] = 50.0
    now[0] = 52.0
    assert speed.of(40) == pytest.approx(10)


# Numbers that are none


class BreaksAtStep5(tiny.TinyData):
    def batch(self, step, batch_size):
        batch = super().batch(step, batch_size)
        if step == 5:
            batch["target"][0] = math.nan
        return batch


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_checkpoint(tmp_path):
    trainer = tiny_trainer(tmp_path, data=BreaksAtStep5())
    with pytest.raises(UserError, match="no longer finite at step 5: the last good checkpoint is .*last.safe") as error:
        trainer.fit(max_steps=12)
    assert "learning_rate below 0.01" in str(error.value) and "\n" not in str(error.value)
    tensors, state = read_last_checkpoint(tmp_path)
    assert state["step"] == 3 and all(t.isfinite().all() for t in tensors.values())
    assert all(p.isfinite().all() for p in trainer.parameters.values())  # it stopped before the bad step was taken


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.fit(max_steps=3)
    with torch.no_grad():
        trainer.average["model.enter.bias"][0] = math.inf
    with pytest.raises(UserError, match="the weights are no longer finite at step 3"):
        trainer.save()
    assert read_last_checkpoint(tmp_path)[1]["step"] == 3


def test_before_the_first_checkpoint_it_says_that_there_is_none(tmp_path):
    data = BreaksAtStep5()
    with pytest.raises(UserError, match="no checkpoint was written yet"):
        tiny_trainer(tmp_path, data=data, checkpoint_every=100).fit(max_steps=12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="bfloat16 is for CUDA")
def test_on_cuda_the_networks_run_in_bfloat16_and_the_weights_stay_float32(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer = Trainer(
        trainer.config, *(n.cuda() for n in trainer.networks.values()), trainer.flow, trainer.data, tmp_path
    )
    seen = []
    trainer.networks["model"].leave.register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    trainer.fit(max_steps=6)
    assert seen[0] == torch.bfloat16 and all(p.dtype == torch.float32 for p in trainer.parameters.values())
    resumed = tiny_trainer(tmp_path)
    assert resumed.restore() and resumed.step == 6


def test_on_a_processor_everything_is_float32(tmp_path):
    trainer = tiny_trainer(tmp_path)
    seen = []
    trainer.networks["model"].leave.register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(max_steps=2)
    assert set(seen) == {torch.float32}


def test_the_files_of_a_checkpoint_are_forced_to_the_disk_before_they_are_renamed(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(checkpoint.os, "fsync", lambda handle: (order.append("sync"), fsync(handle)))
    monkeypatch.setattr(checkpoint.os, "replace", lambda a, b: (order.append(Path(b).name), replace(a, b)))
    for step in (1, 2):
        write_checkpoint(tmp_path, {"x": torch.zeros(1)}, {"step": step})
    assert order == ["sync", "last.safetensors", "sync"] + ["sync", "previous.safetensors", "last.safetensors", "sync"]


def test_an_extra_loss_is_learned_from_and_not_validated_by(tmp_path):
    asked = []

    def extra(believed, target, sigma):
        asked.append((believed.detach(), target, sigma))
        return 3 * believed.square().mean((1, 2, 3))

    plain, other = tiny_trainer(tmp_path), tiny_trainer(tmp_path)
    other.objective.extra_loss = extra
    for trainer in (plain, other):
        trainer.networks["model"].drop.p = 0.0
    drawn = plain.objective.draw(0)
    batch, noise, sigma, *keep = drawn
    more = other.objective.training_loss(*drawn) - plain.objective.training_loss(*drawn)
    noisy = interpolate(batch["target"], noise, sigma)
    believed = noisy - sigma[:, None, None, None] * plain.objective.predict(
        batch, noise, sigma, *keep
    )  # the output is a velocity
    torch.testing.assert_close(asked[0][0], believed)
    assert torch.equal(asked[0][1], batch["target"]) and torch.equal(asked[0][2], sigma)
    torch.testing.assert_close(more, 3 * believed.square().mean((1, 2, 3)), rtol=1e-4, atol=1e-5)
    assert torch.equal(other.objective.loss(*drawn), plain.objective.loss(*drawn))

    assert other.validate() == plain.validate() and len(asked) == 1, "no look at the run asks for it"
    for trainer in (plain, other):
        trainer.fit(max_steps=1, resume=False)
    assert len(asked) == 2
    assert any(not torch.equal(p, other.parameters[name]) for name, p in plain.parameters.items())


def test_the_face_counts_more_where_the_config_says_so_and_validation_stays_plain(tmp_path):
    plain, weighted = tiny_trainer(tmp_path), tiny_trainer(tmp_path, face_weight=3.0)
    for trainer in (plain, weighted):
        trainer.networks["model"].drop.p = 0.0
    drawn = plain.objective.draw(0)
    batch, noise, sigma, *keep = drawn
    error = (plain.objective.predict(*drawn) - (noise - batch["target"])).square()
    weight = face_weight(error.shape[-1])
    torch.testing.assert_close(weighted.objective.training_loss(*drawn), (weight * error).mean((1, 2, 3)))
    torch.testing.assert_close(plain.objective.training_loss(*drawn), error.mean((1, 2, 3)))
    assert weight.mean().item() == pytest.approx(1) and weight.max() > 3 * weight.min()
    assert weighted.validate() == plain.validate()
