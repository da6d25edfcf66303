"""The solvers' coefficients: what each makes of the sample, the denoiser's output and the step before.

Every step of all of them is the same few products, so that one generic program runs any of them::

    out = denoiser(input_scale * x, time)
    D   = clip(p_x * x + p_e * out)
    x'  = c_x * x + c_e * out + c_d * D + c_1 * D_before + c_2 * x_before + c_n * noise

``D`` is the predicted clean image; ``D_before`` and ``x_before`` are those of the step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calib.errors import CalibrationError
from calib.levels import ddim_levels, even_levels, karras_levels, multistep_levels, sigma_levels
from calib.schedules import ContinuousSchedule, NoiseSchedule, clean_and_noise

if TYPE_CHECKING:
    import numpy.typing as npt

    from calib.levels import Levels
    from calib.schedules import Schedule

    Array = npt.NDArray[np.float64]

COLUMNS = ("p_x", "p_e", "c_x", "c_e", "c_d", "c_1", "c_2", "c_n")


@dataclass(frozen=True)
class Table:
    """A solver's coefficients, float64.

    Attributes:
        times: ``[T]`` int64 or float32, what the denoiser is called with.
        rows, first: ``[T, 8]``, columns ``COLUMNS``; ``first`` for the first step a job runs.
        start: ``[T, 2]``, signal and noise share of the sampler's own sample at the input of each step.
        input_scale: ``[T]``, from that sample to the denoiser's input.
        initial_sigma: scale of the noise that step 0 starts from.
        clip: bound of ``D``, or None.
    """

    times: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    rows: Array
    first: Array
    start: Array
    input_scale: Array
    initial_sigma: float
    clip: float | None


def ddim(steps: int, schedule: Schedule, *, karras: bool | None) -> Table:
    """DDIM with eta 0 (Song et al., 2020, equation 12): ``x' = alpha' * D + sigma' * noise``.

    In continuous time this is the exponential integrator of first order of the probability flow.
    """
    levels = karras_levels(steps, schedule) if _by_ratio(schedule, karras) else ddim_levels(steps, schedule)
    clean, noise = clean_and_noise(levels.alpha, levels.sigma, schedule.prediction)
    rows = _rows(clean, c=levels.next_sigma[:, None] * noise, c_d=levels.next_alpha)
    return _process_table(levels, rows, rows, schedule)


def ddpm(steps: int, schedule: Schedule, *, karras: bool | None) -> Table:
    """Ancestral sampling (Ho et al., 2020, equations 6 and 7), for any two noise levels (Kingma et al., 2021)."""
    levels = karras_levels(steps, schedule) if _by_ratio(schedule, karras) else even_levels(steps, schedule)
    clean, _ = clean_and_noise(levels.alpha, levels.sigma, schedule.prediction)
    keeps = levels.alpha / levels.next_alpha
    added = levels.sigma**2 - keeps**2 * levels.next_sigma**2
    posterior = added * levels.next_sigma**2 / levels.sigma**2
    large = isinstance(schedule, NoiseSchedule) and schedule.variance == "large"
    spread = np.sqrt(np.maximum(added if large else posterior, 0.0)) * (levels.next_sigma > 0)
    of_x = keeps * levels.next_sigma**2 / levels.sigma**2
    rows = _rows(
        clean,
        c=np.stack([of_x, np.zeros(steps)], 1),
        c_d=levels.next_alpha * added / levels.sigma**2,
        c_n=spread,
    )
    return _process_table(levels, rows, rows, schedule)


def dpmpp2m(steps: int, schedule: Schedule, *, karras: bool | None) -> Table:
    """DPM-Solver++(2M), midpoint (Lu et al., 2022, algorithm 2), on Karras levels unless told otherwise.

    Of first order at a job's first step and at the last one, which ends at no noise.
    """
    levels = multistep_levels(steps, schedule) if karras is False else karras_levels(steps, schedule)
    if not (levels.alpha > 0).all():
        raise CalibrationError(
            "DPM-Solver++ cannot start without any signal",
            where="sampler",
            mend="use ddim or flow-euler, or a schedule whose `latest` is a little smaller",
        )
    clean, _ = clean_and_noise(levels.alpha, levels.sigma, schedule.prediction)
    half_log_snr = np.log(levels.alpha) - np.log(levels.sigma)
    step_size = np.append(np.diff(half_log_snr), np.inf)
    first_order = -levels.next_alpha * np.expm1(-step_size)
    correction = np.zeros(steps)
    correction[1:-1] = 0.5 * first_order[1:-1] * step_size[1:-1] / step_size[:-2]
    c = np.stack([levels.next_sigma / levels.sigma, np.zeros(steps)], 1)
    rows = _rows(clean, c=c, c_d=first_order + correction, c_1=-correction)
    table = _process_table(levels, rows, _rows(clean, c=c, c_d=first_order), schedule)
    return Table(table.times, table.rows, table.first, table.start, table.input_scale, table.initial_sigma, None)


def euler(steps: int, schedule: Schedule, *, karras: bool | None) -> Table:
    """Euler's method on the probability flow (Karras et al., 2022, algorithm 1 without correction).

    It runs in ``x / alpha``, where noise is added at unit signal; flows run in their own ``x``.
    """
    if _is_flow(schedule):
        return flow_euler(steps, schedule, karras=karras)
    levels = sigma_levels(steps, schedule, karras=_by_ratio(schedule, karras))
    clean, ratios, after = _unit_signal(levels, schedule)
    rows = _rows(clean, **_euler_step(ratios, after))
    return _unit_signal_table(levels, rows, rows, schedule)


def heun(steps: int, schedule: Schedule, *, karras: bool | None) -> Table:
    """Heun's method on the probability flow (Karras et al., 2022, algorithm 1): ``2T - 1`` evaluations.

    Even rows predict with Euler's step; odd rows go back to the sample before and take the mean of both slopes. A
    job that starts at an odd row has no sample before: that row leaves its sample as it is.
    """
    if _is_flow(schedule):
        raise CalibrationError("Heun's method for flows is not supported", where="sampler", mend="use flow-euler")
    levels = sigma_levels(steps, schedule, karras=_by_ratio(schedule, karras))
    clean, ratios, after = _unit_signal(levels, schedule)
    predict = _rows(clean, **_euler_step(ratios, after))
    change = np.diff(ratios) / 2
    correct = _rows(
        clean[1:],
        c=np.stack([change / ratios[1:], np.zeros(steps - 1)], 1),
        c_d=-change / ratios[1:],
        c_1=-change / ratios[:-1],
        c_2=1 + change / ratios[:-1],
    )
    idle = _rows(clean[1:], c=np.stack([np.ones(steps - 1), np.zeros(steps - 1)], 1))
    repeat = np.append(0, np.repeat(np.arange(1, steps), 2))
    rows, first = predict[repeat], predict[repeat]
    rows[1::2], first[1::2] = correct, idle
    return _unit_signal_table(levels, rows, first, schedule, clip=schedule.clip, repeat=repeat)


def flow_euler(steps: int, schedule: Schedule, *, karras: bool | None) -> Table:
    """Euler's method on a rectified flow: ``x' = x + (t' - t) * (noise - clean)``."""
    if not _is_flow(schedule):
        raise CalibrationError(
            "flow-euler needs a process with alpha + sigma = 1", where="sampler", mend="use euler or ddim"
        )
    levels = karras_levels(steps, schedule) if karras else even_levels(steps, schedule)
    clean, noise = clean_and_noise(levels.alpha, levels.sigma, schedule.prediction)
    change = (levels.next_sigma - levels.sigma)[:, None]
    rows = _rows(clean, c=np.array([[1.0, 0.0]]) + change * (noise - clean))
    return _process_table(levels, rows, rows, schedule)


def _rows(
    clean: Array, *, c: Array, c_d: Array | None = None, c_1: Array | None = None, c_2: Array | None = None,
    c_n: Array | None = None,
) -> Array:  # fmt: skip
    """Coefficients side by side, ``[T, 8]``; ``c`` holds (c_x, c_e)."""
    zero = np.zeros(len(clean))
    return np.hstack([clean, c, np.stack([zero if one is None else one for one in (c_d, c_1, c_2, c_n)], 1)])


def _process_table(levels: Levels, rows: Array, first: Array, schedule: Schedule) -> Table:
    """Of a solver that works on the process's own sample."""
    start = np.stack([levels.alpha, levels.sigma], 1)
    preserving = np.allclose(levels.alpha**2 + levels.sigma**2, 1)
    initial = 1.0 if preserving else float(levels.sigma[0])
    return Table(levels.times, rows, first, start, levels.input_scale, initial, schedule.clip)


def _unit_signal(levels: Levels, schedule: Schedule) -> tuple[Array, Array, Array]:
    """Coefficients of the clean image in ``x / alpha`` and the output; noise levels there, now and after the step."""
    if not (levels.alpha > 0).all():
        raise CalibrationError("the process starts without any signal", where="sampler", mend="use ddim or flow-euler")
    clean, _ = clean_and_noise(levels.alpha, levels.sigma, schedule.prediction)
    clean[:, 0] *= levels.alpha
    return clean, levels.sigma / levels.alpha, levels.next_sigma / levels.next_alpha


def _euler_step(ratios: Array, after: Array) -> dict[str, Array]:
    """``x + (after - now) * (x - D) / now``."""
    share = after / ratios
    return {"c": np.stack([share, np.zeros(len(share))], 1), "c_d": 1 - share}


def _unit_signal_table(
    levels: Levels,
    rows: Array,
    first: Array,
    schedule: Schedule,
    *,
    clip: float | None = None,
    repeat: npt.NDArray[np.int64] | None = None,
) -> Table:
    """Of a solver that works on ``x / alpha``; ``repeat`` picks the level of each evaluation."""
    pick = np.arange(len(levels.alpha)) if repeat is None else repeat
    ratios = levels.sigma / levels.alpha
    start = np.stack([np.ones(len(ratios)), ratios], 1)
    scaled = isinstance(schedule, NoiseSchedule) and schedule.spacing == "leading"
    initial = float(np.hypot(ratios[0], 1.0) if scaled else ratios[0])
    return Table(levels.times[pick], rows, first, start[pick], (levels.input_scale * levels.alpha)[pick], initial, clip)


def _is_flow(schedule: Schedule) -> bool:
    if isinstance(schedule, NoiseSchedule):
        return False
    times = np.linspace(schedule.earliest, schedule.latest, 16)
    return bool(np.allclose(schedule.alpha(times) + schedule.sigma(times), 1))


def _by_ratio(schedule: Schedule, karras: bool | None) -> bool:
    """Whether to choose Karras levels: in continuous time unless told otherwise, where the process starts with signal.

    Discrete timesteps are taken as diffusers spaces them; evenly spaced real times are no habit of anybody's, and
    much worse (200 DDIM steps over a VP process with B(t) = t up to 10 lose a tenth of the data's spread).
    """
    if karras is not None:
        return karras
    return isinstance(schedule, ContinuousSchedule) and bool(schedule.alpha(np.array([schedule.latest]))[0] > 0)
