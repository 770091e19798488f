from dataclasses import replace
from itertools import product
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.errors import MissingDependencyError
from jigsaw_triton.profiles import estimation
from jigsaw_triton.profiles.design import most_informative
from jigsaw_triton.profiles.estimation import Prior, Sample, estimate
from jigsaw_triton.profiles.fit import FAR, INTERVAL, LEAST_ROWS, LatencyFit, calibration, fit_latency
from jigsaw_triton.profiles.latency_model import SHARES, Array, Configuration, Points, log_latency, monotone
from jigsaw_triton.profiles.table import ProfileRow
from tests.fakes.problems import row

MEAN = Prior().mean
SHIFTS = {"small": (-0.7, -0.8), "medium": (0.0, 0.0), "large": (0.6, 0.9)}
"""Variant -> difference of its floor and work from the prior's mean, as logarithms. All differ alike from the mean in
their serial part, sharpness and interference."""

GRID = [(kind, instances, batch) for kind in SHARES for instances in (1, 2, 4) for batch in (1, 2, 4, 8, 16, 32)]
SPARSE = GRID[::9]


def parameters(variant: str) -> Array:
    shifted = MEAN.copy()
    shifted[:2] += SHIFTS[variant]
    shifted[6:9] += (1.5, -0.3, 1.5)
    return shifted


def true_ms(variant: str, configurations: list[Configuration]) -> Array:
    latencies: Array = np.exp(log_latency(parameters(variant), Points.of(configurations, {}))[0])
    return latencies


def rows(configurations: list[Configuration], noise: float = 0.0, seed: int = 1) -> list[ProfileRow]:
    """Returns measured rows of all variants, with lognormal noise."""
    rng = np.random.default_rng(seed)
    found = []
    for variant in SHIFTS:
        factors = np.exp(noise * rng.standard_normal(len(configurations)))
        for (kind, instances, batch), ms in zip(
            configurations, true_ms(variant, configurations) * factors, strict=True
        ):
            one = row("t", variant, slice_=kind, instances=instances, batch=batch, p95_ms=1.25 * ms, gpu="A100-80GB")
            found.append(replace(one, source="measured"))
    return found


def fit_of(measured: list[ProfileRow]) -> LatencyFit:
    return fit_latency(measured)["A100-80GB"]


def errors(fit: LatencyFit) -> Array:
    return np.concatenate(
        [np.abs(fit.predict(("t", variant), GRID) / true_ms(variant, GRID) - 1) for variant in SHIFTS]
    )


def test_a_few_exact_rows_give_all_latencies() -> None:
    off = errors(fit_of(rows(SPARSE)))
    assert np.median(off) < 0.02 and np.quantile(off, 0.95) < 0.12


@pytest.mark.slow
def test_a_wrong_row_hardly_changes_the_fit() -> None:
    measured = rows(SPARSE, noise=0.02)
    before = np.median(errors(fit_of(measured)))
    measured[4] = replace(measured[4], latency_p50_ms=10 * measured[4].latency_p50_ms)
    assert np.median(errors(fit_of(measured))) < before + 0.02


@pytest.mark.slow
def test_the_interval_covers_nine_of_ten_rows_and_the_stated_error_is_about_right() -> None:
    inside, off, stated = [], [], []
    for seed in range(3):
        fit = fit_of(rows(GRID[::4], noise=0.06, seed=seed))
        stated += [one.median_error for one in fit.variants.values()]
        unseen = rows(GRID, noise=0.06, seed=100 + seed)
        for variant in SHIFTS:
            actual = np.array([r.latency_p50_ms for r in unseen if r.key.variant == variant])
            low, middle, high = (fit.predict(("t", variant), GRID, quantile=q) for q in (0.05, 0.5, 0.95))
            inside.append((low <= actual) & (actual <= high))
            off.append(np.abs(middle / actual - 1))
    assert 0.8 < np.mean(inside) < 0.96
    assert np.median(stated) == pytest.approx(np.median(off), rel=0.3)


@pytest.mark.parametrize("variants", [{"large"}, set(SHIFTS)])
def test_the_prediction_of_a_row_in_cross_validation_does_not_depend_on_it(variants: set[str]) -> None:
    measured = [r for r in rows(SPARSE[:6], noise=0.05) if r.key.variant in variants]
    index = next(i for i, r in enumerate(measured) if r.key.variant == "large")
    predicted = []
    for factor in (1.0, 3.0):
        ms = factor * measured[index].latency_p50_ms
        changed = [*measured[:index], replace(measured[index], latency_p50_ms=ms), *measured[index + 1 :]]
        predicted.append(np.log(ms) - fit_of(changed).variants["t", "large"].deviations[0])
    assert predicted[1] == pytest.approx(predicted[0], abs=1e-9)


def test_variants_share_what_one_of_them_cannot_tell() -> None:
    """The lone rows have no configuration with several instances on a large slice."""
    few = [("1g", 1, 1), ("1g", 1, 8), ("7g", 1, 1), ("7g", 1, 32)]
    lone = [r for r in rows(few) if r.key.variant == "large"]
    others = [r for r in rows(GRID) if r.key.variant != "large"]
    alone, together = fit_of(lone), fit_of(lone + others)
    target = [("4g", 4, 16), ("3g", 4, 8), ("1g", 2, 2)]
    off = [
        float(np.abs(fit.predict(("t", "large"), target) / true_ms("large", target) - 1).max())
        for fit in (alone, together)
    ]
    assert off[1] < off[0] and off[1] < 0.1


def test_few_rows_cannot_narrow_the_interval() -> None:
    exact = [r for r in rows(SPARSE[:LEAST_ROWS]) if r.key.variant == "small"]
    calibrated = fit_of(exact).calibrated
    assert calibrated.near == calibrated.far >= 2.0


