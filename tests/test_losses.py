from pathlib import Path

import numpy as np
import pytest
import torch

from jetatag.joint import losses

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "losses.npz"
U = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, 0.0], [0.5, -1.0, 2.0]]), dim=1)
V = torch.nn.functional.normalize(torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]), dim=1)


def cos(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_cosine_is_the_papers_formula_and_the_coded_one_its_mirror():
    expected = np.mean([1 - cos(u, v) + 1 - cos(1 - u, 1 - v) for u, v in zip(U, V, strict=True)])
    assert losses.cosine(U, V).item() == pytest.approx(expected, abs=1e-6)
    assert losses.cosine_as_coded(U, V).item() == pytest.approx(4 - expected, abs=1e-6)
    assert losses.cosine(U, U).item() == pytest.approx(0, abs=1e-6)


def test_margin_as_coded_prefers_the_mirror():
    z_tag = torch.full((1, 128), 128**-0.5)
    assert losses.margin_as_coded(z_tag, z_tag).item() == pytest.approx(0.0892, abs=1e-4)
    generator = torch.Generator().manual_seed(0)
    z_tag = torch.rand((1, 128), generator=generator)
    z_tag = z_tag / z_tag.norm()
    mirrored = (1 - z_tag) / (1 - z_tag).norm()
    assert losses.margin_as_coded(mirrored, z_tag) < losses.margin_as_coded(z_tag, z_tag)


@pytest.mark.skipif(not REFERENCE.is_file(), reason="values of the original code are not at hand")
def test_margin_and_classification_equal_the_original():
    saved = {name: torch.tensor(value) for name, value in np.load(REFERENCE).items()}
    for case in ("pw_a", "pw_b"):
        z_audio = saved[f"{case}_preds"].requires_grad_()
        z_tag = saved[f"{case}_y"].requires_grad_()
        loss = losses.margin_as_coded(z_audio, z_tag)
        loss.backward()
        torch.testing.assert_close(loss, saved[f"{case}_loss"], rtol=1e-5, atol=0)
        torch.testing.assert_close(z_audio.grad, saved[f"{case}_grad_preds"], rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(z_tag.grad, saved[f"{case}_grad_y"], rtol=1e-4, atol=1e-8)
    logits = saved["bce_logits"].requires_grad_()
    loss = losses.classification(logits, saved["bce_labels"].float())
    loss.backward()
    torch.testing.assert_close(loss, saved["bce_graph"], rtol=1e-5, atol=0)
    torch.testing.assert_close(logits.grad, saved["bce_graph_grad_logits"], rtol=1e-4, atol=1e-8)
    logits.grad = None
    loss = losses.classification(logits, saved["cce_labels"].float(), "multiclass")
    loss.backward()
    torch.testing.assert_close(loss, saved["cce_graph"], rtol=1e-5, atol=0)
    classified = saved["cce_labels"].sum(1) == 1  # TensorFlow pulls at a row without a class too
    gradient = saved["cce_graph_grad_logits"][classified]
    torch.testing.assert_close(logits.grad[classified], gradient, rtol=1e-4, atol=1e-7)
    loss = losses.reconstruction(saved["bce_labels"].float(), saved["mse_pred"])
    torch.testing.assert_close(loss, saved["mse"], rtol=1e-5, atol=0)


def test_stop_grad_moves_the_music_and_not_the_tags():
    z_audio, z_tag = U.clone().requires_grad_(), V.clone().requires_grad_()
    stopped = losses.cosine_stop_grad(z_audio, z_tag)
    assert stopped.item() == losses.cosine(U, V).item()
    stopped.backward()
    moved = z_audio.grad.clone()
    assert z_tag.grad is None
    z_audio.grad = None
    losses.cosine(z_audio, z_tag).backward()
    torch.testing.assert_close(z_audio.grad, moved)


def test_variance_is_paid_for_by_a_space_that_shrinks():
    generator = torch.Generator().manual_seed(0)
    filled = torch.nn.functional.normalize(torch.randn(4000, 8, generator=generator), dim=1)
    alike = filled[:1].expand(4000, -1)
    assert losses.cosine_variance(filled, filled).item() == pytest.approx(0, abs=0.02)
    # √(0 + 1e-4) is what the root keeps of no deviation at all; both kinds of vector pay.
    assert losses.cosine_variance(alike, alike).item() == pytest.approx(2 * 0.99, abs=1e-5)


def test_overlap_is_jaccards():
    labels = torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 0, 0]])
    expected = torch.tensor([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(losses.tag_overlap(labels, labels), expected)


def test_soft_info_nce_is_clips_where_no_tags_are_shared():
    scale, labels = torch.tensor(1.6), torch.eye(2)
    logits = scale.exp() * torch.nn.functional.normalize(U) @ torch.nn.functional.normalize(V).T
    right = torch.arange(2)
    clip = torch.nn.functional.cross_entropy
    expected = (clip(logits, right) + clip(logits.T, right)) / 2
    apart = losses.soft_info_nce(U, V, losses.tag_overlap(labels, labels), scale)
    torch.testing.assert_close(apart, expected)
    # Clips of one tag set are no negatives of each other: vectors that are alike cost nothing more.
    same = losses.tag_overlap(torch.ones(2, 2), torch.ones(2, 2))
    torch.testing.assert_close(
        losses.soft_info_nce(U[:1].expand(2, -1), V[:1].expand(2, -1), same, scale),
        torch.tensor(2.0).log(),
    )


def test_queries_are_single_tags_and_subsets_of_own_tags():
    labels = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]]).float()
    queries = losses.subset_queries(labels, torch.Generator().manual_seed(0))
    assert queries.shape == (6 + 2, 6)  # the clip without tags asks nothing
    torch.testing.assert_close(queries[:6], torch.eye(6))
    assert 1 <= queries[6].sum() <= 3 and (queries[6] <= labels[0]).all()
    torch.testing.assert_close(queries[7], labels[1])
    sizes = {
        int(losses.subset_queries(labels, torch.Generator().manual_seed(s))[6].sum())
        for s in range(30)
    }
    assert sizes == {1, 2, 3}
    assert losses.answers(labels, queries)[:, 6].tolist() == [1, 0, 0]


