import pytest
import torch

from mmtok.quantizers import search
from mmtok.quantizers.search import exact_matmul, nearest


def exact(x, codes):
    return torch.cdist(x.double(), codes.double()).argmin(1)


@pytest.mark.parametrize(
    ("rows", "size", "dim"), [(300, 1, 4), (1, 7, 3), (333, 100, 16), (65, 8192, 8), (40, 5000, 1)]
)
def test_it_finds_the_nearest_code(rows, size, dim):
    generator = torch.Generator().manual_seed(0)
    x, codes = torch.randn(rows, dim, generator=generator), torch.randn(size, dim, generator=generator)
    found, want = nearest(x, codes), exact(x, codes)
    # Where two codes are as near to rounding, either will do.
    far = (x - codes[found]).norm(dim=1) - (x - codes[want]).norm(dim=1)
    assert far.max() < 1e-4
    assert (found == want).float().mean() > 0.9


def test_no_rows_give_no_ids():
    assert nearest(torch.empty(0, 4), torch.randn(8, 4)).shape == (0,)


@pytest.mark.parametrize("size", [1024, 4096])
def test_a_row_gets_the_same_code_whatever_rows_are_beside_it(size):
    generator = torch.Generator().manual_seed(0)
    x, codes = torch.randn(200, 16, generator=generator), torch.randn(size, 16, generator=generator)
    two = torch.cdist(x.double(), codes.double()).topk(2, largest=False).values
    clear = two[:, 1] - two[:, 0] > 1e-4
    together = nearest(x, codes)
    alone = torch.cat([nearest(row[None], codes) for row in x])
    assert clear.sum() > 150
    assert torch.equal(together[clear], alone[clear])


def test_folding_changes_no_id(monkeypatch):
    x, codes = torch.randn(50, 8), torch.randn(4096, 8)
    folded = nearest(x, codes)
    monkeypatch.setattr(search, "_FOLD_FROM", 1 << 30)
    assert torch.equal(nearest(x, codes), folded)


@pytest.mark.parametrize("dim", [8, 256])
def test_no_matrix_of_all_scores_is_ever_held(dim):
    codes = torch.empty(16384, dim, device="meta")
    assert search.chunk_rows(codes) * 16384 * 4 <= 16 << 20


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_reduced_matmul_precision_is_off_inside_and_restored_after(precision):  # image.md trap 14
    before = torch.get_float32_matmul_precision()
    x, codes = torch.randn(64, 32), torch.randn(512, 32)
    try:
        torch.set_float32_matmul_precision(precision)
        with exact_matmul():
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.equal(nearest(x, codes), exact(x, codes))
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_no_gradient_and_one_graph():
    x, codes = torch.randn(20, 4, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    assert not nearest(x, codes).requires_grad
    try:
        compiled = torch.compile(nearest, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(x, codes), nearest(x, codes))
    finally:
        torch.compiler.reset()


@pytest.mark.parametrize(
    ("size", "wanted"), [("1024K", 1 << 20), ("2M", 2 << 20), ("many", search._CORE_BYTES), (None, search._CORE_BYTES)]
)
def test_chunks_are_as_large_as_the_caches_of_the_threads(tmp_path, monkeypatch, size, wanted):
    for number, (level, told) in enumerate([("1", "48K"), ("2", size), ("3", "32768K")]):
        index = tmp_path / f"index{number}"
        index.mkdir()
        (index / "level").write_text(f"{level}\n")
        if told:
            (index / "size").write_text(f"{told}\n")
    assert search.core_bytes(tmp_path) == wanted
    monkeypatch.setattr(search, "core_bytes", lambda: wanted)
    assert search.chunk_rows(torch.zeros(1024, 8)) == wanted * torch.get_num_threads() // 4096


@pytest.mark.parametrize("rows", [16, 50, 4096])
def test_codes_do_not_depend_on_the_chunks(monkeypatch, rows):
    generator = torch.Generator().manual_seed(0)
    x, codes = torch.randn(1000, 16, generator=generator), torch.randn(4096, 16, generator=generator)
    want = nearest(x, codes)
    monkeypatch.setattr(search, "_cpu_bytes", lambda: rows * 4 * 4096)
    assert torch.equal(nearest(x, codes), want)
