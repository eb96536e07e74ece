"""Which held-out images a key set is made of: chosen and committed to before anything is drawn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from auditor.datasets import Dataset, Labels, Part
from auditor.draws import Secret
from auditor.errors import UsageError
from auditor.evidence.commitment import Carrier, Carriers
from auditor.models import LoadedModel
from auditor.records import NullBasis, SampleKind
from auditor.schemes.base import PatternScheme, TrainedScheme
from auditor.schemes.triggers import Choice, LabelDraw, TriggerScheme, ambiguity, contest, rivals


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySizes:
    """How many samples are sealed; see :class:`auditor.records.Protocol`."""

    n_keys: int = 120
    opening_keys: int = 24
    n_sham_patterns: int = 40
    shams_per_pattern: int = 5
    n_controls: int = 60
    n_repeats: int = 20


def default_sizes(*, randomness: bool, scheme: TrainedScheme | None = None, n_keys: int = 100) -> KeySizes:
    """Return sizes whose plan decides: without public randomness the far smaller level needs twice the shams.

    Args:
        randomness: whether the draw has public randomness.
        scheme: None stands for a scheme with shams.
        n_keys: triggers of a scheme without shams.
    """
    if isinstance(scheme, TriggerScheme):
        return KeySizes(n_keys=n_keys, opening_keys=min(24, n_keys), n_sham_patterns=0, shams_per_pattern=0)
    return KeySizes() if randomness else KeySizes(shams_per_pattern=10)


def check_sizes(sizes: KeySizes, dataset: Dataset, *, scheme: TrainedScheme) -> None:
    """Refuse a key set that the held-out carriers cannot fill.

    Raises:
        UsageError: too few carriers, or sizes that contradict each other.
    """
    if min(sizes.n_keys, sizes.opening_keys, sizes.n_controls) < 1:
        raise UsageError("a key set needs keys and controls")
    shams = (sizes.n_sham_patterns, sizes.shams_per_pattern)
    if scheme.null_basis is NullBasis.SHAMS and min(shams) < 1:
        raise UsageError("a key set of this scheme needs shams")
    if scheme.null_basis.draws_labels and any(shams):
        raise UsageError("drawn labels are their own null; a key set of this scheme has no shams")
    if sizes.opening_keys > sizes.n_keys or sizes.shams_per_pattern > sizes.n_keys:
        raise UsageError("opening keys and shams per pattern cannot outnumber the keys")
    if sizes.n_keys + sizes.n_controls > len(dataset.carriers):
        raise UsageError(
            f"{sizes.n_keys} keys and {sizes.n_controls} controls need as many carriers; "
            f"{dataset.name} holds out {len(dataset.carriers)}"
        )


def choose_carriers(
    *, scheme: TrainedScheme, dataset: Dataset, seed: bytes, sizes: KeySizes, twin: LoadedModel | None = None
) -> Carriers:
    """Return the held-out carriers of a key set, chosen before any public randomness.

    Args:
        scheme: the scheme with its settings.
        dataset: where the carriers come from.
        seed: the owner's seed, which alone chooses, unless the scheme prefers ambiguous carriers.
        sizes: how many samples are sealed.
        twin: the unmarked twin, which knows of no draw; where ambiguous carriers or rival classes are wanted it says
            which they are.

    Raises:
        UsageError: too few carriers are eligible, or the twin is wanted and not there.
    """
    if isinstance(scheme, TriggerScheme):
        return _trigger_carriers(scheme, dataset, seed, sizes, twin)
    if not isinstance(scheme, PatternScheme):
        raise UsageError(f"scheme {scheme.name!r} has no way to choose carriers")
    return _pattern_carriers(scheme, dataset, seed, sizes)


def _trigger_carriers(
    scheme: TriggerScheme, dataset: Dataset, seed: bytes, sizes: KeySizes, twin: LoadedModel | None
) -> Carriers:
    pool, chooser = dataset.carriers, Secret(seed)
    order = list(chooser.stream(f"{scheme.name} key carriers").permutation(len(pool)))
    if scheme.settings.needs_twin and twin is None:
        raise UsageError("ambiguous carriers and rival classes are named by the unmarked twin, which is not there yet")
    between_rivals = scheme.settings.draw is LabelDraw.RIVAL
    if scheme.settings.choice is Choice.AMBIGUOUS and twin is not None:
        doubt = contest(twin, pool.inputs, pool.labels) if between_rivals else ambiguity(twin, pool.inputs)
        # Sorting is stable: which of the chosen ones comes first stays with the seed.
        chosen = set(sorted(order, key=lambda row: -doubt[row])[: sizes.n_keys])
        order = [row for row in order if row in chosen] + [row for row in order if row not in chosen]
    keys, rest = order[: sizes.n_keys], order[sizes.n_keys :]
    controls = chooser.stream(f"{scheme.name} control carriers").choose(rest, sizes.n_controls)
    named: dict[int, int] = {}
    if between_rivals and twin is not None:
        rows = np.array(keys, dtype=np.intp)
        named = dict(zip(keys, rivals(twin, pool.inputs[rows], pool.labels[rows]).tolist(), strict=True))
    return _carriers(pool, [(SampleKind.KEY, -1, keys), (SampleKind.CONTROL, -1, list(controls))], rival=named)


def _pattern_carriers(scheme: PatternScheme, dataset: Dataset, seed: bytes, sizes: KeySizes) -> Carriers:
    """Return the carriers of a pattern scheme: one pool for keys and shams, and controls.

    Which of the pool carry the owner's pattern and which a foreign one is drawn later; see
    :func:`auditor.evidence.generation.derive_samples`. Where the target is a natural class that is yet to be drawn, the
    pool holds enough carriers for whatever class it will be.
    """
    pool = dataset.carriers
    chooser = Secret(seed)
    order = chooser.stream(f"{scheme.name} key carriers").permutation(len(pool))
    keys = _enough(order, pool.labels, sizes.n_keys, scheme)
    taken = set(keys)
    rest = [row for row in order if row not in taken]
    if len(rest) < sizes.n_controls:
        raise UsageError(f"{sizes.n_controls} controls wanted, only {len(rest)} carriers are left beside the keys")
    controls = chooser.stream(f"{scheme.name} control carriers").choose(rest, sizes.n_controls)
    taken.update(controls)
    more = [row for row in rest if row not in taken][: sizes.n_sham_patterns * sizes.shams_per_pattern]
    return _carriers(pool, [(SampleKind.KEY, -1, [*keys, *more]), (SampleKind.CONTROL, -1, list(controls))])


def _carriers(
    pool: Part, groups: Sequence[tuple[SampleKind, int, Sequence[int]]], *, rival: Mapping[int, int] | None = None
) -> Carriers:
    named = rival or {}
    rows = [row for _, _, group in groups for row in group]
    return Carriers(
        items=tuple(
            Carrier(
                kind=kind,
                pattern=pattern,
                natural=int(pool.labels[row]),
                rival=named.get(row, -1) if kind is SampleKind.KEY else -1,
            )
            for kind, pattern, group in groups
            for row in group
        ),
        inputs=pool.inputs[np.array(rows, dtype=np.intp)],
    )


def _enough(order: Sequence[int], labels: Labels, wanted: int, scheme: PatternScheme) -> list[int]:
    """Return the shortest beginning of ``order`` that leaves ``wanted`` carriers whatever the drawn target is."""
    if not scheme.target_is_natural:
        found = list(order[:wanted])
    else:
        found, seen = [], Counter[int]()
        for row in order:
            if len(found) - max(seen.values(), default=0) >= wanted:
                break
            found.append(row)
            seen[int(labels[row])] += 1
    if len(found) - (max(Counter(labels[found].tolist()).values()) if scheme.target_is_natural else 0) < wanted:
        raise UsageError(f"{wanted} carriers wanted, too few are eligible")
    return found