def test_subset_query_rewards_the_right_space():
    labels = torch.eye(4)
    positive = losses.answers(labels, labels)
    scale, offset = torch.tensor(1.6), torch.tensor(-2.0)
    right = losses.subset_query(torch.eye(4), torch.eye(4), positive, scale, offset)
    mirrored = losses.subset_query(-torch.eye(4), torch.eye(4), positive, scale, offset)
    assert right < mirrored


def test_completion_asks_a_part_of_the_tags_what_the_clip_answers():
    labels = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 0, 1]])
    queries = torch.cat([torch.eye(3), torch.tensor([[1.0, 0, 0], [0, 0, 1]])])  # own parts last
    positive, scale, offset = losses.answers(labels, queries), torch.tensor(1.6), torch.tensor(-2.0)
    z_audio = torch.eye(4)[[3, 3, 3]]  # far from all tags in both spaces

    def completion(z_query):
        return losses.subset_completion(z_audio, z_query, positive, scale, offset)

    apart = torch.eye(4)[[0, 1, 2, 0, 2]]  # tags 0 and 1, of one clip, at right angles
    together = torch.eye(4)[[0, 0, 2, 0, 2]]
    assert completion(together) < completion(apart)
    part = losses.subset_query(apart[3:], apart, positive[[0, 2]], scale, offset)
    audio = losses.subset_query(z_audio, apart, positive, scale, offset)
    assert completion(apart) == pytest.approx(float((3 * audio + 2 * part) / 5))
    untagged = z_audio, torch.eye(3, 4), torch.zeros(3, 3), scale, offset
    assert losses.subset_completion(*untagged) == losses.subset_query(*untagged)


def test_classification_follows_the_task():
    logits, labels = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[0.0, 0.0, 1.0]])
    binary = -(torch.sigmoid(-logits[0, :2]).log().sum() + torch.sigmoid(logits[0, 2]).log()) / 3
    torch.testing.assert_close(losses.classification(logits, labels), binary)
    torch.testing.assert_close(
        losses.classification(logits, labels, "multiclass"), -logits.log_softmax(1)[0, 2]
    )
