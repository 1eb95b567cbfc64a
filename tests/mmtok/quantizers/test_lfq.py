import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from mmtok.quantizers.entropy import JointSum, binary_entropy
from mmtok.quantizers.lfq import LFQ, LFQConfig


def lfq(**fields):
    torch.manual_seed(0)
    return LFQ(LFQConfig(**({"dim": 16, "bits": 6, "entropy_weight": 0.1, "commitment_weight": 0.25} | fields)))


def latents(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def corners(bits):
    return ((torch.arange(2**bits)[:, None] >> torch.arange(bits - 1, -1, -1)) & 1) * 2.0 - 1.0


def naive_entropies(z, temperature):
    """Both entropies by the softmax over all codes, as the paper writes them. z (N, d)."""
    squared = (z[:, None].double() - corners(z.shape[1]).double()).square().sum(-1)
    p = (-squared / temperature).softmax(-1)
    return torch.special.entr(p).sum(-1).mean(), torch.special.entr(p.mean(0)).sum()


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_both_entropies_equal_the_softmax_over_all_codes(bits, temperature):
    """image.md section 6: exact, not a bound."""
    z = latents(50, bits)
    sample, codebook = naive_entropies(z, temperature)
    logits = 4 * z / temperature
    mean = JointSum.apply(logits, torch.ones(50)).flatten() / 50
    torch.testing.assert_close(binary_entropy(logits).sum(-1).mean().double(), sample, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.special.entr(mean).sum().double(), codebook, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [1, 5, 8])
def test_the_gradient_of_the_losses_equals_that_of_the_softmax_over_all_codes(bits):
    quantizer = lfq(bits=bits, commitment_weight=0.0, diversity=0.7)
    z = latents(2, 30, 16)
    out = quantizer(z)
    ours = torch.autograd.grad(sum(out.losses.values()), quantizer.project_in.weight)[0]
    x = quantizer._latents(z).flatten(0, 1)
    sample, codebook = naive_entropies(x, 1.0)
    naive = torch.autograd.grad(0.1 * (sample - 0.7 * codebook), quantizer.project_in.weight)[0]
    torch.testing.assert_close(ours, naive.float(), rtol=1e-4, atol=1e-6)


def test_chunks_do_not_change_the_sum_or_its_gradient(monkeypatch):
    logits, weight, direction = latents(1500, 7), torch.rand(1500), latents(8, 16)

    def both():
        x = logits.clone().requires_grad_()
        total = JointSum.apply(x, weight)
        (gradient,) = torch.autograd.grad((total * direction).sum(), x)
        return total.detach(), gradient

    whole = both()
    monkeypatch.setattr("mmtok.quantizers.entropy._TABLE_ENTRIES", 1)
    torch.testing.assert_close(both(), whole, rtol=1e-4, atol=1e-5)


def test_ids_are_the_bits_of_the_signs_with_zero_cleared():
    quantizer = lfq(dim=3, bits=3)
    with torch.no_grad():
        quantizer.project_in.weight.copy_(torch.eye(3))
        quantizer.project_in.bias.zero_()
    z = torch.tensor([[[1.0, -1, 1], [-1, -1, 1], [0, 0, 1], [0, 0, 0], [-0.0, 1, -2]]])
    assert quantizer.encode(z).tolist() == [[[5, 1, 1, 0, 2]]]


def test_every_id_decodes_to_the_corner_it_names_and_back():
    """image.md traps 11 and 16: an exhaustive bijection."""
    quantizer = lfq(dim=8, bits=8)
    with torch.no_grad():
        for layer in (quantizer.project_in, quantizer.project_out):
            layer.weight.copy_(torch.eye(8))
            layer.bias.zero_()
    ids = torch.arange(256)[None, None]
    values = quantizer.decode(ids)
    assert torch.equal(values[0], corners(8))
    assert torch.equal(quantizer.encode(values), ids)


def test_forward_values_are_bit_equal_to_the_decoded():
    quantizer = lfq()
    out = quantizer(latents(2, 9, 16))
    assert torch.equal(quantizer.decode(out.ids), out.values)


def test_the_scale_of_the_latents_changes_nothing():
    """image.md trap 12: without a norm the encoder's scale drifts until the entropies saturate."""
    quantizer, z = lfq(), latents(2, 9, 16)
    with torch.no_grad():
        quantizer.project_in.bias.zero_()
    one, thousand = quantizer(z), quantizer(z * 1000)
    assert torch.equal(one.ids, thousand.ids)
    torch.testing.assert_close(one.losses, thousand.losses, rtol=1e-4, atol=1e-5)


def test_saturated_bits_have_finite_losses_and_gradients():
    """image.md trap 12: NaN where probabilities round to 0 or 1."""
    quantizer, z = lfq(temperature=1e-4), latents(2, 9, 16).requires_grad_()
    out = quantizer(z)
    sum(out.losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in out.losses.values())
    assert torch.isfinite(z.grad).all()


def test_masked_positions_change_neither_losses_nor_stats():
    quantizer, z = lfq(), latents(2, 9, 16)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 5:] = False
    padded = quantizer(z.masked_fill(~mask[..., None], float("nan")), mask)
    alone = quantizer(z[mask][None])
    torch.testing.assert_close(padded.losses, alone.losses)
    assert torch.equal(padded.stats["counts"], alone.stats["counts"])
    assert torch.equal(padded.stats["bit_products"], alone.stats["bit_products"])


