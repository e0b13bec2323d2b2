import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jetatag.joint import losses, methods

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "losses.npz"
U = F.normalize(torch.tensor([[1.0, 2.0, 0.0], [0.5, -1.0, 2.0]]), dim=1)
V = F.normalize(torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]), dim=1)
SCALE, OFFSET = torch.tensor(1.6), torch.tensor(-2.0)


def loss_of(name, z_audio, z_tag=None, labels=None, encoder=None, seed=0):
    """A pair loss by its name, on a batch of which a test needs only some parts."""
    generator = torch.Generator().manual_seed(seed)
    batch = losses.PairBatch(z_audio, z_tag, labels, encoder, SCALE, OFFSET, generator, labels)
    return losses.PAIR_LOSSES[name].function(batch)


def classification(logits, labels, task="multilabel", loss="bce", **parameters):
    """L_C of given logits."""
    model = SimpleNamespace(classifier=lambda h: h, task=task)
    config = SimpleNamespace(classification_loss=loss, classification_parameters=parameters)
    return methods.classification_loss(model, logits, labels, config)["loss"]


def bce(z_audio, z_query, answers):
    """Binary cross-entropy of every clip and query, (clip, query)."""
    logits = SCALE.exp() * z_audio @ z_query.T + OFFSET
    return F.binary_cross_entropy_with_logits(logits, answers, reduction="none")


def cos(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_cosine_is_the_papers_formula_and_the_coded_one_its_mirror():
    expected = np.mean([1 - cos(u, v) + 1 - cos(1 - u, 1 - v) for u, v in zip(U, V, strict=True)])
    assert loss_of("cosine", U, V).item() == pytest.approx(expected, abs=1e-6)
    assert loss_of("cosine_as_coded", U, V).item() == pytest.approx(4 - expected, abs=1e-6)
    assert loss_of("cosine", U, U).item() == pytest.approx(0, abs=1e-6)


def test_margin_as_coded_prefers_the_mirror():
    z_tag = torch.full((1, 128), 128**-0.5)
    assert loss_of("margin_as_coded", z_tag, z_tag).item() == pytest.approx(0.0892, abs=1e-4)
    z_tag = F.normalize(torch.rand((1, 128), generator=torch.Generator().manual_seed(0)))
    mirrored = F.normalize(1 - z_tag)
    matched = loss_of("margin_as_coded", z_tag, z_tag)
    assert loss_of("margin_as_coded", mirrored, z_tag) < matched


@pytest.mark.skipif(not REFERENCE.is_file(), reason="values of the original code are missing")
def test_margin_and_classification_equal_the_original():
    saved = {name: torch.tensor(value) for name, value in np.load(REFERENCE).items()}
    for case in ("pw_a", "pw_b"):
        z_audio = saved[f"{case}_preds"].requires_grad_()
        z_tag = saved[f"{case}_y"].requires_grad_()
        loss = loss_of("margin_as_coded", z_audio, z_tag)
        loss.backward()
        torch.testing.assert_close(loss, saved[f"{case}_loss"], rtol=1e-5, atol=0)
        torch.testing.assert_close(z_audio.grad, saved[f"{case}_grad_preds"], rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(z_tag.grad, saved[f"{case}_grad_y"], rtol=1e-4, atol=1e-8)
    logits = saved["bce_logits"].requires_grad_()
    loss = classification(logits, saved["bce_labels"].float())
    loss.backward()
    torch.testing.assert_close(loss, saved["bce_graph"], rtol=1e-5, atol=0)
    torch.testing.assert_close(logits.grad, saved["bce_graph_grad_logits"], rtol=1e-4, atol=1e-8)
    logits.grad = None
    loss = classification(logits, saved["cce_labels"].float(), "multiclass")
    loss.backward()
    torch.testing.assert_close(loss, saved["cce_graph"], rtol=1e-5, atol=0)
    classified = saved["cce_labels"].sum(1) == 1  # TensorFlow has a gradient without a class, too
    gradient = saved["cce_graph_grad_logits"][classified]
    torch.testing.assert_close(logits.grad[classified], gradient, rtol=1e-4, atol=1e-7)
    loss = losses.reconstruction(saved["bce_labels"].float(), saved["mse_pred"])
    torch.testing.assert_close(loss, saved["mse"], rtol=1e-5, atol=0)


def test_stop_grad_moves_the_audio_and_not_the_tags():
    z_audio, z_tag = U.clone().requires_grad_(), V.clone().requires_grad_()
    stopped = loss_of("cosine_stop_grad", z_audio, z_tag)
    assert stopped.item() == loss_of("cosine", U, V).item()
    stopped.backward()
    assert z_tag.grad is None
    (gradient,) = torch.autograd.grad(loss_of("cosine", z_audio, z_tag), z_audio)
    torch.testing.assert_close(z_audio.grad, gradient)


def test_overlap_is_jaccards():
    labels = torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 0, 0]])
    expected = torch.tensor([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(losses.tag_overlap(labels), expected)


def test_soft_info_nce_is_clips_loss_where_no_tags_are_shared():
    logits, right = SCALE.exp() * U @ V.T, torch.arange(2)
    expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    apart = loss_of("soft_info_nce", U, labels=torch.eye(2), encoder=lambda labels: V)
    torch.testing.assert_close(apart, expected)
    # Clips of one tag set are not negatives of each other: equal vectors cost nothing more.
    u, v = U[:1].expand(2, -1), V[:1].expand(2, -1)
    same = loss_of("soft_info_nce", u, labels=torch.ones(2, 2), encoder=lambda labels: v)
    torch.testing.assert_close(same, torch.tensor(2.0).log())


def test_queries_are_single_tags_and_subsets_of_own_tags():
    labels = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]]).float()
    queries = losses.subset_queries(labels, torch.Generator().manual_seed(0))
    assert queries.shape == (6 + 3, 6)
    assert losses.nonempty(queries).tolist() == [1] * 8 + [0]  # the clip without tags has none
    torch.testing.assert_close(queries[:6], torch.eye(6))
    assert 1 <= queries[6].sum() <= 3 and (queries[6] <= labels[0]).all()
    torch.testing.assert_close(queries[7], labels[1])
    sizes = {
        int(losses.subset_queries(labels, torch.Generator().manual_seed(s))[6].sum())
        for s in range(30)
    }
    assert sizes == {1, 2, 3}
    assert losses.answers(labels, queries)[:, 6].tolist() == [1, 0, 0]


