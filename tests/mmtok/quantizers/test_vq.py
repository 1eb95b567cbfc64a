import pytest
import torch

from mmtok.quantizers import build_quantizer
from mmtok.quantizers.cluster import kmeans, select, selection_keys
from mmtok.reduce import merge_stats


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def clusters(count, each=50, dim=8):
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(count, dim, generator=generator)
    noise = 0.05 * torch.randn(count, each, dim, generator=generator)
    rows = (centres[:, None] + noise).flatten(0, 1)
    return rows[torch.randperm(len(rows), generator=generator)][None]


def train(quantizer, z, updates):
    for _ in range(updates):
        quantizer.update(quantizer(z).stats)
    return quantizer(z)


def test_a_code_becomes_the_mean_of_its_latents_at_once_and_then_follows_slowly():
    quantizer = build_quantizer("vq", dim=2, codebook_size=1, ema_decay=0.9)
    quantizer.update(quantizer(torch.tensor([[[1.0, 0.0], [3.0, 0.0]]])).stats)
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[2.0, 0.0]]))
    quantizer.update(quantizer(torch.tensor([[[4.0, 0.0], [4.0, 0.0]]])).stats)
    # Bias-corrected mean of 2 and 4: weights 0.09 and 0.1.
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[(0.09 * 2 + 0.1 * 4) / 0.19, 0.0]]))


def test_an_unused_code_stays_where_it_is_for_ever():
    quantizer = build_quantizer("vq", dim=2, codebook_size=2, ema_decay=0.5)
    quantizer.codebook.copy_(torch.tensor([[0.0, 0.0], [9.0, 9.0]]))
    train(quantizer, torch.full((1, 4, 2), 9.0), 1)
    train(quantizer, torch.zeros(1, 4, 2), 300)  # far past the underflow of 0.5^n
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[0.0, 0.0], [9.0, 9.0]]))


@pytest.mark.parametrize("seed", [0, 9, 28, 97])
def test_kmeans_init_puts_the_codes_on_the_clusters(seed):
    torch.manual_seed(seed)
    quantizer = build_quantizer("vq", dim=8, codebook_size=16, init="kmeans", restart=0.2)
    out = train(quantizer, clusters(16), 10)
    assert (out.stats["counts"] > 0).sum() >= 15
    # Of a variance of 16: two of sixteen clusters may share a code still.
    assert (out.values - clusters(16)).square().mean() < 1.6


@pytest.mark.parametrize("learn", ["ema", "gradient"])
def test_kmeans_init_with_fewer_latents_than_codes(learn):  # image.md trap 7
    quantizer = build_quantizer("vq", dim=8, codebook_size=64, init="kmeans", learn=learn)
    z = torch.randn(1, 5, 8)
    out = train(quantizer, z, 1)
    torch.testing.assert_close(out.values, z, atol=0.5, rtol=0)
    assert len(quantizer.codebook.unique(dim=0)) == 64


def test_before_kmeans_the_codes_are_usable():  # image.md trap 7
    quantizer = build_quantizer("vq", dim=8, codebook_size=64, init="kmeans").eval()
    assert len(quantizer(torch.randn(1, 200, 8)).ids.unique()) > 1


@pytest.mark.parametrize("seed", [0, 5, 9, 20, 58])
def test_restarts_bring_a_collapsed_codebook_back(seed):
    torch.manual_seed(seed)
    plain, kept = (build_quantizer("vq", dim=8, codebook_size=16, restart=share) for share in (0.0, 0.2))
    z = clusters(16)
    for quantizer in (plain, kept):
        quantizer.codebook.copy_(100 + torch.arange(16.0)[:, None].expand(16, 8))
    before, after = train(plain, z, 30), train(kept, z, 30)
    assert (before.stats["counts"] > 0).sum() == 1
    # A code that lost its latents to a restarted one is idle until its average usage has fallen: 160 updates.
    assert (after.stats["counts"] > 0).sum() >= 15
    assert after.losses["commitment"] < before.losses["commitment"] / 2


