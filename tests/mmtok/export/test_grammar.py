"""Whatever is drawn under the grammar can be decoded, and whatever codes give is allowed."""

import time
from dataclasses import replace

import pytest
import torch

from mmtok.codes import Codes
from mmtok.export.token_spec import Layout, TokenSpec
from mmtok.export.vocab_map import Vocabulary

TEXT = 60
SIZES = (11, 7, 5)
ORDERS = ("position_major", "level_major")
AUDIO = TokenSpec("audio", SIZES, "aud")
IMAGE = TokenSpec("image", (9,), "img", length="grid", header=True, rows=True)
ROW = TokenSpec("image", (9,), "row", length="nested", positions=36, source_size=(8, 8))
LENGTHS = ("nested", "fixed")
MARKS = [{"rows": True}, {"header": True}, {"rows": True, "header": True}]


def specs_of(order, sizes):
    layout = Layout("flat", order)
    images = [
        replace(IMAGE, codebook_sizes=sizes, layout=layout, **({"header": False, "rows": False} | m)) for m in MARKS
    ]
    row = replace(ROW, codebook_sizes=sizes, layout=layout)
    return [replace(AUDIO, codebook_sizes=sizes, layout=layout), *images, row]


def flat_specs():
    return [spec for order in ORDERS for sizes in (SIZES, (9,)) for spec in specs_of(order, sizes)]


def name(spec):
    marks = [mark for mark in ("header", "rows") if getattr(spec, mark)]
    return "-".join([spec.prefix, spec.length, spec.layout.order, str(len(spec.codebook_sizes)), *marks])


def walk(grammar, vocabulary, spec, generator, longest=150):
    """Draws ids from an item's start to its end. Mostly of the last kind allowed, so that headers stay short."""
    place = vocabulary.find(spec)
    ids = [3, place.start]
    while ids[-1] != place.end:
        ranges = grammar.ranges(torch.tensor(ids))
        last = float(torch.rand((), generator=generator)) < 0.6
        start, stop = ranges[-1 if last else int(torch.randint(len(ranges), (), generator=generator))]
        ids.append(int(torch.randint(start, stop, (), generator=generator)))
        if len(ids) > longest:  # a header may ask for 9,999 * 9,999
            return None
    return torch.tensor(ids)


@pytest.mark.parametrize("spec", flat_specs(), ids=name)
def test_what_is_drawn_can_be_read_back(spec):
    vocabulary = Vocabulary.arrange(TEXT, [spec, TokenSpec("text", (4,), "txt")])
    grammar = vocabulary.grammar(spec)
    drawn = [walk(grammar, vocabulary, spec, torch.Generator().manual_seed(seed)) for seed in range(40)]
    finished = [ids for ids in drawn if ids is not None]
    assert len(finished) >= 2
    for ids in finished:
        (text, before), (prefix, item) = vocabulary.split(ids)
        assert (text, before.tolist(), prefix) == ("text", [3], spec.prefix)
        assert vocabulary.from_ids([item], spec).lengths[0] >= 1


@pytest.mark.parametrize("spec", flat_specs(), ids=name)
def test_what_codes_give_is_allowed_at_each_step(spec):
    vocabulary = Vocabulary.arrange(TEXT, [spec])
    grammar = vocabulary.grammar(spec)
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        height, width, kept = (
            int(torch.randint(1, n, (), generator=generator)) for n in (4, 13, len(spec.codebook_sizes) + 1)
        )
        grid = (height, width) if spec.length == "grid" else None
        ids = torch.stack([torch.randint(n, (height * width,), generator=generator) for n in spec.codebook_sizes])
        ids[kept:] = -1
        source = torch.tensor([grid or [height * width]])
        codes = Codes(ids[None], torch.tensor([height * width]), source, grid)
        item = vocabulary.to_ids(codes, spec)[0]
        limits = {"grid": grid} if grid else {"positions": height * width}
        strict = vocabulary.grammar(spec, levels=kept, **limits)
        for at in range(1, len(item)):
            assert int(item[at]) in grammar.allowed(0, item[:at])
            assert int(item[at]) in strict.allowed(0, item[:at])


@pytest.mark.parametrize("spec", flat_specs(), ids=name)
def test_limits_decide_the_shape(spec):
    vocabulary = Vocabulary.arrange(TEXT, [spec])
    limits = {"grid": (2, 5)} if spec.length == "grid" else {"positions": 10}
    for kept in range(1, len(spec.codebook_sizes) + 1):
        grammar = vocabulary.grammar(spec, levels=kept, **limits)
        ids = walk(grammar, vocabulary, spec, torch.Generator().manual_seed(kept))
        codes = vocabulary.from_ids([ids[1:]], spec)
        assert codes.ids.shape[-1] == 10
        assert (codes.ids[0] >= 0).sum() == 10 * kept
        assert codes.grid == limits.get("grid")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sizes", [SIZES, (9,)])
