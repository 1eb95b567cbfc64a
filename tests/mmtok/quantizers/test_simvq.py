import torch

from mmtok.quantizers import build_quantizer


def simvq(**fields):
    torch.manual_seed(0)
    return build_quantizer("simvq", dim=8, **({"codebook_size": 64} | fields))


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_codes_are_the_mapped_table_in_decode_too():  # image.md trap 16: the authors' get_codebook_entry omits the map
    quantizer = simvq()
    with torch.no_grad():
        quantizer.project_codes.weight.copy_(3 * torch.eye(8))
        quantizer.project_codes.bias.fill_(0.5)
    want = 3 * quantizer.frozen + 0.5
    torch.testing.assert_close(quantizer.code_table(), want)
    torch.testing.assert_close(quantizer.decode(torch.arange(64)[None, None])[0], want)


def test_the_table_is_no_parameter_and_only_the_map_learns():
    quantizer = simvq()
    assert {name for name, _ in quantizer.named_parameters()} == {"project_codes.weight", "project_codes.bias"}
    assert "frozen" in quantizer.state_dict()
    assert not quantizer.learns


def test_one_step_moves_every_code():
    """What the paper is about: a plain codebook's step moves the chosen codes alone."""
    quantizer = simvq()
    out = quantizer(draws(1, 1, 8))
    out.losses["codebook"].backward()
    before = quantizer.code_table()
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter -= parameter.grad
    assert ((quantizer.code_table() - before).abs().amax(1) > 1e-4).all()


def test_the_codebook_term_is_that_of_the_mapped_codes():  # image.md trap 1
    quantizer, z = simvq(commitment_weight=0.5, codebook_weight=2.0), draws(2, 30, 8)
    out = quantizer(z)
    codes = quantizer.code_table()[out.ids[:, 0]]
    distance = (codes - z).square().mean()
    torch.testing.assert_close(out.losses["commitment"], 0.5 * distance)
    torch.testing.assert_close(out.losses["codebook"], 2.0 * distance)
    found = torch.autograd.grad(out.losses["codebook"], quantizer.project_codes.weight)[0]
    dense = quantizer.project_codes(quantizer.frozen)[out.ids[:, 0]]
    want = torch.autograd.grad(2 * (dense - z).square().mean(), quantizer.project_codes.weight)[0]
    torch.testing.assert_close(found, want)


def test_training_brings_codes_into_use_that_a_plain_codebook_leaves_behind():
    z = 3 * draws(1, 2048, 2) @ draws(2, 8, seed=1)  # on a plane, which random codes are far from
    used = {}
    for name, fields in (("simvq", {}), ("vq", {"learn": "gradient"})):
        torch.manual_seed(0)
        quantizer = build_quantizer(name, dim=8, codebook_size=256, **fields)
        optimizer = torch.optim.Adam(quantizer.parameters(), 1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            quantizer(z).losses["codebook"].backward()
            optimizer.step()
        used[name] = int((quantizer(z).stats["counts"] > 0).sum())
    assert used["simvq"] > 1.5 * used["vq"], used


def test_large_codebooks_keep_nothing_of_their_size_for_backward():
    quantizer, kept = simvq(codebook_size=65536), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        out = quantizer(draws(1, 512, 8).requires_grad_())
    assert max(kept) <= 512 * 8
    (out.values.sum() + sum(out.losses.values())).backward()
    assert len(out.ids.unique()) > 300


def test_few_and_many_latents_give_a_code_one_value():
    torch.manual_seed(0)
    quantizer = build_quantizer("simvq", dim=8, codebook_size=64).eval()
    ids = torch.randint(0, 64, (1, 1, 200))
    many = quantizer.decode(ids)  # more than there are codes: the whole table is mapped
    few = torch.cat([quantizer.decode(part) for part in ids.split(20, 2)], 1)
    torch.testing.assert_close(few, many, rtol=1e-6, atol=1e-6)