def test_a_restarted_code_gets_usage_and_mean_that_agree():  # image.md trap 3
    quantizer = build_quantizer("vq", dim=8, codebook_size=16, restart=0.2)
    z = clusters(16)
    quantizer.codebook.copy_(100 + torch.arange(16.0)[:, None].expand(16, 8))
    stats = quantizer(z).stats
    quantizer.update(stats)
    restarted = quantizer.codebook[1:]
    assert (torch.cdist(restarted, z[0]).amin(1) < 1e-2).all()
    assert (quantizer.usage[1:] > 0.2 * quantizer.usage.mean()).all()


@pytest.mark.parametrize("learn", ["ema", "gradient"])
@pytest.mark.parametrize("seed", [0, 5, 9])
def test_online_clustering_brings_a_collapsed_codebook_back(seed, learn):
    torch.manual_seed(seed)
    fields = {"restart": 0.001, "restart_policy": "blend", "ema_decay": 0.9, "learn": learn}
    quantizer, z = build_quantizer("vq", dim=8, codebook_size=32, **fields), clusters(16)
    with torch.no_grad():
        quantizer.codebook.copy_(100 + torch.arange(32.0)[:, None].expand(32, 8))
    assert (quantizer(z).stats["counts"] > 0).sum() == 1
    assert (train(quantizer, z, 30).stats["counts"] > 0).sum() >= 20


def test_online_clustering_moves_codes_by_their_usage():
    """The share of arXiv 2307.15139, equation 5: exp(-usage K 10 / (1 - decay)), here with 1 / restart for 10 / .01."""
    quantizer = build_quantizer("vq", dim=8, codebook_size=4, restart=0.5, restart_policy="blend", learn="gradient")
    quantizer.usage.copy_(torch.tensor([0.0, 0.5, 1.0, 98.5]))
    before, latents = quantizer.codebook.detach().clone(), torch.randn(4, 8)
    with torch.no_grad():
        quantizer._restart({"sample_keys": -torch.arange(4.0), "sample_latents": latents})
    share = torch.exp(-quantizer.usage / (0.5 * 25))[:, None]
    torch.testing.assert_close(quantizer.codebook.detach(), before * (1 - share) + latents * share)
    assert quantizer.usage.tolist() == [0.0, 0.5, 1.0, 98.5]  # it moves again until it is used


def test_revive_starts_restarts():
    quantizer = build_quantizer("vq", dim=8, codebook_size=16)
    assert quantizer.revive()
    assert "sample_keys" in quantizer(clusters(4)).stats


def test_the_norm_of_cosine_codes_cannot_run_away():  # image.md trap 8
    quantizer = build_quantizer("vq", dim=8, codebook_size=16, l2=True)
    small, large = quantizer(clusters(16)), quantizer(1000 * clusters(16))
    torch.testing.assert_close(small.losses, large.losses)
    quantizer.update(large.stats)
    torch.testing.assert_close(quantizer.codebook.norm(dim=1), torch.ones(16))


def test_codes_compared_by_direction_have_none_but_that_however_they_learn():
    quantizer = build_quantizer("vq", dim=8, codebook_size=16, l2=True, learn="gradient")
    before = quantizer(clusters(16))
    with torch.no_grad():  # as steps of an optimiser do
        quantizer.codebook.mul_(torch.linspace(0.1, 3, 16)[:, None])
    after = quantizer(clusters(16))
    assert torch.equal(after.ids, before.ids)
    torch.testing.assert_close(after.values, before.values)
    torch.testing.assert_close(quantizer.decode(after.ids), after.values)
    torch.testing.assert_close(quantizer.code_table().norm(dim=1), torch.ones(16))


