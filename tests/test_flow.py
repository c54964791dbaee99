"""Rectified flow: its contracts, agreement with diffusers' schedulers, and cases with an exact solution."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gen_affect_lib import flow
from gen_affect_lib.errors import UserError


def pair(shape=(4, 3, 5, 6), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


# A Gaussian, solved in closed form. Let data ~ N(m, s**2) and noise ~ N(0, 1), independent, in one dimension
# (several independent ones do not change it). Then x = (1 - sigma) data + sigma noise is Gaussian too, with
#     mean  (1 - sigma) m          variance  a = (1 - sigma)**2 s**2 + sigma**2
# and noise - data is jointly Gaussian with it, with mean -m and covariance
#     Cov(noise - data, x) = sigma Var(noise) - (1 - sigma) Var(data) = sigma - (1 - sigma) s**2.
# A network that minimises the squared error learns the conditional mean, which for Gaussians is linear:
#     v(x, sigma) = E[noise - data | x] = -m + (sigma - (1 - sigma) s**2) / a * (x - (1 - sigma) m).
# Along dx/dsigma = v the standardised (x - (1 - sigma) m) / sqrt(a) stays what it is, since d sqrt(a) / dsigma is
# (sigma - (1 - sigma) s**2) / sqrt(a). It starts as the noise, so the path ends at exactly data = m + s * noise.
MEAN, STD = torch.tensor([1.5, -0.5], dtype=torch.float64), torch.tensor([0.4, 0.1], dtype=torch.float64)


def gaussian_velocity(x, sigma):
    sigma = sigma[:, None]  # (B,) -> (B, 1)
    variance = (1 - sigma) ** 2 * STD**2 + sigma**2
    return -MEAN + (sigma - (1 - sigma) * STD**2) / variance * (x - (1 - sigma) * MEAN)


def gaussian_error(method, num_steps):
    noise = pair((64, 2))[0].double()
    sigmas = flow.schedule(num_steps, dtype=torch.float64)
    return (flow.sample(gaussian_velocity, noise, sigmas, method) - (MEAN + STD * noise)).pow(2).mean().sqrt().item()


class TestThePath:
    def test_sigma_0_is_the_data_and_sigma_1_the_noise(self):
        data, noise = pair()
        assert torch.equal(flow.interpolate(data, noise, torch.zeros(4)), data)
        assert torch.equal(flow.interpolate(data, noise, torch.ones(4)), noise)

    def test_each_image_has_its_own_sigma(self):
        data, noise = pair()
        sigma = torch.tensor([0.0, 0.25, 0.5, 1.0])
        together = flow.interpolate(data, noise, sigma)
        for i in range(4):
            torch.testing.assert_close(together[i], (1 - sigma[i]) * data[i] + sigma[i] * noise[i])
            torch.testing.assert_close(together[i], flow.interpolate(data, noise, sigma[i].item())[i])

    def test_the_velocity_is_the_derivative_of_the_path_in_sigma(self):
        data, noise = (x.double() for x in pair())
        sigma = torch.rand(4, dtype=torch.float64)
        _, slope = torch.func.jvp(lambda s: flow.interpolate(data, noise, s), (sigma,), (torch.ones_like(sigma),))
        torch.testing.assert_close(slope, flow.velocity(data, noise))

    def test_the_velocity_points_from_the_data_to_the_noise(self):
        data, noise = pair()
        torch.testing.assert_close(data + flow.velocity(data, noise), noise)

    def test_the_timestep_is_a_thousand_sigmas(self):
        assert flow.timestep(torch.tensor([0.0, 0.25, 1.0])).tolist() == [0.0, 250.0, 1000.0]

    def test_shapes_that_do_not_agree_are_refused_in_words(self):
        data, noise = pair()
        with pytest.raises(UserError, match="the same shape"):
            flow.interpolate(data, noise[:1], 0.5)
        with pytest.raises(UserError, match="batch of 4"):
            flow.interpolate(data, noise, torch.zeros(1))
        with pytest.raises(UserError, match="batch of 4"):
            flow.interpolate(data, noise, torch.zeros(4, 1))


class TestSigmas:
    def test_the_shift_keeps_the_ends_and_the_order_and_moves_all_else_to_the_noise(self):
        sigma = torch.linspace(0, 1, 101, dtype=torch.float64)
        shifted = flow.shift_sigma(sigma, 3.0)
        assert shifted[0] == 0 and shifted[-1] == 1
        assert (shifted.diff() > 0).all() and (shifted[1:-1] > sigma[1:-1]).all()
        assert shifted[50] == pytest.approx(0.75)

    def test_a_shift_of_1_changes_nothing_and_a_shift_is_undone_by_its_inverse(self):
        sigma = torch.linspace(0, 1, 101, dtype=torch.float64)
        assert torch.equal(flow.shift_sigma(sigma, 1.0), sigma)
        torch.testing.assert_close(flow.shift_sigma(flow.shift_sigma(sigma, 3.0), 1 / 3.0), sigma)

    @pytest.mark.parametrize("mean, std, shift", [(0.0, 1.0, 1.0), (0.8, 0.6, 1.0), (0.0, 1.0, 3.0)])
    def test_logit_normal_sigmas_have_the_quantiles_of_their_distribution(self, mean, std, shift):
        sigma = flow.sample_sigma(
            200_000, shift=shift, mean=mean, std=std, generator=torch.Generator().manual_seed(0)
        ).double()
        levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
        expected = flow.shift_sigma(torch.sigmoid(mean + std * torch.special.ndtri(levels)), shift)
        torch.testing.assert_close(sigma.quantile(levels), expected, atol=0.005, rtol=0)
        assert 0 < sigma.min() and sigma.max() < 1

    def test_a_positive_mean_means_more_noise(self):
        few, many = (flow.sample_sigma(1000, mean=m, generator=torch.Generator().manual_seed(0)) for m in (-0.8, 0.8))
        assert (many > few).all()

    def test_uniform_sigmas_are_uniform(self):
        sigma = flow.sample_sigma(200_000, "uniform", generator=torch.Generator().manual_seed(0)).double()
        levels = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
        torch.testing.assert_close(sigma.quantile(levels), levels, atol=0.005, rtol=0)

    def test_the_generator_decides_and_the_shape_is_the_one_asked_for(self):
        draw = lambda seed: flow.sample_sigma((3, 2), generator=torch.Generator().manual_seed(seed))
        assert draw(1).shape == (3, 2) and draw(1).dtype == torch.float32
        assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))

    @pytest.mark.parametrize("spacing", ["even", "diffusers"])
    @pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
    @pytest.mark.parametrize("num_steps", [1, 2, 28])
    def test_a_schedule_falls_from_1_to_exactly_0(self, spacing, shift, num_steps):
        sigmas = flow.schedule(num_steps, shift, spacing=spacing)
        assert sigmas.shape == (num_steps + 1,) and sigmas.dtype == torch.float32
        assert sigmas[0] == 1 and sigmas[-1] == 0 and (sigmas.diff() < 0).all()

    def test_without_a_shift_the_even_schedule_has_equal_steps(self):
        assert flow.schedule(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]

    @pytest.mark.parametrize(
        "call, words",
        [
            (lambda: flow.sample_sigma(3, "lognormal"), "logit_normal"),
            (lambda: flow.shift_sigma(0.5, 0), "above 0"),
            (lambda: flow.schedule(0), "give at least 1"),
            (lambda: flow.schedule(4, -1.0), "above 0"),
            (lambda: flow.schedule(4, spacing="karras"), '"even" or "diffusers"'),
        ],
    )
    def test_what_cannot_be_is_refused_in_words(self, call, words):
        with pytest.raises(UserError, match=words):
            call()


class TestDiffusersAgrees:
    """FlowMatchEulerDiscreteScheduler, run as its pipelines run it."""

    @staticmethod
    def scheduler(num_steps, shift, spacing):
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        if spacing == "diffusers":
            scheduler.set_timesteps(num_steps)  # as in the SD3 pipeline
        else:
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps).tolist())  # as in Flux's pipeline
        return scheduler

    @pytest.mark.parametrize("spacing", ["even", "diffusers"])
    @pytest.mark.parametrize("shift", [0.5, 1.0, 1.7, 3.0, 6.0])
    @pytest.mark.parametrize("num_steps", [1, 2, 3, 20, 50])
    def test_the_schedule_is_the_schedulers_own(self, num_steps, shift, spacing):
        theirs = self.scheduler(num_steps, shift, spacing)
        ours = flow.schedule(num_steps, shift, spacing=spacing)
        torch.testing.assert_close(ours, theirs.sigmas, atol=1e-6, rtol=0)
        torch.testing.assert_close(flow.timestep(ours[:-1]), theirs.timesteps, atol=1e-3, rtol=0)

    def test_the_twice_shifted_smallest_sigma_is_really_there(self):
        """If diffusers fixes issue 13243, this test fails, and `schedule` must be changed too."""
        theirs = self.scheduler(20, 3.0, "diffusers").sigmas[-2].item()
        assert theirs == pytest.approx(flow.shift_sigma(flow.shift_sigma(0.001, 3.0), 3.0), abs=1e-6)
        assert theirs > 2 * flow.shift_sigma(0.001, 3.0)

    @pytest.mark.parametrize("spacing", ["even", "diffusers"])
    @pytest.mark.parametrize("shift", [1.0, 3.0])
    @pytest.mark.parametrize("num_steps", [1, 4, 28])
    def test_euler_ends_where_the_scheduler_ends(self, num_steps, shift, spacing):
        noise = pair()[1]
        velocity_fn = lambda x, sigma: torch.sin(x) + sigma[:, None, None, None] * x.flip(-1)
        scheduler = self.scheduler(num_steps, shift, spacing)
        theirs = noise
        for t in scheduler.timesteps:
            theirs = scheduler.step(velocity_fn(theirs, (t / 1000).expand(4)), t, theirs).prev_sample
        ours = flow.sample(velocity_fn, noise, flow.schedule(num_steps, shift, spacing=spacing))
        assert ours.abs().max() > 0.5
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)

    def test_heun_ends_where_the_heun_scheduler_ends(self):
        from diffusers import FlowMatchHeunDiscreteScheduler

        noise = pair()[1]
        velocity_fn = lambda x, sigma: torch.sin(x) + sigma[:, None, None, None] * x.flip(-1)
        scheduler = FlowMatchHeunDiscreteScheduler()
        scheduler.set_timesteps(10)
        theirs = noise
        for t in scheduler.timesteps:
            theirs = scheduler.step(velocity_fn(theirs, (t / 1000).expand(4)), t, theirs).prev_sample
        ours = flow.sample(velocity_fn, noise, flow.schedule(10, spacing="diffusers"), "heun")
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)

    def test_the_noisy_image_is_the_schedulers(self):
        data, noise = pair()
        scheduler = self.scheduler(28, 3.0, "diffusers")
        t = scheduler.timesteps[[0, 5, 13, 27]]
        theirs = scheduler.scale_noise(data, t, noise)
        torch.testing.assert_close(flow.interpolate(data, noise, t / 1000), theirs, atol=1e-6, rtol=0)


class TestAGaussian:
    def test_its_velocity_is_what_regression_on_the_straight_paths_finds(self):
        """The formula above against 400,000 draws: the best straight line from x to noise - data."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(400_000, 2, generator=generator, dtype=torch.float64)
        data = MEAN + STD * torch.randn(400_000, 2, generator=generator, dtype=torch.float64)
        for sigma in (0.1, 0.5, 0.9):
            x, v = flow.interpolate(data, noise, sigma), flow.velocity(data, noise)
            slope = ((x - x.mean(0)) * (v - v.mean(0))).mean(0) / x.var(0)
            at = torch.stack([x.mean(0), x.mean(0) + 1])
            expected = torch.stack([v.mean(0), v.mean(0) + slope])
            found = gaussian_velocity(at, torch.full((2,), sigma, dtype=torch.float64))
            torch.testing.assert_close(found, expected, atol=0.03, rtol=0)

    def test_many_steps_end_at_the_exact_answer(self):
        assert gaussian_error("heun", 1000) < 1e-5
        assert gaussian_error("euler", 1000) < 1e-2

    @pytest.mark.parametrize("method, order", [("euler", 1), ("heun", 2)])
    def test_the_order_of_convergence(self, method, order):
        """Doubling the steps divides the error by 2 to the power of the order."""
        errors = [gaussian_error(method, n) for n in (128, 256, 512, 1024)]
        found = [math.log2(a / b) for a, b in zip(errors, errors[1:])]
        assert found == pytest.approx([order] * 3, abs=0.1), found

    @pytest.mark.parametrize("shift", [0.5, 3.0])
    def test_a_shifted_schedule_keeps_the_order(self, shift):
        noise = pair((64, 2))[0].double()
        errors = []
        for n in (256, 512):
            end = flow.sample(gaussian_velocity, noise, flow.schedule(n, shift, dtype=torch.float64), "heun")
            errors.append((end - (MEAN + STD * noise)).pow(2).mean().sqrt().item())
        assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)


