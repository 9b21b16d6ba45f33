"""Every controller in every scenario of `tests.pacing.scenarios`, by simulation.

Half simulated hours; the table shows the worst of the seeds, for ours ten of them. It depends on
nothing but the seeds, so the figures are the same on every machine.

    ours     what a run gets
    fixed    the rate that is believed, whatever is answered
    AIMD     up by half a request a second every second, down by three tenths at a refusal
    CUBIC    the SDK's adaptive mode: botocore's own calculator and clocker
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
from typing import TYPE_CHECKING

from tests.benchmarks.report import Section, Target
from tests.pacing.rivals import Aimd, Cubic, Fixed
from tests.pacing.scenarios import SCENARIOS, Score, score

if TYPE_CHECKING:
    from bulk_updater.pacing import Controller
    from tests.benchmarks.report import Bench

__all__ = ["bench"]

_N_SEEDS = 10
_N_SEEDS_OF_RIVALS = 3
_CONTENDERS = ("ours", "fixed", "AIMD", "CUBIC")


def _make(contender: str, believed_per_s: float) -> Controller:
    if contender == "fixed":
        return Fixed(believed_per_s)
    return Aimd(believed_per_s) if contender == "AIMD" else Cubic()


def _play(told: tuple[int, str, int]) -> Score:
    at, contender, seed = told
    scenario = SCENARIOS[at]
    if contender == "ours":
        return score(scenario, range(seed, seed + 1))
    return score(
        scenario,
        range(seed, seed + 1),
        lambda _: _make(contender, scenario.quota.rate_per_s),
    )


def _worst(scores: list[Score]) -> Score:
    return Score(
        utilisation=min(found.utilisation for found in scores),
        throttled=max(found.throttled for found in scores),
        live_refused=max(found.live_refused for found in scores),
        shares=[shares for found in scores for shares in found.shares],
    )


def _cell(found: Score, *, live: bool) -> str:
    cell = f"{found.utilisation:.3f} / {100 * found.throttled:.2f} %"
    return f"{cell} / {100 * found.live_refused:.2f} %" if live else cell


def bench(bench: Bench) -> Section:
    """All of them, over all cores; `quick` plays one seed of two scenarios."""
    numbers = range(2 if bench.quick else len(SCENARIOS))
    jobs = [
        (at, contender, seed)
        for at, contender in itertools.product(numbers, _CONTENDERS)
        for seed in range(
            1 if bench.quick else _N_SEEDS if contender == "ours" else _N_SEEDS_OF_RIVALS
        )
    ]
    with multiprocessing.Pool() as pool:
        scores = dict(zip(jobs, pool.map(_play, jobs, chunksize=1), strict=True))
    rows, targets = [], []
    for at in numbers:
        scenario = SCENARIOS[at]
        live = scenario.world.live_per_s > 0
        worst = {
            contender: _worst(
                [found for (one, who, _), found in scores.items() if (one, who) == (at, contender)]
            )
            for contender in _CONTENDERS
        }
        rows.append([scenario.name, *(_cell(worst[who], live=live) for who in _CONTENDERS)])
        targets.append(_judge(at, worst["ours"]))
    return Section(
        what=(
            f"Simulated: utilisation / throttled share of the attempts, and, where there are live "
            f"requests, the share of them that was refused; the worst of {_N_SEEDS} seeds for "
            f"ours, of {_N_SEEDS_OF_RIVALS} for the others."
        ),
        header=["scenario", *_CONTENDERS],
        rows=rows,
        targets=targets,
    )


def _judge(at: int, found: Score) -> Target:
    scenario = SCENARIOS[at]
    bounds, reached = [], []
    met = True
    if scenario.utilisation is not None:
        bounds.append(f"at least {scenario.utilisation:.2f}")
        reached.append(f"{found.utilisation:.3f}")
        met &= found.utilisation >= scenario.utilisation
    if scenario.throttled < math.inf:
        bounds.append(f"at most {100 * scenario.throttled:g} % throttled")
        reached.append(f"{100 * found.throttled:.2f} %")
        met &= found.throttled <= scenario.throttled
    if scenario.live_refused < math.inf:
        bounds.append(f"at most {100 * scenario.live_refused:g} % of live requests refused")
        reached.append(f"{100 * found.live_refused:.2f} %")
        met &= found.live_refused <= scenario.live_refused
    if found.shares:
        low, high = (round(pick(map(pick, found.shares)), 1) for pick in (min, max))
        bounds.append("each 40 to 60 a second over the second half")
        reached.append(f"{low:g} to {high:g}")
        met &= low >= 40 and high <= 60
    why = f" ({scenario.why})" if scenario.why else ""
    return Target(f"{scenario.name}{why}: {', '.join(bounds)}", ", ".join(reached), met)
