import json

import pytest
import torch

from mmtok.cli.vectors import summary, table
from mmtok.evaluation.vector import code, evaluate_vectors, random_codes
from mmtok.tokenizers import build_tokenizer


def clusters(count=400, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 16, generator=torch.Generator().manual_seed(9))[torch.randint(12, (count,), generator=rng)]
    return x + 0.2 * torch.randn(count, 16, generator=rng)


def fitted(seed=0, quantizer="rq", **fields):
    block = {"rq": {"codebook_size": 16, "depth": 3}, "pq": {"codebook_size": 8, "groups": 4}}[quantizer]
    tokenizer = build_tokenizer({"name": "vector_fitted", "width": 16}, {"name": quantizer} | block | fields)
    tokenizer.fit([clusters(seed=seed)])
    return tokenizer.eval()


def batches(x, label=None):
    return [{"x": part, "label": torch.zeros(len(part), dtype=torch.int64)} for part in x.split(64)]


def test_every_figure_is_there_and_in_the_file(tmp_path):
    x = clusters(seed=1)
    report = evaluate_vectors(fitted(), batches(x), against=fitted(seed=2), notes={"against": "other"})
    assert report.samples == 400
    m = report.metrics
    for name in ("collision_rate", "needs_extra", "slots_per_item", "joint_active", "mse", "knn_recall", "stability",
                 "first_level_rand", "residual_ratio_0", "residual_ratio_2"):  # fmt: skip
        assert name in m
    assert m["residual_ratio_0"] > m["residual_ratio_1"] > m["residual_ratio_2"] > 0
    assert m["knn_recall"] > 5 * report.choices["shuffled"]["metrics"]["knn_recall"]
    assert 0.5 < m["first_level_rand"] <= 1
    assert [level["size"] for level in report.usage] == [16] * 3
    errors = [row["mse"] for row in report.by_levels]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(m["mse"], rel=1e-4)
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["metrics"]["mse"] == m["mse"]
    assert "collide" in summary(report)
    assert "against other" in summary(report)
    assert len(table(report).splitlines()) == 5


def test_quantizers_without_levels_have_no_rows_by_level():
    report = evaluate_vectors(fitted(quantizer="pq"), batches(clusters(seed=1)))
    assert report.by_levels == ()
    assert "residual_ratio_0" not in report.metrics


def test_random_codes_give_equal_vectors_equal_codes_and_know_no_neighbours():
    x = clusters(seed=1)
    x[1] = x[0]
    tokenizer = fitted()
    items, _ = code(tokenizer, [(x, None)], "cpu")
    found = random_codes(items, (16, 16, 16))
    assert found["collision_rate"] >= found["duplicates"] > 0
    assert found["mse"] == pytest.approx(1, abs=0.1)
    assert found["knn_recall"] == pytest.approx(10 / 399)


def test_one_vector_is_not_enough():
    with pytest.raises(ValueError, match="fewer than 2 vectors"):
        evaluate_vectors(fitted(), batches(clusters(count=1)))