class TestSampling:
    @pytest.mark.parametrize("method", ["euler", "heun"])
    @pytest.mark.parametrize("num_steps", [1, 3])
    def test_a_straight_velocity_is_exact_in_any_number_of_steps_one_included(self, method, num_steps):
        data, noise = pair()
        end = flow.sample(lambda x, sigma: flow.velocity(data, noise), noise, flow.schedule(num_steps), method)
        torch.testing.assert_close(end, data, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("num_steps, spacing", [(1, "even"), (7, "even"), (7, "diffusers"), (200, "even")])
    def test_a_network_that_knows_the_data_ends_at_the_data(self, num_steps, spacing):
        """The x-prediction's division by sigma must not end the path early, however near to 0 the last sigma is."""
        data, noise = pair()
        velocity_fn = flow.RectifiedFlow("x").velocity_of(lambda x, sigma: data)
        for method in ("euler", "heun"):
            end = flow.sample(velocity_fn, noise, flow.schedule(num_steps, spacing=spacing), method)
            torch.testing.assert_close(end, data, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("method, evaluations", [("euler", 6), ("heun", 11)])
    def test_the_cost_is_as_documented_and_sigma_0_is_never_asked_for(self, method, evaluations):
        asked = []

        def velocity_fn(x, sigma):
            assert sigma.shape == (4,)
            asked.append(sigma[0].item())
            return x

        flow.sample(velocity_fn, pair()[1], flow.schedule(6), method)
        assert len(asked) == evaluations and min(asked) > 0 and max(asked) == 1

    def test_the_callback_sees_every_step_and_the_last_is_what_is_returned(self):
        seen = []
        sigmas = flow.schedule(5)
        end = flow.sample(lambda x, sigma: x, pair()[1], sigmas, callback=lambda *step: seen.append(step))
        assert [step for step, _, _ in seen] == [0, 1, 2, 3, 4]
        assert [sigma for _, sigma, _ in seen] == sigmas[1:].tolist()
        assert torch.equal(seen[-1][2], end)

    def test_half_precision_noise_comes_back_in_half_precision_from_a_float32_walk(self):
        start = torch.full((4, 2), 0.5, dtype=torch.bfloat16)
        seen = set()

        def velocity_fn(x, sigma):
            seen.add(x.dtype)
            return torch.full_like(x, 0.02)

        # Each of the 100 steps of 0.0002 is far below half a unit in the last place: bfloat16 alone would stay at 0.5.
        end = flow.sample(velocity_fn, start, flow.schedule(100))
        assert end.dtype == torch.bfloat16 and seen == {torch.bfloat16}
        torch.testing.assert_close(end.float(), torch.full((4, 2), 0.48), atol=2e-3, rtol=0)

    def test_a_walk_may_start_halfway(self):
        data, noise = pair()
        halfway = flow.interpolate(data, noise, 0.5)
        end = flow.sample(lambda x, sigma: noise - data, halfway, torch.tensor([0.5, 0.2, 0.0]))
        torch.testing.assert_close(end, data, atol=1e-6, rtol=0)

    @pytest.mark.parametrize(
        "sigmas, method, words",
        [
            (flow.schedule(3), "rk4", '"euler" or "heun"'),
            (flow.schedule(3).flip(0), "euler", "descending"),
            (torch.ones(1), "euler", "descending"),
            (torch.tensor([1.0, 0.5, 0.5]), "euler", "descending"),
        ],
    )
    def test_what_cannot_be_is_refused_in_words(self, sigmas, method, words):
        with pytest.raises(UserError, match=words):
            flow.sample(lambda x, sigma: x, pair()[1], sigmas, method)


class TestTheLoss:
    sigma = torch.tensor([0.2, 0.4, 0.6, 1.0])

    def test_the_right_answer_costs_nothing(self):
        data, noise = pair()
        assert flow.RectifiedFlow("v").loss(lambda x, sigma: noise - data, data, noise, self.sigma).max() == 0
        assert flow.RectifiedFlow("x").loss(lambda x, sigma: data, data, noise, self.sigma).max() == 0

    @pytest.mark.parametrize("prediction", ["v", "x"])
    def test_the_loss_is_the_mean_squared_error_of_the_velocity_for_each_image(self, prediction):
        data, noise = pair()
        output = pair(seed=1)[0]
        objective = flow.RectifiedFlow(prediction)
        loss = objective.loss(lambda x, sigma: output, data, noise, self.sigma)
        noisy = flow.interpolate(data, noise, self.sigma)
        expected = (objective.velocity_from(output, noisy, self.sigma) - (noise - data)).pow(2).mean((1, 2, 3))
        assert loss.shape == (4,)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)

    def test_the_network_is_shown_the_noisy_image_and_its_sigma(self):
        data, noise = pair()
        seen = []
        flow.RectifiedFlow().loss(lambda x, sigma: seen.append((x, sigma)) or x, data, noise, self.sigma)
        torch.testing.assert_close(seen[0][0], flow.interpolate(data, noise, self.sigma))
        assert torch.equal(seen[0][1], self.sigma)

    def test_near_sigma_0_the_loss_of_x_is_capped_at_its_floor_and_stays_unbiased(self):
        data, noise = pair()
        objective = flow.RectifiedFlow("x", sigma_floor=0.05)
        near = torch.tensor([0.0, 1e-8, 1e-3, 0.05])
        loss = objective.loss(lambda x, sigma: data + 0.1, data, noise, near)
        torch.testing.assert_close(loss, torch.full((4,), (0.1 / 0.05) ** 2), rtol=1e-4, atol=0)
        assert objective.loss(lambda x, sigma: data, data, noise, near).max() == 0

    def test_at_sigma_0_the_velocity_of_a_predicted_x_is_finite(self):
        data, output = pair()
        assert flow.RectifiedFlow("x").velocity_from(output, data, torch.zeros(4)).isfinite().all()
        assert flow.RectifiedFlow("x").velocity_from(output, data, 0.0).isfinite().all()

    def test_half_precision_outputs_are_compared_in_float32(self):
        data, noise = pair()
        assert flow.RectifiedFlow().loss(lambda x, sigma: x.bfloat16(), data, noise, self.sigma).dtype == torch.float32

    @pytest.mark.parametrize("prediction", ["v", "x"])
    def test_the_right_answer_means_the_data_and_a_wrong_one_what_its_velocity_leads_to(self, prediction):
        data, noise = pair()
        noisy, objective = flow.interpolate(data, noise, self.sigma), flow.RectifiedFlow(prediction)
        right = {"v": flow.velocity(data, noise), "x": data}[prediction]
        torch.testing.assert_close(objective.data_from(right, noisy, self.sigma), data, atol=1e-5, rtol=0)
        wrong = pair(seed=1)[0]
        led_to = noisy - self.sigma[:, None, None, None] * objective.velocity_from(wrong, noisy, self.sigma)
        torch.testing.assert_close(objective.data_from(wrong, noisy, self.sigma), led_to, atol=1e-5, rtol=0)
        torch.testing.assert_close(objective.data_from(right[:1], noisy[:1], 0.2), data[:1], atol=1e-5, rtol=0)

    @pytest.mark.parametrize("prediction", ["v", "x"])
    def test_the_loss_of_an_output_is_that_of_the_network_that_gave_it(self, prediction):
        data, noise = pair()
        network = lambda x, sigma: x * (1 + sigma[:, None, None, None])
        output, objective = (
            network(flow.interpolate(data, noise, self.sigma), self.sigma),
            flow.RectifiedFlow(prediction),
        )
        loss = objective.loss(network, data, noise, self.sigma)
        assert torch.equal(objective.loss_of(output, data, noise, self.sigma), loss) and (loss > 0).all()

    @pytest.mark.parametrize("prediction", ["v", "x"])
    def test_a_weight_says_how_much_each_place_counts(self, prediction):
        data, noise = pair()
        output, objective = torch.zeros_like(data), flow.RectifiedFlow(prediction)
        plain = objective.loss_of(output, data, noise, self.sigma)
        torch.testing.assert_close(objective.loss_of(output, data, noise, self.sigma, 2.0), 2 * plain)
        left = torch.zeros(data.shape[-1])
        left[: len(left) // 2] = 1
        halves = [objective.loss_of(output, data, noise, self.sigma, w) for w in (left, 1 - left)]
        torch.testing.assert_close(sum(halves), plain)
        changed = data.clone()
        changed[..., -1] += 1  # at the right edge, where the weight is 0
        assert torch.equal(objective.loss_of(output, changed, noise, self.sigma, left), halves[0])

    def test_what_cannot_be_is_refused_in_words(self):
        data, noise = pair()
        with pytest.raises(UserError, match='"v"'):
            flow.RectifiedFlow("epsilon")
        with pytest.raises(UserError, match="0.05"):
            flow.RectifiedFlow("x", sigma_floor=0)
        with pytest.raises(UserError, match="give the same shape"):
            flow.RectifiedFlow().loss(lambda x, sigma: x[:, :1], data, noise, self.sigma)


class TestGuidance:
    none, identity, full = (torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(i)) for i in range(3))

    def test_scale_1_is_the_conditional_and_scale_0_the_unconditional(self):
        torch.testing.assert_close(flow.guide_one(self.none, self.full, 1.0), self.full)
        assert torch.equal(flow.guide_one(self.none, self.full, 0.0), self.none)

    def test_scales_of_1_are_the_full_condition_and_the_corners_are_the_other_two(self):
        torch.testing.assert_close(flow.guide(self.none, self.identity, self.full, 1.0, 1.0), self.full)
        torch.testing.assert_close(flow.guide(self.none, self.identity, self.full, 1.0, 0.0), self.identity)
        assert torch.equal(flow.guide(self.none, self.identity, self.full, 0.0, 0.0), self.none)

    def test_each_dial_moves_along_its_own_difference(self):
        two, one = (flow.guide(self.none, self.identity, self.full, s, 1.5) for s in (2.0, 1.0))
        torch.testing.assert_close(two - one, self.identity - self.none, atol=1e-5, rtol=0)
        two, one = (flow.guide(self.none, self.identity, self.full, 1.5, s) for s in (2.0, 1.0))
        torch.testing.assert_close(two - one, self.full - self.identity, atol=1e-5, rtol=0)

    def test_equal_dials_are_plain_guidance(self):
        both = flow.guide(self.none, self.identity, self.full, 2.5, 2.5)
        torch.testing.assert_close(both, flow.guide_one(self.none, self.full, 2.5), atol=1e-5, rtol=0)

    def test_on_a_gaussian_guidance_goes_beyond_the_condition(self):
        """Data are N(2, 1) with the condition, N(0, 1) without. Guidance with scale 3 overshoots 2: it ends at 6."""

        def velocity_of(mean):
            return lambda x, sigma: (
                -mean
                + (2 * sigma - 1)[:, None]
                * (x - (1 - sigma[:, None]) * mean)
                / (((1 - sigma) ** 2 + sigma**2)[:, None])
            )

        guided = lambda x, sigma: flow.guide_one(velocity_of(0.0)(x, sigma), velocity_of(2.0)(x, sigma), 3.0)
        noise = torch.randn(256, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        end = flow.sample(guided, noise, flow.schedule(200, dtype=torch.float64), "heun")
        torch.testing.assert_close(end, noise + 6, atol=1e-3, rtol=0)


class TestATwoDimensionalMixture:
    """Four small Gaussians at the corners of a square, learnt by a small network from samples only."""

    CENTERS = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1])
    SPREAD = 0.15

    def draw(self, n, generator):
        which = torch.multinomial(self.WEIGHTS, n, replacement=True, generator=generator)
        return self.CENTERS[which] + self.SPREAD * torch.randn(n, 2, generator=generator)

    @staticmethod
    def distance(a, b):
        """Energy distance: 0 for equal distributions only. Its floor here is that of two samples of the data."""
        return (2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean()).item()

    # In the plane the data have as many dimensions as the noise, so predicting x
    # has no advantage here. It learns small scales later.
    @pytest.mark.parametrize("prediction, bar", [("v", 0.01), ("x", 0.025)])
    def test_is_recovered(self, prediction, bar):
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = nn.Sequential(nn.Linear(3, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 2))
        network = lambda x, sigma: layers(torch.cat([x, sigma[:, None]], dim=1))
        objective = flow.RectifiedFlow(prediction)
        optimizer = torch.optim.Adam(layers.parameters(), lr=3e-3)
        num_steps = 1500
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)

        truth, another = self.draw(4000, generator), self.draw(4000, generator)
        start = torch.randn(4000, 2, generator=generator)
        drawn = lambda: flow.sample(objective.velocity_of(network), start, flow.schedule(40), "heun")
        untrained = self.distance(drawn(), truth)
        assert untrained > 0.1, untrained
        for _ in range(num_steps):
            data, noise = self.draw(256, generator), torch.randn(256, 2, generator=generator)
            loss = objective.loss(network, data, noise, flow.sample_sigma(256, generator=generator)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
        samples = drawn()
        found, floor = self.distance(samples, truth), self.distance(another, truth)

        # The ceiling is one Gaussian of the right mean and covariance, the best that a linear network can learn.
        blob = truth.mean(0) + torch.randn(4000, 2, generator=generator) @ torch.linalg.cholesky(truth.T.cov()).T
        ceiling = self.distance(blob, truth)
        assert floor < 0.002 and 0.08 < ceiling, (floor, ceiling)
        assert found < bar, (found, floor, ceiling)
        nearest = torch.cdist(samples, self.CENTERS).min(1)
        shares = torch.bincount(nearest.indices, minlength=4) / len(samples)
        torch.testing.assert_close(shares, self.WEIGHTS, atol=0.05, rtol=0)
        assert (nearest.values < 4 * self.SPREAD).float().mean() > 0.95
