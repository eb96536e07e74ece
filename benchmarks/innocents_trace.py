"""Traces an innocent that a pattern scheme accused: do other patterns act on it as the owner's does?

    python benchmarks/innocents_trace.py                # the accused innocents among the kept lines
    python benchmarks/innocents_trace.py --patterns 10  # fewer patterns per class

For every class, fresh patterns take the owner's place on the same suspect; the sealed rule's chance of a claim is
computed for each at the null rate that shams with the mean rate of all patterns would give.
"""

import argparse

import innocents as bench
import innocents_keys as keysets
import innocents_models as models
import numpy as np

from auditor.analysis import basis_of
from auditor.draws import Secret
from auditor.schemes.base import PatternScheme
from auditor.stats.exact import upper_bound_at


def main() -> None:
    """Trace every accused innocent that a pattern scheme's key set accused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patterns", type=int, default=100)
    parser.add_argument("--images", type=int, default=80)
    options = parser.parse_args()
    trials = {trial.identity: trial for data in bench.ROUNDS for trial in bench.planned(data, bench.ROUNDS[data])}
    for line in bench.kept().values():
        for audit in line.get("audits", ()):
            if audit.get("status") == "supported" and line["id"] in trials:
                trace(trials[line["id"]], audit["scheme"], audit["number"], options)


def trace(trial: bench.Trial, name: str, number: int, options: argparse.Namespace) -> None:
    """Print one row per class for one accused innocent."""
    data = trial.innocent.data
    claim, dataset = keysets.claim(data, name, number), keysets.owner_images(data)
    scheme = keysets.recipe(data, name).scheme
    assert isinstance(scheme, PatternScheme), "only a pattern can be swapped for another"
    basis = basis_of(claim.opened.seal.protocol, dataset.spec)
    levels = basis.levels(basis.protocol.alpha)
    if not trial.folder.exists():
        models.make(trial.innocent, trial.folder)
    with models.suspect(trial.innocent, trial.folder) as suspect:
        for target in range(len(dataset.classes)):
            images = np.ascontiguousarray(dataset.carriers.inputs[dataset.carriers.labels != target][: options.images])
            rates = []
            for j in range(options.patterns):
                pattern = scheme.foreign_pattern(Secret(bytes([target + 1]) * 32), dataset.spec, purpose=f"op {j}")
                answers = suspect.query_all(scheme.foreign_inputs(images, pattern))
                rates.append(float(np.mean([answer.label == target for answer in answers])))
            trials = basis.protocol.n_shams
            null = max(
                basis.protocol.null_floor,
                upper_bound_at(hits=round(trials * float(np.mean(rates))), trials=trials, error=levels.null_bound),
            )
            if not basis.has_power(null):
                print(f"class {target}: mean {np.mean(rates):.4f}, the null would be refused")
                continue
            cap = basis.protocol.n_keys
            claims = [
                basis.operating(rate=rate, null_rate=null, levels=levels, cap=cap).reject if rate > null else 0.0
                for rate in rates
            ]
            print(
                f"class {target}: mean {np.mean(rates):.4f}, sd {np.std(rates):.3f}, largest {max(rates):.3f}, "
                f"null {null:.3f}, chance of a claim {np.mean(claims):.2g}",
                flush=True,
            )


if __name__ == "__main__":
    main()