def test_the_random_stream_of_queries_stays():
    """Results of earlier runs repeat as long as it does."""
    queries = losses.subset_queries(torch.ones(3, 6), torch.Generator().manual_seed(0))[6:]
    expected = [[1, 1, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert queries.int().tolist() == expected


def test_subset_query_rewards_the_right_space():
    labels = torch.eye(4)
    right, mirrored = (
        loss_of("subset_query", z, labels=labels, encoder=lambda queries: queries)
        for z in (torch.eye(4), -torch.eye(4))
    )
    assert right < mirrored
    twice = losses.subset_queries(labels, torch.Generator().manual_seed(0))  # each tag, two times
    expected = bce(labels, twice, losses.answers(labels, twice)).mean()
    torch.testing.assert_close(right, expected)


def test_completion_asks_a_part_of_the_tags_what_the_clip_answers():
    labels = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 0, 1]])
    seed = next(  # with which the first clip's subset is its first tag
        s
        for s in range(100)
        if losses.subset_queries(labels, torch.Generator().manual_seed(s))[3].tolist() == [1, 0, 0]
    )
    z_audio = torch.eye(4)[[3, 3, 3]]  # far from all tags

    def completion(tags):  # the vectors of the three tags
        return loss_of("subset_completion", z_audio, None, labels, lambda q: q @ tags, seed)

    apart = torch.eye(4)[[0, 1, 2]]
    together = torch.eye(4)[[0, 0, 2]]  # the first clip's two tags
    assert completion(together) < completion(apart)
    queries = torch.cat([torch.eye(3), torch.tensor([[1.0, 0, 0], [0, 0, 1]])])
    answers, z_query = losses.answers(labels, queries), queries @ apart
    every = torch.cat([bce(z_audio, z_query, answers), bce(z_query[3:], z_query, answers[[0, 2]])])
    torch.testing.assert_close(completion(apart), every.mean())
    untagged = [
        loss_of(name, z_audio, None, torch.zeros(3, 3), lambda q: q @ apart)
        for name in ("subset_completion", "subset_query")
    ]
    assert untagged[0] == untagged[1]