def test_beta_weighs_the_commitment_and_not_the_codebook():  # image.md trap 1
    z = torch.randn(1, 40, 8, requires_grad=True)
    norms = []
    for beta in (0.25, 0.5):
        torch.manual_seed(0)
        quantizer = build_quantizer("vq", dim=8, codebook_size=16, learn="gradient", commitment_weight=beta)
        norms.append(
            [g.norm() for g in torch.autograd.grad(sum(quantizer(z).losses.values()), [z, quantizer.codebook])]
        )
    torch.testing.assert_close(norms[1][0], 2 * norms[0][0])
    torch.testing.assert_close(norms[1][1], norms[0][1])


def test_accumulated_batches_update_as_the_joined_one():
    z = clusters(16)
    states = []
    for parts in (1, 4):
        torch.manual_seed(0)
        quantizer = build_quantizer("vq", dim=8, codebook_size=16, init="kmeans", restart=0.3)
        for _ in range(3):
            stats = {}
            for part in z.chunk(parts, 1):
                stats = quantizer.merge(stats, quantizer(part).stats)
            quantizer.update(stats)
        states.append(quantizer.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-5)


def test_the_sample_does_not_depend_on_the_order_or_the_cut():
    rows, weight = torch.randn(100, 4), torch.rand(100)
    probe, counter = torch.randn(4), torch.tensor(3)
    keys = selection_keys(rows, weight, probe, counter)
    order = torch.randperm(100)
    halves = [select(keys[order][part], rows[order][part], 20) for part in (slice(50), slice(50, None))]
    merged = select(torch.cat([half[0] for half in halves]), torch.cat([half[1] for half in halves]), 20)
    torch.testing.assert_close(merged, select(keys, rows, 20), rtol=0, atol=0)


def test_the_sample_follows_the_weights_and_moves_with_the_counter():
    rows, weight = torch.randn(4000, 4), torch.ones(4000)
    weight[:2000] = 9.0
    weight[:100] = 0.0
    picks = [selection_keys(rows, weight, torch.randn(4), torch.tensor(n)).topk(200).indices for n in range(2)]
    heavy = (picks[0] < 2000).float().mean()
    assert 0.8 < heavy < 0.98  # 0.895 expected
    assert (picks[0] >= 100).all()
    assert len(set(picks[0].tolist()) & set(picks[1].tolist())) < 100


def test_a_sample_is_filled_up_where_rows_are_missing():
    keys, rows = select(torch.tensor([1.0, -torch.inf]), torch.tensor([[5.0], [torch.nan]]), 4)
    assert keys.tolist() == [1.0] + 3 * [-torch.inf]
    assert rows.tolist() == [[5.0], [0.0], [0.0], [0.0]]


def test_kmeans_without_rows_keeps_the_codes():
    codes = torch.randn(4, 2)
    assert torch.equal(kmeans(torch.empty(0, 2), codes, seed=0)[0], codes)


def test_stats_add_up_and_samples_stand_side_by_side():
    one = {"0.counts": torch.ones(2), "0.sample_keys": torch.ones(3)}
    both = merge_stats(merge_stats({}, one), one)
    assert both["0.counts"].tolist() == [2.0, 2.0]
    assert both["0.sample_keys"].shape == (6,)


@pytest.mark.parametrize(
    ("field", "value"), [("codebook_size", 0), ("code_dim", -1), ("ema_decay", 1.0), ("restart", 2.0), ("learn", "sgd")]
)
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        build_quantizer("vq", dim=8, **{field: value})


def test_codes_are_chosen_by_direction_and_given_with_their_length():
    quantizer = build_quantizer("vq", dim=2, codebook_size=2, cosine=True)
    quantizer.codebook.copy_(torch.tensor([[30.0, 0.0], [0.1, 0.1]]))
    out = quantizer(torch.tensor([[[2.0, 0.1], [3.0, 2.0], [0.0, 0.2]]]))
    assert out.ids.tolist() == [[[0, 1, 1]]]  # by distance all of them would be the second
    torch.testing.assert_close(out.values[0, 0], torch.tensor([30.0, 0.0]))


def test_the_two_ways_to_compare_directions_exclude_each_other():
    with pytest.raises(ValueError, match="Leave out l2 or cosine"):
        build_quantizer("vq", dim=2, cosine=True, l2=True)
