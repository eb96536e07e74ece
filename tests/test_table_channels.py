"""Which channel reads a suspect's answers to a guard's probes, and what each makes of one simulated surrogate."""

import math
from dataclasses import replace

import numpy as np
import pytest
from protocols import a_protocol

from auditor.analysis import Levels, Replies
from auditor.analysis.drawn_table import Channel, OpenedTable, channel_of, find_clients
from auditor.draws import Secret
from auditor.guard_keys import GuardKeys, GuardSettings, client_keys, projection_key, reference_units
from auditor.records import Answer, NullBasis, Probe, Reply, SampleKind

N, CLASSES, CLIENTS = 900, 6, ("alice", "bob", "carol")
LEVELS = Levels(claim=1e-6, null_bound=0.0, test=1e-6)


def full(*scores: float) -> Answer:
    return Answer(label=int(np.argmax(scores)), scores=scores)


def top(*pairs: tuple[int, float]) -> Answer:
    return Answer(label=pairs[0][0], top=pairs)


@pytest.mark.parametrize(
    ("answers", "depth", "channel"),
    [
        ([full(0.5, 0.3, 0.2)] * 4, 0.0, Channel.SCORES),
        ([top((1, 0.5), (2, 0.3))] * 4, 0.0, Channel.SCORES),
        ([top((1, 0.5), (2, 0.3))] * 4, 0.8, Channel.SCORES),
        ([top((1, 0.5))] * 4, 0.0, Channel.LABELS),
        ([top((1, 0.5))] * 4, 0.8, Channel.CONFIDENCE),
        ([Answer(label=1)] * 4, 0.8, Channel.LABELS),
        ([top((2, 0.5))] * 2 + [Answer(label=2)] * 2, 0.8, Channel.LABELS),
        ([full(0.5, 0.3, 0.2)] * 2 + [Answer(label=1)] + [None] * 5, 0.0, Channel.SCORES),
        ([Answer(label=0, top=((1, 0.5),))] * 3, 0.8, Channel.LABELS),
        ([None] * 3, 0.8, Channel.LABELS),
    ],
)
def test_the_channel_follows_from_the_seal_and_the_form_of_the_answers(
    answers: list[Answer | None], depth: float, channel: Channel
) -> None:
    assert channel_of(answers, depth=depth) is channel


