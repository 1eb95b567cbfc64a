import numpy as np
import pytest
import torch

from mmtok.codes import Codes
from mmtok.quantizers.usage import measure
from mmtok.tokenizers import build_tokenizer

WIDTH = 12


def vectors(count=600, width=WIDTH, seed=0):
    """Unit-norm vectors around a common mean, as sentence encoders give them; clustered within clusters."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(8, width, generator=rng)
    parts = torch.randn(8, 6, width, generator=rng)
    coarse, fine = (torch.randint(n, (count,), generator=rng) for n in (8, 6))
    x = centres[coarse] + 0.4 * parts[coarse, fine] + 0.05 * torch.randn(count, width, generator=rng)
    return torch.nn.functional.normalize(x * torch.linspace(0.1, 3, width) + 2, dim=1)


def trained(quantizer=None, **more):
    block = {"name": "vector", "width": WIDTH, "dim": 6, "encoder": {"name": "mlp", "widths": [16]}} | more
    torch.manual_seed(0)
    return build_tokenizer(block, quantizer or {"name": "rq", "codebook_size": 16, "depth": 3})


def fitted(quantizer=None, **more):
    block = {"name": "vector_fitted", "width": WIDTH} | more
    return build_tokenizer(block, quantizer or {"name": "rq", "codebook_size": 16, "depth": 3})


KINDS = {
    "rqvae": trained,
    "fsq": lambda: trained({"name": "fsq", "levels": [4, 4, 4]}),
    "rkmeans": fitted,
    "pq": lambda: fitted({"name": "pq", "codebook_size": 8, "groups": 4}),
    "opq": lambda: fitted({"name": "pq", "codebook_size": 8, "groups": 4}, rotate=True),
}


@pytest.fixture(params=KINDS)
def tokenizer(request):
    made = KINDS[request.param]()
    made.fit([vectors()]) if hasattr(made, "fit") else made.measure([vectors()])
    return made.eval()


def test_codes_are_one_position_of_all_levels_and_come_back_as_vectors(tokenizer):
    x = vectors(20, seed=1)
    codes = tokenizer.encode(x)
    assert codes.ids.shape == (20, len(tokenizer.spec.codebook_sizes), 1)
    assert codes.lengths.tolist() == [1] * 20
    back = tokenizer.decode(codes)
    assert back.shape == x.shape
    torch.testing.assert_close(back, tokenizer(x).x)


def test_an_item_has_the_same_codes_alone_and_among_others(tokenizer):
    x = vectors(20, seed=1)
    together = tokenizer.encode(x).ids
    alone = torch.cat([tokenizer.encode(row[None]).ids for row in x])
    assert (together == alone).float().mean() > 0.98  # ties fall to either side


def test_its_state_makes_the_same_tokenizer(tokenizer, tmp_path):
    from mmtok.schema import to_plain

    again = build_tokenizer(to_plain(tokenizer.config), to_plain(tokenizer.quantizer.config))
    again.load_state_dict(tokenizer.state_dict(), assign=True)
    x = vectors(20, seed=1)
    assert torch.equal(again.eval().encode(x).ids, tokenizer.encode(x).ids)
    assert again.fingerprint() == tokenizer.fingerprint()
    assert not again.wants_sample
    tokenizer.encode(x).save(tmp_path / "codes", tokenizer.spec)
    codes, spec = Codes.load(tmp_path / "codes")
    assert spec == tokenizer.spec
    torch.testing.assert_close(again.decode(codes), tokenizer.decode(tokenizer.encode(x)))


def test_an_empty_batch_has_no_codes(tokenizer):
    assert tokenizer.encode(torch.empty(0, WIDTH)).ids.shape == (0, len(tokenizer.spec.codebook_sizes), 1)


def test_the_costs_of_last_codes_are_least_at_the_chosen_one(tokenizer):
    x = vectors(20, seed=1)
    ids = tokenizer.encode(x).ids[:, :, 0]
    least = 0.6 if len(ids.T) == 1 else 0.95  # a grid is rounded before its projection, which turns angles
    assert (tokenizer.last_costs(x, ids).argmin(1) == ids[:, -1]).float().mean() > least


def test_standardised_vectors_have_mean_0_and_deviation_1_whatever_the_batches():
    x = vectors() * 100 + 1e4
    one, many = trained(), trained()
    one.measure([x])
    many.measure(iter(x.split(7)))
    torch.testing.assert_close(one.standard.mean, many.standard.mean)
    torch.testing.assert_close(one.standard.deviation, many.standard.deviation)
    seen = one.compared(x)
    torch.testing.assert_close(seen.mean(0), torch.zeros(WIDTH), atol=1e-2, rtol=0)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(WIDTH), rtol=1e-3, atol=0)
    assert int(one.standard.measured) == len(x)


def test_a_constant_channel_is_left_as_it_is():
    x = vectors()
    x[:, 3] = 0.25
    made = trained()
    made.measure([x])
    assert made.standard.deviation[3] == 1
    assert made.compared(x)[:, 3].abs().max() < 1e-6


def test_a_loaded_tokenizer_does_not_ask_for_a_sample_again():  # downstream.md 4: plain attributes forget
    made = trained()
    assert made.wants_sample
    made.measure([vectors()])
    again = trained()
    again.load_state_dict(made.state_dict())
    assert not again.wants_sample


def test_without_standardisation_no_sample_is_wanted():
    made = trained(standardize=False)
    assert not made.wants_sample
    x = vectors(5)
    assert torch.equal(made.compared(x), x)


def train(made, x, steps=150):
    """A plain loop, as the training module has it."""
    if made.wants_sample:
        made.measure([x])
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    for _ in range(steps):
        out = made(x)
        error = (made.compared(out.x) - made.compared(x)).square().sum(1).mean()
        loss = error + sum(out.quantized.losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        made.quantizer.update(out.quantized.stats)
    ids = made.eval().encode(x).ids[:, :, 0]
    return [measure(torch.bincount(level, minlength=16)).active for level in ids.T]


@pytest.mark.parametrize("standardize", [False, True])
def test_unit_norm_vectors_use_their_codes_only_when_standardised(standardize):  # downstream.md 4: reproduction reality
    x = torch.nn.functional.normalize(vectors() * 0.02 + 1, dim=1)
    used = train(trained({"name": "rq", "codebook_size": 16, "depth": 3}, standardize=standardize), x)
    assert used[0] >= 0.5 if standardize else used[0] <= 0.25


def test_residual_k_means_uses_every_code_and_leaves_less_at_each_level():
    made = fitted()
    x = vectors()
    made.fit([x])
    ids = made.encode(x).ids
    assert all(len(level.unique()) == 16 for level in ids[:, :, 0].T)
    z = made.embed(x).z
    errors = [(made.quantizer.decode(ids[:, :n]) - z).square().mean() for n in (1, 2, 3)]
    assert errors[0] > 1.2 * errors[1] > 1.2**2 * errors[2]


def test_fitting_is_the_same_every_time_whatever_was_drawn_before():
    made = [fitted(), fitted()]
    for number, one in enumerate(made):
        torch.manual_seed(number)
        one.quantizer = type(one.quantizer)(one.quantizer.config)
        one.fit(vectors().split(100))
    first, second = (one.encode(vectors(50, seed=2)).ids for one in made)
    assert torch.equal(first, second)


def test_a_fitted_rotation_lowers_the_error_of_product_codes():
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3))).Q
    x = (torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(4)) * torch.logspace(0, -2, WIDTH)) @ turn
    quantizer = {"name": "pq", "codebook_size": 16, "groups": 4}
    plain, turned = fitted(quantizer, standardize=False), fitted(quantizer, standardize=False, rotate=True)
    without, rotated = plain.fit([x])["error"], turned.fit([x])["error"]
    assert rotated < 0.8 * without
    matrix = turned.networks.encoder.matrix
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(WIDTH), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 5), r"shape \(2, 5\).*\(B, 12\).*tokenizer.width"),
        (torch.zeros(2, WIDTH, 1), "shape"),
        (torch.zeros(2, WIDTH, dtype=torch.int64), "int64"),
        (torch.full((2, WIDTH), float("nan")), "vector 0 of x holds NaN"),
        (torch.zeros(2, WIDTH, dtype=torch.float64), "float64"),
    ],
)
def test_what_is_no_batch_of_vectors_is_refused(x, message):
    made = trained()
    with pytest.raises(ValueError, match=message):
        made.encode(x)


def test_files_arrays_and_bytes_of_one_or_many_vectors_are_read(tmp_path):
    made = trained()
    x = vectors(3)
    np.save(tmp_path / "many.npy", x.numpy().astype(np.float64))
    np.save(tmp_path / "one.npy", x[0].numpy())
    torch.testing.assert_close(made.preprocess(tmp_path / "many.npy"), x)
    torch.testing.assert_close(made.preprocess(str(tmp_path / "one.npy")), x[:1])
    torch.testing.assert_close(made.preprocess((tmp_path / "one.npy").read_bytes()), x[:1])
    torch.testing.assert_close(made.preprocess(x.numpy()), x)
    made.write(x, tmp_path / "again.npy")
    torch.testing.assert_close(made.preprocess(tmp_path / "again.npy"), x)


def test_files_that_are_no_vectors_are_named(tmp_path):
    made = trained()
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for name in ("pickle", "text"):
        with pytest.raises(ValueError, match=f"{name}.npy cannot be read as an array"):
            made.preprocess(tmp_path / f"{name}.npy")
    with pytest.raises(ValueError, match="there is no file"):
        made.preprocess(tmp_path / "absent.npy")
    with pytest.raises(ValueError, match="no vector"):
        made.preprocess(np.zeros((2, 3, 4)))


def test_a_fitted_tokenizer_refuses_to_work_before_it_was_fitted():
    with pytest.raises(ValueError, match="not fitted yet"):
        fitted().encode(vectors(2))
    with pytest.raises(ValueError, match="nothing"):
        fitted().fit([])


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        ("fsq", "'fsq' has no codes that are fitted"),
        ({"name": "rq", "shared": True}, "one codebook for all levels"),
        ({"name": "vq", "code_dim": 4}, "code_dim=4 needs a projection"),
    ],
)
def test_quantizers_that_cannot_be_fitted_say_so(quantizer, message):
    with pytest.raises(ValueError, match=message):
        fitted(quantizer).fit([vectors()])


def test_a_fitted_tokenizer_has_the_width_of_its_vectors_between():
    with pytest.raises(ValueError, match="dim=4 is not width=12"):
        fitted(dim=4)