def test_stats_count_codes_and_pairs_of_bits():
    out = lfq()(latents(2, 9, 16))
    assert torch.equal(out.stats["counts"], torch.bincount(out.ids.flatten(), minlength=64))
    bits = (corners(6)[out.ids.flatten()] + 1) / 2
    assert torch.equal(out.stats["bit_products"], bits.T @ bits)


def test_terms_without_weight_are_left_out():
    """image.md trap 15: an entropy computed at weight 0."""
    assert lfq(entropy_weight=0.0, commitment_weight=0.0)(latents(2, 9, 16)).losses == {}
    assert set(lfq(entropy_weight=0.0)(latents(2, 9, 16)).losses) == {"commitment"}


def test_entropy_training_from_a_collapsed_start_spreads_over_the_codes():
    quantizer = lfq(bits=8, commitment_weight=0.0)
    with torch.no_grad():
        quantizer.project_in.bias.fill_(0.5)
    z = latents(1, 2048, 16)
    before = (quantizer(z).stats["counts"] > 0).sum()
    optimizer = torch.optim.Adam(quantizer.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        sum(quantizer(z).losses.values()).backward()
        optimizer.step()
    after = (quantizer(z).stats["counts"] > 0).sum()
    assert before < 200
    assert after > 250


@pytest.mark.parametrize("bits", [0, 25])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match=r"lfq\.bits must be 1 to 24"):
        LFQConfig(dim=4, bits=bits)


def test_big_codebooks_keep_no_table_of_all_codes_for_backward():
    quantizer, kept = lfq(bits=16), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        quantizer(latents(1, 4096, 16))
    assert max(kept) <= 4096 * 16  # latents and 2^16 means; the softmax over all codes would be 4096 * 2^16


def _rank(rank, path, z, mask):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(lfq().train())
    out = model(z[rank : rank + 1], mask[rank : rank + 1])
    (sum(out.losses.values()) + out.values.sum() * 0).backward()
    gradients = [p.grad for p in model.parameters()]
    torch.save(({name: loss.detach() for name, loss in out.losses.items()}, gradients), f"{path}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_give_the_losses_and_gradients_of_the_joined_batch(tmp_path):
    """image.md trap 5: the entropy of the mean over all ranks, and its gradient, with unequal numbers of positions."""
    z, mask = latents(2, 64, 16), torch.ones(2, 64, dtype=torch.bool)
    mask[1, 20:] = False
    mp.spawn(_rank, (str(tmp_path), z, mask), nprocs=2)
    quantizer = lfq().train()
    whole = quantizer(z, mask)
    (sum(whole.losses.values()) + whole.values.sum() * 0).backward()
    (first, gradients), (second, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, loss in whole.losses.items():
        torch.testing.assert_close((first[name] + second[name]) / 2, loss.detach(), rtol=1e-5, atol=1e-6)
    assert first["codebook_entropy"] == second["codebook_entropy"]
    for one, other, expected in zip(gradients, others, (p.grad for p in quantizer.parameters()), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(one, other)


def test_compiles_as_one_graph():
    quantizer, z = lfq().train(), latents(2, 9, 16)
    compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    out, expected = compiled(z), quantizer(z)
    assert torch.equal(out.ids, expected.ids)
    torch.testing.assert_close(out.losses, expected.losses)
    sum(out.losses.values()).backward()
