"""Codes -> ids -> codes, for every layout; and ids that no codes give."""

from dataclasses import replace

import pytest
import torch

from mmtok.codes import Codes
from mmtok.export.layout import Place, from_ids, to_ids
from mmtok.export.token_spec import Layout, TokenSpec

SIZES = (11, 7, 5)
PLACE = Place(start=100, end=101, row=102, pad=103, blocks=(200, 211, 218), digits=(*range(48, 58), 42))
FLAT = [Layout("flat", order) for order in ("position_major", "level_major")]
OWN = [Layout("own_head", order) for order in ("position_major", "level_major")]
PARALLEL = [Layout("parallel"), Layout("parallel", delays=(0, 0, 0)), Layout("parallel", delays=(3, 0, 5))]


def audio(layout, sizes=SIZES):
    return TokenSpec("audio", sizes, "aud", layout=layout, downsample=20)


def image(layout, sizes=SIZES, **marks):
    return TokenSpec("image", sizes, "img", layout=layout, length="grid", downsample=8, **marks)


def draw(generator, sizes, shape, highest):
    columns = [torch.randint(0, size, shape, generator=generator) for size in sizes]
    ids = torch.stack(columns, 1)
    for item in ids:
        kept = int(torch.randint(1, highest + 1, (), generator=generator))
        item[kept:] = -1
    return ids


def draw_audio(seed, sizes):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 9, (3,), generator=generator)
    ids = draw(generator, sizes, (3, int(lengths.max())), len(sizes))
    ids.masked_fill_(torch.arange(ids.shape[-1]) >= lengths[:, None, None], -1)
    return Codes(ids, lengths, lengths[:, None] * 20)


def draw_image(seed, sizes):
    generator = torch.Generator().manual_seed(seed)
    grid = tuple(torch.randint(1, 13, (2,), generator=generator).tolist())
    lengths = torch.full((2,), grid[0] * grid[1])
    return Codes(
        draw(generator, sizes, (2, grid[0] * grid[1]), len(sizes)), lengths, torch.tensor([grid] * 2) * 8, grid
    )


def assert_same(found, codes):
    assert torch.equal(found.ids, codes.ids)
    assert torch.equal(found.lengths, codes.lengths)
    assert torch.equal(found.source_size, codes.source_size)
    assert found.grid == codes.grid


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sizes", [SIZES, (9,)])
@pytest.mark.parametrize("layout", [*FLAT, *OWN, *PARALLEL])
def test_sounds_of_any_length_and_levels_come_back(layout, sizes, seed):
    if layout.delays and len(sizes) == 1:
        layout = Layout("parallel", delays=(2,))
    codes, spec = draw_audio(seed, sizes), audio(layout, sizes)
    assert_same(from_ids(to_ids(codes, spec, PLACE), spec, PLACE), codes)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sizes", [SIZES, (9,)])
@pytest.mark.parametrize("marks", [{"rows": True}, {"header": True}, {"rows": True, "header": True}])
@pytest.mark.parametrize("layout", FLAT)
def test_pictures_of_any_grid_come_back_from_ids_alone(layout, marks, sizes, seed):
    codes, spec = draw_image(seed, sizes), image(layout, sizes, **marks)
    assert_same(from_ids(to_ids(codes, spec, PLACE), spec, PLACE), codes)


@pytest.mark.parametrize("sizes", [SIZES, (9,)])
@pytest.mark.parametrize("layout", [*FLAT, *OWN, PARALLEL[0]])
def test_rows_of_tokens_come_back_at_the_size_of_training(layout, sizes):
    spec = replace(image(layout, sizes), length="nested", positions=8, source_size=(24, 16))
    codes = draw_audio(3, sizes)
    codes = replace(codes, lengths=codes.lengths.clamp(1), source_size=torch.tensor([[24, 16]] * 3))
    codes = replace(codes, ids=draw(torch.Generator().manual_seed(0), sizes, (3, int(codes.lengths.max())), len(sizes)))
    codes.ids.masked_fill_(torch.arange(codes.ids.shape[-1]) >= codes.lengths[:, None, None], -1)
    assert_same(from_ids(to_ids(codes, spec, PLACE), spec, PLACE), codes)
    fixed = replace(spec, length="fixed")
    with pytest.raises(ValueError, match="positions, not 8"):
        to_ids(codes, fixed, PLACE)
    with pytest.raises(ValueError, match="positions, not 1 to 2"):
        to_ids(codes, replace(spec, positions=2), PLACE)


@pytest.mark.parametrize("layout", [*FLAT, *OWN, *PARALLEL])
def test_pictures_without_marks_need_their_grid(layout):
    codes, spec = draw_image(1, SIZES), image(layout)
    ids = to_ids(codes, spec, PLACE)
    assert_same(from_ids(ids, spec, PLACE, grid=codes.grid), codes)
    with pytest.raises(ValueError, match=r"item 0 of img: its ids do not tell the grid. Give grid=\(H, W\)"):
        from_ids(ids, spec, PLACE)