def test_a_row_of_tokens_ends_where_it_must(order, sizes):
    layout = Layout("flat", order)
    for spec in (replace(ROW, codebook_sizes=sizes, layout=layout, positions=3, length=kind) for kind in LENGTHS):
        vocabulary = Vocabulary.arrange(TEXT, [spec])
        drawn = [walk(vocabulary.grammar(), vocabulary, spec, torch.Generator().manual_seed(i)) for i in range(200)]
        lengths = {int(vocabulary.from_ids([ids[1:]], spec).lengths) for ids in drawn}
        assert lengths == ({3} if spec.length == "fixed" else {1, 2, 3})
        with pytest.raises(ValueError, match="positions=4: row has 3 at most"):
            vocabulary.grammar(spec, positions=4)


def test_outside_items_there_is_text_and_what_may_begin():
    vocabulary = Vocabulary.arrange(TEXT, [IMAGE, AUDIO])
    image, audio = vocabulary.places
    text = list(range(TEXT))
    assert vocabulary.grammar().allowed(0, torch.tensor([5])).tolist() == [*text, image.start, audio.start]
    only = vocabulary.grammar(AUDIO)
    assert only.allowed(0, torch.tensor([5])).tolist() == [*text, audio.start]
    # A whole picture in the prompt leaves text; an open one is finished, though only sounds may begin.
    whole = [image.start, *(image.digits[i] for i in (1, 10, 1)), image.blocks[0], image.end]
    assert only.allowed(0, torch.tensor(whole)).tolist() == [*text, audio.start]
    assert only.allowed(0, torch.tensor(whole[:-1])).tolist() == [image.end]


def test_it_is_a_logits_processor_and_gives_what_the_function_gives():
    vocabulary = Vocabulary.arrange(TEXT, [IMAGE, AUDIO])
    place = vocabulary.find(AUDIO)
    ids = torch.tensor([[4, place.start], [place.start, place.blocks[0]]])
    scores = torch.randn(2, vocabulary.size, generator=torch.Generator().manual_seed(0))
    given = vocabulary.logits_processor()(ids, scores)
    allowed = vocabulary.prefix_allowed_tokens_fn()
    for row in range(2):
        kept = given[row].isfinite().nonzero().flatten()
        assert torch.equal(kept, allowed(row, ids[row]).sort().values)
        assert torch.equal(given[row, kept], scores[row, kept])


def test_a_head_narrower_than_the_vocabulary_is_refused():  # downstream.md 3.2, csm#157
    vocabulary = Vocabulary.arrange(TEXT, [AUDIO])
    ids = torch.tensor([[vocabulary.find(AUDIO).start]])
    with pytest.raises(ValueError, match=r"the head has 66 rows, and id 74 is allowed. Widen the model"):
        vocabulary.logits_processor()(ids, torch.zeros(1, 66))


@pytest.mark.parametrize("kept", [None, 2])
def test_rows_of_parallel_levels_are_forced_to_one_length(kept):
    spec = replace(AUDIO, layout=Layout("parallel", delays=(1, 0, 2)))
    vocabulary = Vocabulary.arrange(TEXT, [spec])
    grammar = vocabulary.grammar(spec, positions=6, levels=kept)
    ids = torch.zeros(3, 0, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6 + 2 + 2):
        scores = grammar(ids, torch.randn(3, vocabulary.size, generator=generator))
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], 1)
    codes = vocabulary.from_ids([ids], spec)
    assert codes.lengths.tolist() == [6]
    assert (codes.ids >= 0).all(-1).tolist() == [[True, True, kept is None]]


@pytest.mark.parametrize("order", ORDERS)
def test_an_own_head_draws_levels_in_their_order(order):
    spec = replace(AUDIO, layout=Layout("own_head", order))
    vocabulary = Vocabulary.arrange(TEXT, [spec])
    grammar = vocabulary.grammar(spec, positions=4)
    ids = torch.zeros(0, dtype=torch.int64)
    for _ in range(12):
        ids = torch.cat([ids, grammar.allowed(0, ids)[-1:]])
    codes = vocabulary.from_ids([ids], spec)
    assert codes.ids.tolist() == [[[10] * 4, [6] * 4, [4] * 4]]


@pytest.mark.parametrize(
    ("spec", "limits", "message"),
    [
        (replace(IMAGE, header=False, rows=False), {}, r"the ids of img do not tell the grid. Give grid=\(H, W\)"),
        (replace(AUDIO, layout=Layout("parallel")), {}, "the rows of aud must end together. Give positions=T"),
        (AUDIO, {"levels": 4}, "levels=4, and aud has 1 to 3"),
    ],
)
def test_arguments_that_do_not_say_enough(spec, limits, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.arrange(TEXT, [spec]).grammar(spec, **limits)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("5", "has begun with the header ''; right is 2[*]3"),
        ("1*", "has begun with the header '1.'; right is 2[*]3"),
        ("2*3t", "id 1 stands in img, which has begun and not ended"),
    ],
)
def test_a_prompt_that_is_no_beginning(body, message):
    vocabulary = Vocabulary.arrange(TEXT, [IMAGE], digits=range(20, 31))
    place = vocabulary.find(IMAGE)
    ids = {"5": [5], "1*": [21, 30], "2*3t": [22, 30, 23, 1]}[body]
    with pytest.raises(ValueError, match=message):
        vocabulary.grammar(grid=(2, 3)).ranges(torch.tensor([place.start, *ids]))