def simplex(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


class World:
    """A guard with both channels, and a surrogate that learned one client's shifts, with noise of its own."""

    def __init__(self, *, bits: int = 2, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        logits = 2.0 * generator.normal(size=(N, CLASSES))
        self.reference = simplex(logits)
        self.keys = GuardKeys(
            settings=GuardSettings(depth=0.8, bits=bits),
            classes=tuple("abcdef"),
            shape=(1, 4, 4),
            model_sha256="00" * 32,
            projection_key=projection_key(bytes(32)),
            thresholds=np.zeros((CLASSES, bits), dtype=np.int64),
            reference=reference_units(self.reference),
            clients=CLIENTS,
            client_keys=client_keys(Secret(bytes(32)), CLIENTS),
        )
        first = self.reference.argmax(axis=1)
        self.cells = first * (1 << bits) + generator.integers(0, 1 << bits, size=N)
        noise = simplex(logits + 0.4 * generator.normal(size=(N, CLASSES)))
        table, rows = self.keys.table("bob"), np.arange(N)
        share = 0.1 * (1 + 0.8 * np.array(table.signs)[self.cells])
        self.independent = noise
        self.marked = noise * (1 - share)[:, None]
        self.marked[rows, np.array(table.targets)[self.cells]] += share
        self.averaged = 0.9 * noise
        for client in ("alice", "bob"):
            self.averaged[rows, np.array(self.keys.table(client).targets)[self.cells]] += 0.05

    def find(self, answers: list[Answer | None], keys: GuardKeys | None = None) -> object:
        replies = tuple(
            Reply(probe=Probe(position=i, index=i, kind=SampleKind.KEY, repeat=False), answer=answer)
            for i, answer in enumerate(answers)
        )
        opened = OpenedTable(keys=keys or self.keys, cells=dict(enumerate(self.cells.tolist())))
        protocol = a_protocol(null_basis=NullBasis.DRAWN_TABLE, order_seed="11" * 32)
        return find_clients(Replies(keys=replies, shams=(), controls=(), repeats=()), opened, protocol, LEVELS)


def revealed(scores: np.ndarray, form: str) -> list[Answer | None]:
    if form == "rounded":
        return [full(*np.round(row, 2).tolist()) for row in scores]
    order = np.argsort(-scores, axis=1)
    k = {"scores": CLASSES, "top-3": 3, "top-1": 1, "labels": 0}[form]
    if k == CLASSES:
        return [full(*row.tolist()) for row in scores]
    return [
        top(*((int(j), float(row[j])) for j in best[:k])) if k else Answer(label=int(best[0]))
        for row, best in zip(scores, order, strict=True)
    ]


@pytest.mark.parametrize(
    ("form", "channel", "at_most"),
    [
        ("scores", Channel.SCORES, -6.0),
        ("rounded", Channel.SCORES, -6.0),
        ("top-3", Channel.SCORES, -6.0),
        ("top-1", Channel.CONFIDENCE, -2.0),
        ("labels", Channel.LABELS, -1.0),
    ],
)
def test_every_form_of_answer_shows_the_client_as_far_as_it_can(form: str, channel: Channel, at_most: float) -> None:
    world = World()
    found = world.find(revealed(world.marked, form))
    assert found.channel is channel
    assert found.best.client == "bob"
    assert found.best.test.log10_p <= at_most
    assert [each.client for each in found.clients if each.named] == (["bob"] if at_most <= -6 else [])
    innocent = world.find(revealed(world.independent, form))
    assert innocent.channel is channel
    assert not any(each.named for each in innocent.clients)


def test_averaged_answers_of_colluding_clients_name_them_and_nobody_else() -> None:
    world = World()
    found = world.find(revealed(world.averaged, "scores"))
    named = {each.client for each in found.clients if each.named}
    assert named
    assert named <= {"alice", "bob"}
    assert all(each.test.log10_p > -3 for each in found.clients if each.client == "carol")


@pytest.mark.parametrize("kept", ["ranks", "confident", "flattened"])
def test_thieves_who_keep_the_order_of_the_classes_are_named(kept: str) -> None:
    world = World()
    places = np.argsort(np.argsort(-world.marked, axis=1), axis=1) + 1
    answers = revealed({"ranks": 1.0 / places, "flattened": np.sqrt(world.marked)}.get(kept, world.marked), "scores")
    if kept == "confident":
        # Without its less confident half the thief answers nothing there.
        answers = [a if w else None for a, w in zip(answers, world.marked.max(axis=1) > 0.5, strict=True)]
    assert [each.client for each in world.find(answers).clients if each.named] == ["bob"]


def test_stated_limit_a_thief_who_spreads_all_but_the_first_score_shows_no_target() -> None:
    world = World()
    first = world.marked.max(axis=1, keepdims=True)
    rest = np.where(world.marked == first, first, (1 - first) / (CLASSES - 1))
    assert not any(each.named for each in world.find(revealed(rest, "scores")).clients)


def test_signs_are_tested_among_answered_probes_by_their_own_law() -> None:
    world = World(bits=1)
    answers = revealed(world.marked, "top-1")
    answers[::3] = [None] * len(answers[::3])
    found = world.find(answers)
    assert found.missing == len(answers[::3])
    assert found.best.test.n_probes == N - found.missing
    assert found.best.test.log10_p >= -found.best.test.n_cells * math.log10(2) - 1e-9
    assert sum(found.histogram) == 9_999


def test_fresh_keys_on_one_innocent_suspect_keep_the_level_of_the_signs() -> None:
    from scipy import stats

    world = World(bits=1)
    answers = revealed(world.independent, "top-1")
    p_values = []
    for number in range(60):
        keys = replace(world.keys, client_keys=client_keys(Secret(number.to_bytes(32, "big")), CLIENTS))
        p_values += [10.0**each.test.log10_p for each in world.find(answers, keys).clients]
    for level in (0.05, 0.1, 0.5):
        assert stats.binomtest(sum(p <= level for p in p_values), len(p_values), level).pvalue > 1e-4


def test_nothing_is_tested_where_no_cell_holds_enough_answers() -> None:
    world = World()
    answers = revealed(world.marked, "top-1")
    assert world.find([None if i % 200 else answer for i, answer in enumerate(answers)]) is None
    assert world.find([]) is None