def test_rows_far_from_the_measured_ones_do_not_widen_the_other_intervals() -> None:
    near, far = np.full(40, FAR / 2), np.full(40, 2 * FAR)
    ratios = np.concatenate((np.linspace(0, 2, 40), np.linspace(0, 6, 40)))
    calibrated = calibration(ratios, np.concatenate((near, far)))
    width = NormalDist().inv_cdf((1 + INTERVAL) / 2)
    assert calibrated.near * width == pytest.approx(1.8, abs=0.1)
    assert calibrated.far * width == pytest.approx(5.4, abs=0.3)
    assert calibrated(np.array((FAR, 1.01 * FAR))) == pytest.approx(
        (calibrated.near * FAR, calibrated.far * 1.01 * FAR)
    )


def test_a_group_with_too_few_rows_gets_the_factor_of_all_rows() -> None:
    ratios, expected = np.linspace(0, 2, 30), np.concatenate((np.full(25, FAR / 2), np.full(5, 2 * FAR)))
    calibrated = calibration(ratios, expected)
    assert calibrated.far == pytest.approx(calibration(ratios, np.full(30, FAR)).near)
    assert calibrated.near < calibrated.far


def test_variants_with_too_few_measured_rows_are_left_out() -> None:
    measured = rows(SPARSE)
    measured = [r for r in measured if r.key.variant != "small"] + measured[: LEAST_ROWS - 1]
    measured += [replace(r, source="assumed") for r in rows(SPARSE[LEAST_ROWS:])[:9]]
    assert set(fit_of(measured).variants) == {("t", "medium"), ("t", "large")}
    assert fit_latency(measured[-3:]) == {}


@pytest.mark.slow
def test_gpu_models_are_fitted_apart() -> None:
    slow = [replace(r, key=replace(r.key, gpu="H100-80GB"), latency_p50_ms=3 * r.latency_p50_ms) for r in rows(SPARSE)]
    fits = fit_latency(rows(SPARSE) + slow)
    one, other = (fits[gpu].predict(("t", "large"), SPARSE) for gpu in ("A100-80GB", "H100-80GB"))
    assert np.median(other / one) == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_neither_a_larger_batch_nor_more_instances_are_predicted_to_be_faster(seed: int) -> None:
    """Variants with four rows have wide intervals, which get narrower near a row."""
    picked = np.random.default_rng(seed).permutation(len(GRID))[:LEAST_ROWS]
    configurations = [GRID[index] for index in picked]
    measured = [r for r in rows(configurations, noise=0.1, seed=seed) if r.key.variant != "medium"]
    measured += [replace(r, latency_p50_ms=4 * r.latency_p50_ms) for r in rows(GRID[::4]) if r.key.batch == 1]
    fit = fit_of(measured)
    for variant, quantile, kind in product(("small", "large"), (0.1, 0.5, 0.9), SHARES):
        grid = [(kind, instances, batch) for instances in (1, 2, 3, 4) for batch in (1, 2, 3, 4, 8, 16, 32, 64)]
        latencies = fit.predict(("t", variant), grid, quantile=quantile).reshape(4, 8)
        assert (np.diff(latencies, axis=0) >= -1e-9).all(), (variant, quantile, kind)
        assert (np.diff(latencies, axis=1) >= -1e-9).all(), (variant, quantile, kind)


def test_each_chosen_point_tells_more_than_a_repeated_one() -> None:
    prior = Prior()
    found = estimate(Sample((), ()), prior)
    measured: list[Configuration] = []
    for _ in range(8):
        measured.append(most_informative(found, GRID, measured))
        found = estimate(Sample(tuple(measured), tuple(true_ms("large", measured))), prior)
    same = estimate(Sample((GRID[0],) * 8, tuple(true_ms("large", [GRID[0]] * 8))), prior)
    assert len(set(measured)) == 8
    assert len({kind for kind, _, _ in measured}) > 2
    assert found.predict(GRID)[1].max() < 0.5 * same.predict(GRID)[1].max()


def test_predictions_use_the_limited_factor_of_a_single_item() -> None:
    raised = MEAN.copy()
    raised[4] = 3.0
    found = estimation.Estimate(raised, np.zeros((len(raised), len(raised))), {})
    assert found.predict([("1g", 1, 1)])[0] == log_latency(monotone(raised), Points.of([("1g", 1, 1)], {}))[0]


def test_without_scipy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *_: Any) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(estimation, "import_module", missing)
    with pytest.raises(MissingDependencyError) as caught:
        fit_latency(rows(SPARSE))
    assert caught.value.hint == "pip install 'jigsaw-triton[fit]'"


@pytest.mark.slow
def test_rows_of_the_other_kind_are_not_fitted() -> None:
    """Processes under MPS here take three times as long; a fit of both would lie between."""
    configurations = [(kind, n, batch) for kind in ("1g", "2g") for n in (1, 2, 4) for batch in (1, 4, 16)]
    found = [replace(r, processes="streams") for r in rows(configurations)]
    others = [
        replace(r, key=replace(r.key, batch=2 * r.key.batch), processes="mps", latency_p50_ms=3 * r.latency_p50_ms)
        for r in found
        if r.key.instances == 2
    ]
    alone, both = fit_of(found), fit_of([*found, *others])
    assert both.processes == "streams"
    assert [both.covers(r) for r in (found[-1], others[0])] == [True, False]
    assert both.predict(("t", "small"), configurations) == pytest.approx(alone.predict(("t", "small"), configurations))
    chosen = fit_latency([*found, *others], processes="mps")["A100-80GB"]
    assert chosen.processes == "mps"
    assert chosen.variants["t", "small"].rows == sum(r.key.instances == 1 for r in found) // 3 + len(others) // 3