def test_a_parallel_item_may_miss_any_code():
    codes, spec = draw_audio(3, SIZES), audio(PARALLEL[2])
    codes.ids[torch.rand(codes.ids.shape, generator=torch.Generator().manual_seed(0)) < 0.3] = -1
    assert_same(from_ids(to_ids(codes, spec, PLACE), spec, PLACE), codes)


def test_the_ids_of_each_layout_are_as_its_systems_have_them():
    ids = torch.tensor([[[1, 2, 3, 4]], [[5, 6, 0, 1]]]).view(1, 2, 4)
    codes = Codes(ids, torch.tensor([4]), torch.tensor([[16, 16]]), (2, 2))
    sizes = SIZES[:2]

    def laid(spec):
        return to_ids(codes, spec, PLACE)[0].tolist()

    by_position = laid(image(FLAT[0], sizes, rows=True, header=True))
    assert by_position == [100, 50, 42, 50, 201, 216, 202, 217, 102, 203, 211, 204, 212, 101]
    by_level = laid(image(FLAT[1], sizes, rows=True))
    assert by_level == [100, 201, 202, 102, 203, 204, 216, 217, 102, 211, 212, 101]
    assert laid(image(OWN[0], sizes)) == [1, 16, 2, 17, 3, 11, 4, 12]
    assert laid(image(Layout("parallel"), sizes)) == [
        [100, 201, 202, 203, 204, 103, 101],
        [100, 103, 216, 217, 211, 212, 101],
    ]


def test_fewer_levels_and_an_empty_batch():
    spec, codes = audio(FLAT[0]), draw_audio(2, SIZES[:1])
    found = from_ids(to_ids(codes, spec, PLACE), spec, PLACE)
    assert torch.equal(found.ids[:, :1], codes.ids)
    assert (found.ids[:, 1:] == -1).all()
    assert from_ids([], spec, PLACE).ids.shape == (0, 3, 0)


@pytest.mark.parametrize("layout", [*FLAT, *PARALLEL])
def test_any_id_changed_gives_other_codes_or_is_refused(layout):
    spec, codes = audio(layout), draw_audio(5, SIZES)
    ids = to_ids(codes, spec, PLACE)[0]
    for place in range(ids.numel()):
        for value in (0, *range(100, 104), *range(199, 224)):
            changed = ids.clone()
            changed.view(-1)[place] = value
            try:
                found = from_ids([changed], spec, PLACE)
            except ValueError:
                continue
            assert torch.equal(to_ids(found, spec, PLACE)[0], changed)


def test_codes_without_the_offset_are_refused():  # downstream.md 3.2, LLaSA_training#20
    with pytest.raises(ValueError, match="item 0 of aud: id 3 is no code; codes have the ids 200 to 222"):
        from_ids([[100, 3, 4, 101]], audio(FLAT[0]), PLACE)


def test_ids_of_a_head_wider_than_the_codebook_are_refused():  # downstream.md 3.2, csm#157
    spec = audio(OWN[0], (2048,))
    with pytest.raises(ValueError, match="id 2050 is no code; codes have the ids 0 to 2047"):
        from_ids([[4, 2050]], spec, PLACE)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([100, 201, 101], "must begin with its height . width in digits, and begins with ''"),
        ([100, 49, 42, 50, 201, 202, 203, 101], "3 positions are no grid of 1 x 2"),
        ([100, 50, 42, 49, 201, 202, 101], "id 202 stands at place 5, where the layout wants id 102"),
        ([100, 49, 42, 50, 201, 202], "must begin with <.img_start.> and end with <.img_end.>"),
        ([100, 48, 49, 42, 50, 201, 202, 101], "id 48 stands at place 1"),
    ],
)
def test_a_picture_that_is_none(ids, message):
    with pytest.raises(ValueError, match=message):
        from_ids([ids], image(FLAT[0], (9,), rows=True, header=True), PLACE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": ((1, 1), (1, 2))}, "several scales have no layout"),
        ({"ids": torch.tensor([[[0, 11]]])}, "code 11 at level 0, position 1; the level has 11"),
        ({"ids": torch.zeros(1, 4, 2, dtype=torch.int64)}, "aud has 3 levels, and the codes have 4"),
        ({"ids": torch.tensor([[[0, -1]]])}, "item 0 of aud: codes are missing here and there"),
        ({"ids": torch.tensor([[[-1, -1], [1, 1]]])}, "can drop only the last levels"),
    ],
)
def test_codes_that_no_ids_can_tell(change, message):
    codes = Codes(torch.zeros(1, 1, 2, dtype=torch.int64), torch.tensor([2]), torch.tensor([[40]]))
    with pytest.raises(ValueError, match=message):
        to_ids(replace(codes, **change), audio(FLAT[0]), PLACE)


def test_pictures_of_several_grids_are_given_apart():
    spec = image(FLAT[0], (9,), rows=True)
    with pytest.raises(ValueError, match=r"items have grids .* Give them apart"):
        from_ids([[100, 201, 202, 101], [100, 201, 102, 202, 101]], spec, PLACE)
