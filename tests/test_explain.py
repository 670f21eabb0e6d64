"""Explanations: zero where nothing changes, sums that hold, slopes that are slopes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from titans_core import AttentionConfig, BackboneConfig, NeuralMemoryConfig, record_memory
from titans_core.training_config import TrainingConfig
from titans_dna import explain
from titans_dna.alphabet import encode
from titans_dna.alphabet import reverse_complement as opposite
from titans_dna.blend import Blend
from titans_dna.classifier import TitansDNAClassifier
from titans_dna.explain import (
    gradient_times_input,
    in_silico_mutagenesis,
    integrated_gradients,
    memory_surprise,
)
from titans_dna.network import NetworkConfig, SequenceNetwork
from titans_dna.sequences import read_sequences

WORD, PLACE, LENGTH = "TATAAA", 12, 40
QUICK = TrainingConfig(max_steps=8, validate_every=8)


def planted(n, *, length=LENGTH, seed=0, words=("", WORD)):
    """Random sequences; those of each class hold its word at one place."""
    rng = np.random.default_rng(seed)
    X = []
    for i in range(n):
        bases, word = "".join(rng.choice(list("ACGT"), length)), words[i % len(words)]
        X.append(bases[:PLACE] + word + bases[PLACE + len(word) :])
    return X, np.array(["plain", "box", "other"])[np.arange(n) % len(words)]


def fit(n=40, *, words=("", WORD), **parameters):
    """A classifier that has seen little: networks alone, unless asked for more."""
    chosen = {"n_networks": 1, "linear": False, "reverse_complement": None, "training": QUICK}
    return TitansDNAClassifier(**{**chosen, "progress": False, **parameters}).fit(
        *planted(n, words=words)
    )


@pytest.fixture(scope="module")
def classifier():
    training = TrainingConfig(max_steps=60, learning_rate=3e-3, validate_every=20)
    return fit(200, training=training)


@pytest.fixture(scope="module")
def blended():
    """Linear parts have a say, too."""
    return fit(linear=True)


@pytest.fixture(scope="module")
def several():
    """Three classes, two networks, both strands read."""
    words = ("", WORD, "GGCCGG")
    return fit(60, n_networks=2, reverse_complement="average", words=words)


@pytest.fixture
def sequence():
    return planted(2, seed=9)[0][1]


def doubled(classifier, **changes):
    """The same in float64, with networks that count whatever their worth is."""
    networks = tuple(deepcopy(network).double() for network in classifier.model_.networks)
    weights = np.linspace(0.4, 0.9, len(classifier.model_.experts))
    model = replace(classifier.model_, networks=networks, blend=Blend(weights), **changes)
    other = deepcopy(classifier)
    other.model_ = model
    return other


def log_odds(classifier, sequences, target):
    logs = classifier.predict_log_proba(sequences)
    k = list(classifier.classes_).index(target)
    return logs[:, k] - np.log(np.exp(np.delete(logs, k, axis=1)).sum(1))


def network_log_odds(classifier, x, like, target):
    """Of mixtures (L, 4); the rest is as in a sequence like that."""
    model, k = classifier.model_, list(classifier.classes_).index(target)
    _, present, writes = explain._embed(model, encode(like))
    with torch.no_grad():
        return explain._network_log_odds(model, x[None], present, writes, k).item()


def mixtures(classifier, sequence):
    return explain._embed(classifier.model_, encode(sequence))[0][0]


def test_changes_are_what_the_classifier_says_of_changed_sequences(blended, sequence):
    changes = in_silico_mutagenesis(blended, sequence, target="plain")
    assert changes.shape == (LENGTH, 4)
    before = log_odds(blended, [sequence], "plain")
    for place in (0, 13, LENGTH - 1):
        changed = [sequence[:place] + base + sequence[place + 1 :] for base in "ACGT"]
        np.testing.assert_allclose(
            changes[place], log_odds(blended, changed, "plain") - before, atol=1e-5
        )
    stands = changes[np.arange(LENGTH), encode(sequence)]
    assert (stands == 0).all()
    assert np.count_nonzero(changes) == 3 * LENGTH


def test_the_scale_is_that_of_the_decision_function(classifier, sequence):
    assert classifier.classes_.tolist() == ["box", "plain"]
    changed = ("C" if sequence[14] != "C" else "G").join([sequence[:14], sequence[15:]])
    difference = np.diff(classifier.decision_function([sequence, changed]))[0]
    for target, sign in [("plain", 1), ("box", -1)]:
        changes = in_silico_mutagenesis(classifier, sequence, target=target, start=14, stop=15)
        found = changes[0, encode(changed)[14]]
        assert found == pytest.approx(sign * difference, abs=1e-5)


def test_a_window_is_a_part_of_the_whole_in_whatever_batches(several, sequence, monkeypatch):
    whole = in_silico_mutagenesis(several, sequence, target="other")
    monkeypatch.setattr(explain, "_READ_BASES", 7 * LENGTH)
    window = in_silico_mutagenesis(several, sequence, target="other", start=10, stop=21)
    assert window.shape == (11, 4)
    np.testing.assert_allclose(window, whole[10:21], atol=1e-5)


def test_the_predicted_class_is_explained_unless_another_is_asked_for(classifier, sequence):
    (predicted,) = classifier.predict([sequence])
    for explainer in (in_silico_mutagenesis, gradient_times_input, integrated_gradients):
        wanted = explainer(classifier, sequence, target=predicted)
        np.testing.assert_array_equal(explainer(classifier, sequence), wanted)
        other = next(label for label in classifier.classes_ if label != predicted)
        against = explainer(classifier, sequence, target=other)
        np.testing.assert_allclose(against, -wanted, atol=1e-5)  # of two classes


def test_unknown_bases_are_compared_with_all_four(classifier, sequence):
    unknown = sequence[:13] + "NR" + sequence[15:]
    changes = in_silico_mutagenesis(classifier, unknown)
    assert (changes[13:15] != 0).all()
    assert np.count_nonzero(changes == 0) == LENGTH - 2
    for explainer in (gradient_times_input, integrated_gradients):
        scores = explainer(classifier, unknown)
        np.testing.assert_allclose(scores[13], 0, atol=1e-6)  # equal shares are the baseline
        assert (scores[14, [0, 2]] != 0).all()
        assert (scores[14, [1, 3]] == 0).all()


def test_hidden_bases_stay_hidden(classifier, sequence):
    masked = deepcopy(classifier).set_params(soft_mask="mask")
    soft = sequence[:10] + sequence[10:20].lower() + sequence[20:]
    changes = in_silico_mutagenesis(masked, soft)
    assert (changes[10:20] == 0).all()
    assert changes.any(axis=1).sum() == LENGTH - 10
    np.testing.assert_allclose(
        in_silico_mutagenesis(classifier, soft),
        in_silico_mutagenesis(classifier, sequence),
        atol=1e-6,
    )


@pytest.mark.parametrize("explainer", [in_silico_mutagenesis, gradient_times_input])
def test_any_kind_of_sequence_is_read(classifier, sequence, explainer):
    wanted = explainer(classifier, sequence)
    for given in (sequence.encode(), encode(sequence), read_sequences([sequence])):
        np.testing.assert_array_equal(explainer(classifier, given), wanted)


@pytest.mark.parametrize("both_strands", [False, True])
def test_gradients_are_slopes_towards_each_base(classifier, several, sequence, both_strands):
    chosen = doubled(several if both_strands else classifier)
    assert chosen.model_.both_strands is both_strands
    scores = gradient_times_input(chosen, sequence, target="plain")
    x, step = mixtures(chosen, sequence), 1e-6
    for place in (0, 13, 27):
        base = int(encode(sequence)[place])
        toward = torch.zeros_like(x)
        toward[place] = torch.eye(4)[base] - 0.25
        above, below = (
            network_log_odds(chosen, x + sign * step * toward, sequence, "plain")
            for sign in (1, -1)
        )
        assert scores[place, base] == pytest.approx((above - below) / (2 * step), abs=1e-7)
        assert np.count_nonzero(scores[place]) == 1


@pytest.mark.parametrize("both_strands", [False, True])
def test_integrated_gradients_sum_to_the_difference(classifier, several, sequence, both_strands):
    chosen = doubled(several if both_strands else classifier)
    sequence = sequence[:20] + "N" + sequence[21:]
    scores = integrated_gradients(chosen, sequence, target="box", steps=200)
    x = mixtures(chosen, sequence)
    whole = network_log_odds(chosen, x, sequence, "box")
    nothing = network_log_odds(chosen, torch.full_like(x, 0.25), sequence, "box")
    assert scores.sum() == pytest.approx(whole - nothing, rel=0.01)
    assert abs(whole - nothing) > 0.01
    few = integrated_gradients(chosen, sequence, target="box")
    assert few.sum() == pytest.approx(whole - nothing, rel=0.05)


def test_shuffled_baselines_sum_to_the_mean_difference(classifier, sequence):
    chosen = doubled(classifier)
    tokens, x = encode(sequence), mixtures(chosen, sequence)
    references = explain._references(chosen.model_, tokens, x, "shuffled", 3)
    for reference in references:
        np.testing.assert_allclose(reference.sum(0), x.sum(0))
    scores = integrated_gradients(
        chosen, sequence, target="box", baseline="shuffled", steps=60, random_state=3
    )
    said = [network_log_odds(chosen, r, sequence, "box") for r in references]
    whole = network_log_odds(chosen, x, sequence, "box")
    assert scores.sum() == pytest.approx(whole - np.mean(said), rel=0.02)
    again = integrated_gradients(chosen, sequence, target="box", baseline="shuffled")
    other = integrated_gradients(
        chosen, sequence, target="box", baseline="shuffled", random_state=1
    )
    assert not np.allclose(again, other)


def test_the_way_is_walked_in_batches_of_bounded_size(classifier, sequence, monkeypatch):
    wanted = integrated_gradients(classifier, sequence, steps=10)
    monkeypatch.setattr(explain, "_GRADIENT_BASES", 3 * LENGTH)
    np.testing.assert_allclose(
        integrated_gradients(classifier, sequence, steps=10), wanted, atol=1e-6
    )


def test_the_networks_part_and_the_others_make_the_decision(blended, several, sequence):
    for chosen, target in [(doubled(blended), "plain"), (doubled(several), "other")]:
        model, k = chosen.model_, list(chosen.classes_).index(target)
        heads = len(model.networks[0].config.heads)
        logs = np.log(model.by_expert(read_sequences([sequence]))[:, 0])
        scores = model.blend.weights[:heads] @ logs[:heads]
        wanted = scores[k] - np.log(np.exp(np.delete(scores, k)).sum())
        found = network_log_odds(chosen, mixtures(chosen, sequence), sequence, target)
        assert found == pytest.approx(wanted)
        if len(chosen.classes_) == 2:
            others = model.blend.weights[heads:] @ (logs[heads:, 1] - logs[heads:, 0])
            assert found + others == pytest.approx(chosen.decision_function([sequence])[0])


@pytest.mark.parametrize("strands", ["average", "equivariant"])
def test_both_strands_are_explained_alike(strands):
    chosen = doubled(fit(reverse_complement=strands))
    sequence = planted(2, seed=5)[0][1]
    turned = opposite(encode(sequence))
    for explainer in (in_silico_mutagenesis, gradient_times_input, integrated_gradients):
        scores = explainer(chosen, sequence, target="box")
        np.testing.assert_allclose(
            explainer(chosen, turned, target="box"), scores[::-1, ::-1], atol=1e-5
        )


def test_a_planted_word_is_found(classifier):
    X, y = planted(40, seed=7)
    held = [sequence for sequence, label in zip(X, y, strict=True) if label == "box"]
    assert (classifier.predict(held) == "box").mean() > 0.9
    word = slice(PLACE, PLACE + len(WORD))
    for explainer in (in_silico_mutagenesis, gradient_times_input, integrated_gradients):
        scores = [explainer(classifier, sequence, target="box") for sequence in held[:10]]
        worth = np.abs(np.sum(scores, axis=2)).mean(0)
        assert worth[word].min() > 1.5 * np.delete(worth, np.r_[word]).mean(), explainer.__name__
    changes = np.mean([in_silico_mutagenesis(classifier, s, target="box") for s in held[:10]], 0)
    assert (changes[word].sum(1) < 0).all()  # any change of the word speaks against the class


def test_nothing_is_left_behind(classifier, sequence):
    before = {k: v.clone() for k, v in classifier.model_.networks[0].state_dict().items()}
    state = torch.get_rng_state()
    integrated_gradients(classifier, sequence, baseline="shuffled")
    memory_surprise(classifier, sequence)
    network = classifier.model_.networks[0]
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training


def test_surprise_is_recorded_token_by_token_in_both_directions(several):
    sequence = planted(1, length=LENGTH)[0][0]
    found = memory_surprise(several, sequence)
    assert found.groupby(["network", "layer", "direction"]).size().tolist() == [3] * 4
    assert found["start"].tolist() == [0, 16, 32] * 4
    assert found["stop"].tolist() == [16, 32, 40] * 4
    assert found["direction"].tolist()[:6] == ["onward"] * 3 + ["back"] * 3
    assert np.isfinite(found.select_dtypes("float")).all(axis=None)

    network = several.model_.networks[1]
    tokens = torch.from_numpy(encode(sequence))[None]
    with record_memory(network) as records, torch.no_grad():
        network(tokens)
    ((name, record),) = records.items()
    second = found[found["network"] == 1]
    assert name == f"backbone.{second['layer'].iloc[0]}"
    for field, values in record._asdict().items():
        onward, back = values[:, -3:].mean(-1).double().numpy()
        np.testing.assert_allclose(second[field], np.r_[onward, back[::-1]], rtol=1e-5)


def bare(backbone, length=None):
    """A network that has learned nothing, in what stands for a classifier."""
    config = NetworkConfig(n_classes=2, length=length, heads=("pooled",), backbone=backbone)
    torch.manual_seed(0)
    network = SequenceNetwork(config).eval()
    model = SimpleNamespace(networks=(network,), both_strands=False, blend=Blend(np.ones(1)))
    classifier = TitansDNAClassifier()
    classifier.signal_, classifier.length_, classifier.model_ = False, length, model
    classifier.classes_ = np.array([0, 1])
    return classifier


@pytest.mark.parametrize("block", ["lmm", "mac", "mag", "mal"])
def test_every_block_with_a_memory_can_be_watched(block):
    attention = (
        None if block == "lmm" else AttentionConfig(num_heads=2, window=4, num_persistent_tokens=2)
    )
    memory = NeuralMemoryConfig(dim=16, num_heads=2)
    backbone = BackboneConfig(block=block, memory=memory, attention=attention, num_blocks=2)
    repeated = "ACGGTTACATCCGATG" * 12
    found = memory_surprise(bare(backbone), repeated)
    assert len(found) == 12 * 2 * 2
    assert found["layer"].nunique() == 2
    gates = found[["memory_lr", "momentum_decay", "forget_gate"]]
    assert ((gates > 0) & (gates < 1)).all(axis=None)


def test_what_comes_again_surprises_less():
    backbone = BackboneConfig(memory=NeuralMemoryConfig(dim=32), num_blocks=1)
    rng = np.random.default_rng(0)
    again = "".join(rng.choice(list("ACGT"), 64)) * 60
    found = memory_surprise(bare(backbone), again).groupby("direction")["surprise"]
    onward, back = (found.get_group(name).to_numpy() for name in ("onward", "back"))
    assert onward[-40:].mean() < 0.8 * onward[:40].mean()
    assert back[:40].mean() < 0.8 * back[-40:].mean()


def test_unknown_stretches_are_not_written():
    backbone = BackboneConfig(memory=NeuralMemoryConfig(dim=16), num_blocks=1)
    found = memory_surprise(bare(backbone), "ACGT" * 8 + "N" * 32 + "TGCA" * 8)
    silent = found["surprise"].isna()
    assert found.loc[silent, "start"].tolist() == [32, 48] * 2


def test_what_cannot_be_explained_is_refused(classifier, sequence):
    explainers = (in_silico_mutagenesis, gradient_times_input, integrated_gradients)
    signal = deepcopy(classifier)
    signal.signal_ = True
    for explainer in explainers:
        with pytest.raises(ValueError, match=r"target must be one of .*'box'.*got 'exon'"):
            explainer(classifier, sequence, target="exon")
    for explainer in (*explainers, memory_surprise):
        with pytest.raises(NotFittedError):
            explainer(TitansDNAClassifier(), sequence)
        with pytest.raises(ValueError, match="one sequence is explained at a time; got 2"):
            explainer(classifier, read_sequences([sequence, sequence]))
        with pytest.raises(ValueError, match="has 41 bases"):
            explainer(classifier, sequence + "A")
        with pytest.raises(ValueError, match=r"sequence\[0\]"):
            explainer(classifier, "AC?T" * 10)
        with pytest.raises(ValueError, match="fitted on numbers"):
            explainer(signal, sequence)


@pytest.mark.parametrize("window", [(-1, 4), (4, 4), (9, 3), (0, 41), (40, None)])
def test_a_window_outside_the_sequence_is_refused(classifier, sequence, window):
    start, stop = window
    with pytest.raises(ValueError, match="must be 0 <= start < stop <= 40"):
        in_silico_mutagenesis(classifier, sequence, start=start, stop=stop)


def test_what_is_too_long_is_refused_with_the_way_out():
    pooled = fit(head="pooled")
    with pytest.raises(ValueError, match=r"Choose a window .* of 1000 bases at most"):
        in_silico_mutagenesis(pooled, "ACGTACGTAC" * 1000)
    with pytest.raises(ValueError, match="cut the sequence around it"):
        in_silico_mutagenesis(pooled, "ACGT" * 5_000_000, stop=1)
    with pytest.raises(ValueError, match="gradients are taken of at most 65536 bases"):
        gradient_times_input(pooled, "ACGT" * 2**14 + "A", target="box")
    with pytest.raises(ValueError, match="watched over at most 262144 bases"):
        memory_surprise(pooled, "ACGT" * 2**16 + "A")


def test_gradients_of_networks_that_do_not_count_are_refused(classifier, sequence):
    silent = doubled(classifier)
    silent.model_.blend.weights[:2] = 0
    for explainer in (gradient_times_input, integrated_gradients):
        with pytest.raises(ValueError, match=r"gives its networks no weight.*in_silico"):
            explainer(silent, sequence)


def test_networks_without_a_memory_cannot_be_watched():
    with pytest.raises(ValueError, match="hold no neural memory to watch"):
        memory_surprise(bare(None), "ACGT" * 20)


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ({"steps": 0}, "`steps` must be an int >= 1; got 0"),
        ({"steps": 2.5}, "`steps` must be an int >= 1; got 2.5"),
        ({"baseline": "zero"}, "`baseline` must be 'uniform' or 'shuffled'; got 'zero'"),
    ],
)
def test_odd_ways_are_refused(classifier, sequence, chosen, text):
    with pytest.raises(ValueError, match=text):
        integrated_gradients(classifier, sequence, **chosen)