def test_classification_follows_the_task():
    logits, labels = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[0.0, 0.0, 1.0]])
    binary = -(torch.sigmoid(-logits[0, :2]).log().sum() + torch.sigmoid(logits[0, 2]).log()) / 3
    torch.testing.assert_close(classification(logits, labels), binary)
    torch.testing.assert_close(
        classification(logits, labels, "multiclass"), -logits.log_softmax(1)[0, 2]
    )


PROBS = torch.tensor([[0.02, 0.3, 0.9]])


@pytest.mark.parametrize(
    ("name", "parameters", "label", "expected"),
    [  # −log p and, of shifted p, −p_s^γ log(1 − p_s)
        ("asymmetric", {}, 1, -PROBS.log()),
        (
            "asymmetric",
            {},
            0,
            -torch.tensor([0, 0.25**4 * math.log(0.75), 0.85**4 * math.log(0.15)]),
        ),
        ("asymmetric", {"gamma_positive": 2.0}, 1, -((1 - PROBS) ** 2) * PROBS.log()),
        (
            "asymmetric",
            {"gamma_negative": 1.0, "shift": 0.0},
            0,
            -PROBS * (1 - PROBS).log(),
        ),
        ("asymmetric", {"gamma_negative": 0.0, "shift": 0.0}, 0, -(1 - PROBS).log()),
        # (peak − p) p², and the focal margin loss
        ("hill", {}, 0, (1.5 - PROBS) * PROBS**2),
        ("hill", {"peak": 2.0}, 0, (2 - PROBS) * PROBS**2),
        ("hill", {"margin": 0.0, "gamma": 0.0}, 1, -PROBS.log()),
        ("hill", {"margin": 0.0}, 1, -((1 - PROBS) ** 2) * PROBS.log()),
        ("bce", {}, 0, -(1 - PROBS).log()),
    ],
)
def test_losses_for_missing_labels_follow_their_formulas(name, parameters, label, expected):
    labels = torch.full_like(PROBS, label)
    loss = classification(PROBS.logit(), labels, loss=name, **parameters)
    torch.testing.assert_close(loss, expected.mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", losses.CLASSIFICATION_LOSSES)
def test_losses_for_missing_labels_stay_finite(name):
    logits = torch.tensor([[-200.0, 0.0, 200.0]], requires_grad=True)
    for labels in (torch.zeros(1, 3), torch.ones(1, 3)):
        loss = classification(logits, labels, loss=name)
        assert loss.isfinite() and torch.autograd.grad(loss, logits)[0].isfinite().all()


@pytest.mark.parametrize(
    ("name", "settings"), [("asymmetric", {"gamma_positive": 0.5}), ("hill", {"gamma": 0.5})]
)
def test_certain_probabilities_have_finite_gradients(name, settings):
    logits = torch.tensor([[-40.0, -40.0, 40.0, 40.0]], requires_grad=True)
    labels = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    classification(logits, labels, loss=name, **settings).backward()
    assert logits.grad.isfinite().all()


def test_hill_with_a_margin_is_that_of_the_lowered_logit():
    lowered = (PROBS.logit() - 1).sigmoid()
    loss = classification(PROBS.logit(), torch.ones(1, 3), loss="hill")
    torch.testing.assert_close(loss, (-((1 - lowered) ** 2) * lowered.log()).mean())


def test_probable_missing_labels_get_a_smaller_slope():
    """Cross-entropy pushes a confident 'absent' label hardest, the other losses less than one of
    medium probability."""
    for name in ("asymmetric", "hill"):
        logits = torch.tensor([0.5, 0.97]).logit().requires_grad_()
        slopes = torch.autograd.grad(classification(logits, torch.zeros(2), loss=name), logits)
        plain = torch.autograd.grad(classification(logits, torch.zeros(2)), logits)
        assert plain[0][1] > plain[0][0] and slopes[0][1] < plain[0][1]
