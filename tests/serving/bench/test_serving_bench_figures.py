"""Figures of given times, the plateau of given rates, and the law in closed form against the law event by event."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogger.serving.bench.figures import (
    ClientLoad,
    Sample,
    at_plateau,
    figures,
    quantile,
    quantiles,
)
from catalogger.testing.law import Law

IDLE = ClientLoad()


def test_a_request_adds_to_the_throughput_by_its_part_of_the_measured_time() -> None:
    samples = [
        Sample(0.0, 2.0, 100, 10, counted=False),  # half of it before
        Sample(2.0, 4.0, 100, 10),
        Sample(4.0, 6.0, 100, 10),  # half of it after
    ]
    step = figures(1, samples, 1.0, 5.0, IDLE)
    assert step.request_rate == pytest.approx(2 / 4)
    assert step.output_rate == pytest.approx(20 / 4)
    assert step.whole_rate == pytest.approx(220 / 4)


def test_a_latency_counts_where_its_request_was_begun_while_measured() -> None:
    samples = [Sample(0.0, 9.0, counted=False), Sample(1.0, 3.0), Sample(3.0, 9.0)]
    step = figures(1, samples, 1.0, 5.0, IDLE)
    assert step.requests == step.answered == 2
    assert step.latency is not None
    assert (step.latency.p50, step.latency.p99) == pytest.approx((4.0, 5.96))


def test_a_failed_request_is_no_latency_and_no_throughput() -> None:
    samples = [Sample(0.0, 1.0, 10, 5), Sample(0.0, 0.001, error="429"), Sample(0.0, 60.0, error="timeout")]
    step = figures(3, samples, 0.0, 1.0, IDLE)
    assert (step.requests, step.answered, step.too_many, step.failed) == (3, 1, 1, 1)
    assert step.errors == {"429": 1, "timeout": 1}
    assert step.latency is not None
    assert step.latency.p99 == 1.0
    assert step.whole_rate == 15


def test_where_nothing_is_answered_there_are_no_times() -> None:
    step = figures(1, [Sample(0.0, 1.0, error="HTTP 500")], 0.0, 1.0, IDLE)
    assert (step.latency, step.first_token, step.per_token) == (None, None, None)
    assert (step.whole_rate, step.input_tokens) == (0.0, 0.0)


def test_the_time_of_a_token_is_that_between_the_first_and_the_last() -> None:
    sample = Sample(10.0, 13.0, 5, 11, first=11.0, last=12.5)
    step = figures(1, [sample], 10.0, 13.0, IDLE)
    assert step.first_token is not None
    assert step.per_token is not None
    assert step.first_token.p50 == pytest.approx(1.0)
    assert step.per_token.p50 == pytest.approx(0.15)
    assert Sample(0.0, 1.0, 5, 1, first=0.5, last=0.5).per_token is None


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=50), st.floats(0, 1))
@settings(deadline=None)
def test_quantiles_lie_among_the_values_and_rise(values: list[float], share: float) -> None:
    ordered = sorted(values)
    assert ordered[0] <= quantile(ordered, share) <= ordered[-1] + 1e-9
    found = quantiles(values)
    assert found is not None
    assert found.p50 <= found.p95 + 1e-9
    assert found.p95 <= found.p99 + 1e-9


def test_quantiles_are_those_that_statistics_gives() -> None:
    from statistics import quantiles as reference

    values = [0.1, 3.0, 0.7, 2.2, 9.5, 4.4, 1.0]
    hundredths = reference(values, n=100, method="inclusive")
    found = quantiles(values)
    assert found is not None
    assert (found.p50, found.p95, found.p99) == pytest.approx((hundredths[49], hundredths[94], hundredths[98]))


@pytest.mark.parametrize(
    ("rates", "ended"),
    [
        ([100, 200], False),
        ([100, 102, 104], True),  # neither adds more than 5 % to all before it
        ([100, 200, 205], False),  # one step that adds little is not yet the end
        ([100, 200, 205, 204], True),
        ([100, 200, 205, 230], False),
        ([100, 200, 150, 190], True),  # 190 is more than the step before, and less than the best
        ([100, 105, 110.25], True),
        ([100, 106, 113], False),
    ],
)
def test_the_ladder_ends_after_two_steps_that_add_too_little(rates: list[float], ended: bool) -> None:
    assert at_plateau(rates, 5) is ended


@pytest.mark.parametrize(
    ("late", "latency", "limits"),
    [(0.009, 0.1, False), (0.011, 0.1, True), (0.011, 1.0, False), (0.049, 1.0, False), (0.051, 1.0, True)],
)
def test_a_client_that_is_late_is_the_limit(late: float, latency: float, limits: bool) -> None:
    assert ClientLoad(late, 1.0, 0.5).limits(latency) is limits


def test_a_client_that_fills_its_core_is_the_limit() -> None:
    assert ClientLoad(0.0, 0.0, 0.95).limits(10.0)


@pytest.mark.parametrize(
    ("clients", "throughput", "latency"), [(1, 2.0, 0.5), (4, 8.0, 0.5), (8, 8.0, 1.0), (12, 8.0, 1.5)]
)
def test_the_law_of_equal_requests_is_in_closed_form_what_it_is_event_by_event(
    clients: int, throughput: float, latency: float
) -> None:
    law = Law(servers=4, base=0.1, per_input=0.001, per_output=0.03)
    assert law.throughput(clients, 100, 10) == pytest.approx(throughput)
    assert law.latency(clients, 100, 10, 0.95) == pytest.approx(latency)
    simulated = law.simulate(clients, 100, 10, 50)
    assert simulated.latencies[clients:] == pytest.approx([latency] * (clients * 49))
    assert simulated.throughput == pytest.approx(throughput)


def test_the_law_of_chance_has_the_quantiles_of_its_distribution() -> None:
    law = Law(servers=8, base=0.2, spread=0.5, seed=3)
    latencies = sorted(law.simulate(8, 1, 1, 4000).latencies)
    for share in (0.5, 0.95, 0.99):
        assert quantile(latencies, share) == pytest.approx(law.latency(8, 1, 1, share), rel=0.05)
    assert sum(latencies) / len(latencies) == pytest.approx(law.service(1, 1) * exp(0.125), rel=0.02)


def test_the_law_has_no_closed_form_where_requests_of_chance_wait() -> None:
    with pytest.raises(ValueError, match="no closed form"):
        Law(servers=4, spread=0.1).latency(8, 1, 1, 0.5)
    with pytest.raises(ValueError, match="no closed form"):
        Law(servers=4).latency(6, 1, 1, 0.5)