def test_a_step_costs_no_loop_over_codes():
    """64k codes and a picture of 32 x 32 half written: milliseconds, where a loop over ids takes tens of them."""
    torch.set_num_threads(1)
    spec = replace(IMAGE, codebook_sizes=(65536,))
    vocabulary = Vocabulary.arrange(32000, [spec])
    codes = Codes(torch.zeros(1, 1, 1024, dtype=torch.int64), torch.tensor([1024]), torch.tensor([[32, 32]]), (32, 32))
    ids = vocabulary.to_ids(codes, spec)[0][None, :500]
    processor, scores = vocabulary.logits_processor(spec), torch.zeros(1, vocabulary.size)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        processor(ids, scores)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.005


def test_transformers_generates_under_it():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vocabulary = Vocabulary.arrange(TEXT, [IMAGE, AUDIO])
    config = transformers.LlamaConfig(
        vocab_size=vocabulary.size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config).eval()
    end = vocabulary.find(IMAGE).end
    prompt = torch.tensor([[7, vocabulary.find(IMAGE).start]] * 2)
    common = {"do_sample": True, "max_new_tokens": 60, "eos_token_id": end, "pad_token_id": 0}
    limits = {"grid": (3, 4)}
    for way in (
        {"prefix_allowed_tokens_fn": vocabulary.prefix_allowed_tokens_fn(IMAGE, **limits)},
        {"logits_processor": [vocabulary.logits_processor(IMAGE, **limits)]},
    ):
        for row in model.generate(prompt, **common, **way):
            item = vocabulary.split(row)[1][1]
            assert vocabulary.from_ids([item], IMAGE).grid == (3, 4)


@pytest.mark.parametrize(
    ("spec", "limits", "message"),
    [
        (IMAGE, {"grid": (0, 4)}, r"grid=\(0, 4\) must be \(H, W\), two whole numbers from 1 to 9999"),
        (IMAGE, {"grid": (4,)}, r"grid=\(4,\) must be \(H, W\)"),
        (IMAGE, {"grid": (4.0, 4)}, "must be .* two whole numbers"),
        (IMAGE, {"grid": 16}, "grid=16 must be"),
        (AUDIO, {"grid": (4, 4)}, r"grid=\(4, 4\) is for pictures, and aud \(audio\) has none. Leave it out"),
        (AUDIO, {"positions": 0}, "positions=0: It must be 1 or more"),
        (IMAGE, {"positions": 4}, r"positions=4: img is of grids: give grid=\(H, W\)"),
    ],
)
def test_limits_that_make_no_sense_are_refused(spec, limits, message):
    vocabulary = Vocabulary.arrange(TEXT, [IMAGE, AUDIO])
    with pytest.raises(ValueError, match=message):
        vocabulary.grammar(spec, **limits)
    assert vocabulary.grammar(grid=[2, 2], positions=4).grid == (2, 2)  # of both: each takes what is for it


def test_tokens_of_understanding_are_read_and_never_written():  # Janus: two tokenizers of pictures, one of them read
    seen = TokenSpec("image", (13, 5), "img_in", role="understanding", length="grid", rows=True)
    made = replace(IMAGE, role="generation")
    vocabulary = Vocabulary.arrange(TEXT, [seen, made])
    codes = Codes(torch.randint(5, (1, 2, 4)), torch.tensor([4]), torch.tensor([[2, 2]]), (2, 2))
    prompt = torch.cat([torch.tensor([3, 4]), vocabulary.to_ids(codes, seen)[0], torch.tensor([5])])
    grammar = vocabulary.grammar()
    place = vocabulary.find(made)
    assert grammar.ranges(prompt) == [(0, TEXT), (place.start, place.start + 1)]
    # Whatever may come next, from the prompt to the end of a picture, no id of the read ones is among it.
    own = {
        vocabulary.find(seen).start,
        vocabulary.find(seen).end,
        *range(vocabulary.find(seen).blocks[0], place.blocks[0]),
    }
    ids = [*prompt.tolist(), place.start]
    generator = torch.Generator().manual_seed(0)
    while ids[-1] != place.end:
        allowed = vocabulary.grammar(made, grid=(3, 3)).allowed(0, torch.tensor(ids))
        assert not own & set(allowed.tolist())
        ids.append(int(allowed[torch.randint(len(allowed), (), generator=generator)]))
    with pytest.raises(ValueError, match="img_in are read and not written"):
        vocabulary.grammar(seen, grid=(2, 2))
    with pytest.raises(ValueError, match="Give the whole item, up to"):
        grammar.ranges(prompt[:-3])


def test_beside_tokenizers_that_are_only_read_a_model_writes_text():
    seen = replace(AUDIO, role="understanding")
    vocabulary = Vocabulary.arrange(TEXT, [seen])
    assert vocabulary.grammar().ranges(torch.tensor([1, 2])) == [(0, TEXT)]
