"""Processes and predictions: the algebra, and samplers that must find a distribution that is known exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from calib.errors import CalibrationError, ModelError
from calib.noise import noise_batch
from calib.samplers import build_sampler
from calib.sampling import sample, start_generation
from calib.schedules import (
    ContinuousSchedule,
    NoiseSchedule,
    Prediction,
    Schedule,
    clean_and_noise,
    edm,
    flow,
    read_prediction,
    ve,
    vp,
)

Array = npt.NDArray[np.float64]
NAMES = ["epsilon", "sample", "v_prediction", "score", "scaled_score", "flow"]
DATA_MEAN, DATA_STD = 0.4, 0.5

SAYS: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "epsilon": lambda _a, _s, _c, n: n,
    "sample": lambda _a, _s, c, _n: c,
    "v_prediction": lambda a, s, c, n: a * n - s * c,
    "score": lambda _a, s, _c, n: -n / s,
    "scaled_score": lambda _a, _s, _c, n: -n,
    "flow": lambda _a, _s, c, n: n - c,
}
"""What each kind of network says, by its definition."""


@pytest.mark.parametrize("name", NAMES)
def test_clean_image_and_noise_come_back_from_what_the_network_says(name: str) -> None:
    generator = np.random.default_rng(1)
    angle = generator.uniform(0.1, 1.4, 20)
    alpha, sigma = np.cos(angle), np.sin(angle)
    clean, noise = generator.normal(size=(2, 20))
    x = alpha * clean + sigma * noise
    out = SAYS[name](alpha, sigma, clean, noise)
    to_clean, to_noise = clean_and_noise(alpha, sigma, read_prediction(name))
    np.testing.assert_allclose(to_clean[:, 0] * x + to_clean[:, 1] * out, clean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(to_noise[:, 0] * x + to_noise[:, 1] * out, noise, rtol=1e-9, atol=1e-9)


def test_a_prediction_can_be_a_function() -> None:
    def half_clean(alpha: Array, sigma: Array) -> tuple[Array, Array]:
        del sigma
        return np.zeros_like(alpha), np.full_like(alpha, 2.0)  # the network gives half the clean image

    alpha, sigma = np.array([0.6]), np.array([0.8])
    to_clean, to_noise = clean_and_noise(alpha, sigma, half_clean)
    x, out = 0.6 * 0.5 + 0.8 * -1.5, 0.25
    np.testing.assert_allclose(to_clean @ [x, out], [0.5])
    np.testing.assert_allclose(to_noise @ [x, out], [-1.5])


def test_names_and_aliases() -> None:
    assert [read_prediction(name) for name in ("eps", "x0", "v", "score")] == [
        "epsilon",
        "sample",
        "v_prediction",
        "score",
    ]
    with pytest.raises(ModelError, match=r"'guess' is not supported.*one of epsilon"):
        read_prediction("guess")


def oracle(schedule: Schedule, steps: int, name: str) -> Callable[..., torch.Tensor]:
    """The perfect network for data that are N(mean, std^2) in each element, called as the sampler calls it.

    Given ``x = alpha * clean + sigma * noise`` the expected clean value is known in closed form.
    """
    sampler = build_sampler(name, steps, schedule)
    table = dict(zip(sampler.timesteps.tolist(), range(sampler.steps), strict=False))

    def denoise(seen: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        i = table[t.item()]
        alpha, sigma = (float(value) for value in _process(schedule, t.item()))
        scale = 1.0
        if isinstance(schedule, ContinuousSchedule) and schedule.input_scale is not None:
            scale = float(schedule.input_scale(np.array(alpha), np.array(sigma)))
        assert i >= 0
        x = seen.double() / scale
        power = (alpha * DATA_STD) ** 2 + sigma**2
        clean = DATA_MEAN + alpha * DATA_STD**2 / power * (x - alpha * DATA_MEAN)
        a, b = clean_and_noise(np.array([alpha]), np.array([sigma]), schedule.prediction)[0][0]
        return ((clean - a * x) / b).float()

    return denoise


def _process(schedule: Schedule, seen_time: float) -> tuple[float, float]:
    """(alpha, sigma) at the time that a network is told."""
    if isinstance(schedule, NoiseSchedule):
        signal = np.interp(seen_time, np.arange(1000), schedule.alphas_cumprod)
        return float(np.sqrt(signal)), float(np.sqrt(1 - signal))
    grid = np.linspace(schedule.earliest, schedule.latest, 200_001)
    time = np.interp(seen_time, schedule.denoiser_time(grid), grid)
    return float(schedule.alpha(time)), float(schedule.sigma(time))


PROCESSES: dict[str, Schedule] = {
    "vp": vp(),
    "vp with another beta": vp(lambda t: t, latest=10.0),
    "vp, epsilon": vp(prediction="eps"),
    "ve": ve(0.01, 20.0),
    "ve in sigma": ve(0.01, 20.0, prediction="x0", time="sigma"),
    "edm": edm(0.01, 20.0),
    "flow": flow(),
    "shifted flow": flow(3.0),
}


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp2m", "euler", "heun"])
def test_a_perfect_network_gives_the_data_it_was_trained_on(process: str, name: str) -> None:
    schedule = PROCESSES[process]
    if "flow" in process and name in {"dpmpp2m", "heun"}:
        with pytest.raises(CalibrationError):
            build_sampler(name, 10, schedule)
        return
    steps = 200 if name in {"ddim", "ddpm"} else 60
    seeds = range(4)
    sampler = build_sampler(name, steps, schedule)
    x = start_generation(sampler, noise_batch(seeds, (1, 64, 64)))
    images = sample(oracle(schedule, steps, name), sampler, x, seeds=seeds)
    assert float(images.mean()) == pytest.approx(DATA_MEAN, abs=0.03)
    assert float(images.std()) == pytest.approx(DATA_STD, rel=0.06)


def test_higher_order_solvers_are_nearer_to_the_solution() -> None:
    schedule = vp()
    noise = noise_batch([1], (1, 32, 32))

    def end(name: str, steps: int) -> torch.Tensor:
        sampler = build_sampler(name, steps, schedule)
        return sample(oracle(schedule, steps, name), sampler, start_generation(sampler, noise))

    exact = end("heun", 400)

    def gain(name: str) -> float:
        """How much smaller the mean square error gets with twice the steps."""
        few, many = (float((end(name, steps) - exact).square().mean()) for steps in (30, 60))
        return few / many

    assert 2.5 < gain("euler") < 6, "first order: 4"
    assert gain("heun") > 10, "second order: 16"
    assert gain("dpmpp2m") > 10


def test_ddim_on_a_flow_is_eulers_method() -> None:
    ddim, euler = build_sampler("ddim", 12, flow(2.0)), build_sampler("flow-euler", 12, flow(2.0))
    x, out = noise_batch([1], (1, 4, 4)), noise_batch([2], (1, 4, 4))
    for i in range(12):
        clean = ddim.coefficients[i, :2]
        moved = ddim.coefficients[i, 2] * x + ddim.coefficients[i, 3] * out
        moved = moved + ddim.coefficients[i, 4] * (clean[0] * x + clean[1] * out)
        torch.testing.assert_close(moved, euler.coefficients[i, 2] * x + euler.coefficients[i, 3] * out)


@pytest.mark.parametrize("schedule", [vp(), ve(), edm()], ids=["vp", "ve", "edm"])
def test_continuous_levels_reach_from_end_to_end(schedule: ContinuousSchedule) -> None:
    sampler = build_sampler("heun", 10, schedule)
    ratios = sampler.start_coefficients[:, 1]
    ends = np.array([schedule.latest, schedule.earliest])
    expected = schedule.sigma(ends) / schedule.alpha(ends)
    np.testing.assert_allclose(ratios[[0, -1]], expected, rtol=1e-5)
    np.testing.assert_allclose(sampler.timesteps[[0, -1]], schedule.denoiser_time(ends), rtol=1e-5, atol=1e-9)
    assert sampler.timesteps.dtype == torch.float32


def test_an_edm_network_sees_inputs_of_unit_variance() -> None:
    sampler = build_sampler("euler", 10, edm())
    power = sampler.start_coefficients[:, 0] ** 2 * 0.25 + sampler.start_coefficients[:, 1] ** 2
    torch.testing.assert_close(sampler.input_scale * power.sqrt(), torch.ones(10))


def test_pure_noise_is_refused_where_a_solver_cannot_start_from_it() -> None:
    with pytest.raises(CalibrationError, match="latest"):
        build_sampler("ddim", 10, dataclasses.replace(flow(), prediction="epsilon"))
    with pytest.raises(CalibrationError, match="flow-euler"):
        build_sampler("dpmpp2m", 10, flow())
    with pytest.raises(CalibrationError, match="alpha"):
        build_sampler("flow-euler", 10, vp())
    nearly = dataclasses.replace(flow(), latest=0.999)
    assert build_sampler("dpmpp2m", 10, nearly).steps == 10


@pytest.mark.parametrize(
    "make",
    [
        lambda: ContinuousSchedule(np.ones_like, lambda t: t, earliest=0.0),
        lambda: ContinuousSchedule(np.ones_like, lambda t: 1 - t / 2),
        lambda: ContinuousSchedule(np.ones_like, lambda t: t, earliest=1.0),
        lambda: vp(lambda t: 0 * t),
    ],
)
def test_what_is_no_noising_process_is_refused(make: Callable[[], ContinuousSchedule]) -> None:
    with pytest.raises(CalibrationError, match="ContinuousSchedule"):
        make()


def test_predictions_are_typed() -> None:
    prediction: Prediction = read_prediction("v")
    assert vp(prediction=prediction).prediction == "v_prediction"
