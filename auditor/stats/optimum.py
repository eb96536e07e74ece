"""The fewest queries any sequential test could need on average: the yardstick of every procedure.

Notes:
    For a level and a power, the least mean number of queries at the hit rate is the value of a constrained problem.
    Its Lagrangian is solved by backward recursion over the counts of hits; each choice of the two multipliers bounds
    the least mean from below, and the best choice makes the bound tight (randomised tests included). Numerical slack
    in the maximisation can only make the yardstick easier to meet by that slack, never invalid.
"""

import math

import numpy as np

from auditor.stats.queries import bernoulli_kl
from auditor.stats.sequential import Floats

MAX_HORIZON = 900


def least_mean(*, alpha: float, power: float, rate: float, null_rate: float) -> float:
    """Return the least mean number of queries at ``rate`` of any sequential test with this level and power.

    Raises:
        ValueError: rates that are not 0 < null_rate < rate < 1, or not 0 < alpha < power < 1.
    """
    from scipy.optimize import minimize

    if not 0.0 < null_rate < rate < 1.0:
        raise ValueError("rates must satisfy 0 < null_rate < rate < 1")
    if not 0.0 < alpha < power < 1.0:
        raise ValueError("alpha must be positive and below power, and power below 1")
    divergence = bernoulli_kl(rate, null_rate)
    log_ratio = _log_ratios(rate, null_rate, _horizon(alpha, rate, null_rate, divergence))

    def shortfall(multipliers: Floats) -> float:
        log_false, log_miss = min(float(multipliers[0]), 80.0), min(float(multipliers[1]), 40.0)
        value = _bellman(log_ratio, rate, log_false, log_miss)
        return -(value - math.exp(log_miss) * (1.0 - power) - math.exp(log_false) * alpha)

    start = [-math.log(alpha) - math.log(divergence), math.log(10.0 / divergence + 20.0)]
    found = minimize(shortfall, start, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-4, "maxfev": 220})
    return float(-found.fun)


def _horizon(alpha: float, rate: float, null_rate: float, divergence: float) -> int:
    # Ten standard deviations past the mean of the likelihood-ratio test: what lies beyond adds nothing visible.
    step = math.log(rate * (1.0 - null_rate) / (null_rate * (1.0 - rate)))
    mean = (6.0 - math.log(alpha)) / divergence
    spread = math.sqrt(mean * rate * (1.0 - rate)) * step / divergence
    return min(MAX_HORIZON, int(mean + 10.0 * spread + 60.0))


def _log_ratios(rate: float, null_rate: float, horizon: int) -> list[Floats]:
    hit, miss = math.log(rate / null_rate), math.log1p(-rate) - math.log1p(-null_rate)
    k = np.arange(horizon + 1)
    return [np.asarray(k[: n + 1] * hit + (n - k[: n + 1]) * miss, dtype=np.float64) for n in range(horizon + 1)]


def _bellman(log_ratio: list[Floats], rate: float, log_false: float, log_miss: float) -> float:
    # Stopping costs the cheaper of a miss and a false claim, both seen from the hit rate's side.
    value = np.exp(np.minimum(log_miss, log_false - log_ratio[-1]))
    for ratios in reversed(log_ratio[:-1]):
        stop = np.exp(np.minimum(log_miss, log_false - ratios))
        value = np.minimum(stop, 1.0 + rate * value[1:] + (1.0 - rate) * value[:-1])
    return float(value[0])
