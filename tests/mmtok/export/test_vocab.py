"""Any text tokenizer of transformers and bundles become one vocabulary that AutoTokenizer loads."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmtok
from mmtok.cli import main
from mmtok.codes import Codes
from mmtok.export.embed_init import Rows, _geometry, install
from mmtok.export.token_spec import TokenSpec
from mmtok.export.vocab import PROBES, check, load_base, merge
from mmtok.export.vocab_map import Vocabulary
from tests.mmtok.export import tiny

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

IMAGE = TokenSpec("image", (256,), "img", length="grid", header=True, rows=True)
AUDIO = TokenSpec("audio", (16, 16), "aud")
TEXT = [*PROBES, "a cat sits on 0 1 2 3 4 5 6 7 8 9 * mats; (naïve) café! 日本語"] * 4
KINDS = ["gpt2", "llama", "unigram", "wordpiece", "bare"]
CONFIGS = {
    "gpt2": {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>", "pad_token": "[PAD]"},
    "llama": {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
              "add_bos_token": True, "legacy": False},
    "unigram": {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
                "extra_ids": 3},
    "wordpiece": {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
}  # fmt: skip


def write_base(kind, folder):
    """A tiny tokenizer with the files that its class has in the field."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    folder.mkdir(exist_ok=True)
    config = CONFIGS.get(kind)
    if kind in ("gpt2", "bare"):
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"])
    elif kind == "llama":
        made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        fallback = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", *fallback])
    elif kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<pad>", "</s>", "<unk>"])
    else:
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=200, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
        )
    made.train_from_iterator(TEXT, trainer)
    if kind == "wordpiece":
        ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    if kind == "llama":
        made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))])
    made.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def write_bundle(spec, folder, dim=6):
    folder.mkdir(exist_ok=True)
    (folder / "token_spec.json").write_text(spec.to_json())
    generator = torch.Generator().manual_seed(0)
    tables = {f"level_{i}": torch.randn(n, dim, generator=generator) for i, n in enumerate(spec.codebook_sizes)}
    save_file(tables, folder / "codebook.safetensors")
    return folder


def write_model(folder, rows, tied=True, hidden=32):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=rows, hidden_size=hidden, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=tied,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.05)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return [write_bundle(IMAGE, folder / "image"), write_bundle(AUDIO, folder / "audio")]


@pytest.fixture(params=KINDS, scope="module")
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def base(kind, tmp_path_factory):
    return write_base(kind, tmp_path_factory.mktemp(kind) / "base")


@pytest.fixture(scope="module")
def merged(base, bundles, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged")
    return merge(base, bundles, out, hidden=16), out


def test_the_text_keeps_its_ids(base, merged):
    vocabulary, out = merged
    before, after = (transformers.AutoTokenizer.from_pretrained(str(folder)) for folder in (base, out))
    assert vocabulary.text == max(before.get_vocab().values()) + 1
    for text in [*TEXT, "never seen: Zürich 2*3"]:
        assert after(text).input_ids == before(text).input_ids
        assert after.decode(after(text).input_ids) == before.decode(before(text).input_ids)
    assert after.special_tokens_map == before.special_tokens_map


def test_names_are_single_tokens_at_their_ids(merged):
    vocabulary, out = merged
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(out))
    assert len(tokenizer) == vocabulary.used
    names = dict(vocabulary.names())
    assert tokenizer.convert_ids_to_tokens(list(names)) == list(names.values())
    image = vocabulary.places[0]
    text = "<|img_start|><|img:00000|><|img:00255|><|img_row|><|img:00010|><|img_end|>"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    codes = [image.blocks[0] + code for code in (0, 255)]
    assert ids == [image.start, *codes, image.row, image.blocks[0] + 10, image.end]
    spoilt = tokenizer("<|img:1|>", add_special_tokens=False).input_ids  # downstream.md 3.2, Emu3#73: zeros are missing
    assert not set(spoilt) & set(range(image.blocks[0], vocabulary.used))


def test_names_survive_decoding(merged):  # downstream.md 3.2: an added `Bác` is decoded to `B\ufffdc`
    vocabulary, out = merged
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(out))
    for number, name in list(vocabulary.names())[::17]:
        assert tokenizer.decode([number]) == name
        assert tokenizer.decode([number], skip_special_tokens=True) == ""


def test_check_finds_it_sound(merged):
    vocabulary, out = merged
    assert check(out) == vocabulary
    assert vocabulary.size % 128 == 0
    assert load_file(out / "embed_init.safetensors")["embedding"].shape == (vocabulary.size - vocabulary.text, 16)


def test_headers_use_the_digits_of_the_text_where_it_has_them(merged):
    vocabulary, out = merged
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(out))
    codes = Codes(torch.arange(30).view(1, 1, 30), torch.tensor([30]), torch.tensor([[3, 10]]), (3, 10))
    ids = vocabulary.to_ids(codes, IMAGE)[0]
    signs = [tokenizer.decode([number]).strip() for number in ids[1:5].tolist()]
    own = vocabulary.places[0].digits[0] < vocabulary.text
    assert signs == (["3", "*", "1", "0"] if own else ["<|grid_3|>", "<|grid_by|>", "<|grid_1|>", "<|grid_0|>"])
    assert vocabulary.from_ids([ids], IMAGE).grid == (3, 10)


def test_some_bases_have_digits_and_others_do_not(tmp_path, bundles):
    from tokenizers import Tokenizer, models

    has = merge(write_base("gpt2", tmp_path / "gpt2"), bundles, tmp_path / "one")
    assert has.places[0].digits[0] < has.text
    (tmp_path / "words").mkdir()
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "1": 2}, unk_token="[UNK]"))
    words.save(str(tmp_path / "words" / "tokenizer.json"))
    has_not = merge(tmp_path / "words", bundles, tmp_path / "two")
    assert has_not.places[0].digits == tuple(range(3 + 8, 3 + 8 + 11))


def test_specials_that_no_file_of_the_base_has_are_counted(tmp_path, bundles):
    """GPT2Tokenizer adds its pad_token when it loads: downstream.md 3.2, factorizer#2, hidden specials."""
    base = write_base("gpt2", tmp_path / "base")
    in_file = tokenizers.Tokenizer.from_file(str(base / "tokenizer.json")).get_vocab_size()
    vocabulary = merge(base, bundles, tmp_path / "out")
    assert vocabulary.text == in_file + 1
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert tokenizer.pad_token_id == in_file


def test_above_the_limit_codes_have_ids_and_no_names(tmp_path):  # downstream.md 3.2, tokenizers#1635: they load slowly
    base = write_base("bare", tmp_path / "base")
    spec = replace(AUDIO, codebook_sizes=(100_001,))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "token_spec.json").write_text(spec.to_json())
    vocabulary = merge(base, [tmp_path / "bundle"], tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert len(tokenizer) == vocabulary.text + 4
    assert vocabulary.used == vocabulary.text + 4 + 100_001
    check(tmp_path / "out")


def test_a_base_with_gaps_or_names_of_its_own_is_refused(tmp_path, bundles):
    base = write_base("bare", tmp_path / "base")
    content = json.loads((base / "tokenizer.json").read_text())
    first = next(iter(content["model"]["vocab"]))

    def rewrite(change):
        spoilt = json.loads(json.dumps(content))
        change(spoilt["model"]["vocab"])
        (base / "tokenizer.json").write_text(json.dumps(spoilt))

    rewrite(lambda vocab: vocab.update({"zz": 310}))
    with pytest.raises(ValueError, match="no token has the id 300, and 310 is the last: a gap"):
        merge(base, bundles, tmp_path / "out")
    rewrite(lambda vocab: vocab.update({"zz": vocab[first]}))
    with pytest.raises(ValueError, match="have one id 0: an overlap"):
        merge(base, bundles, tmp_path / "out")
    # One string with two ids: downstream.md 3.2, llama-models#219.
    rewrite(lambda vocab: vocab.update({"<|img_start|>": 300}))
    with pytest.raises(ValueError, match=r"the base has a token <.img_start.> already, with id 300"):
        merge(base, bundles, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_without_a_fast_class_is_refused(tmp_path, bundles):
    transformers.ByT5Tokenizer().save_pretrained(str(tmp_path / "bytes"))
    with pytest.raises(ValueError, match="is a ByT5Tokenizer, which has no fast class"):
        merge(tmp_path / "bytes", bundles, tmp_path / "out")
    with pytest.raises(ValueError, match="there is no folder"):
        merge(tmp_path / "nothing", bundles, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no text tokenizer that transformers loads"):
        merge(tmp_path / "empty", bundles, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: names[-1].update(content="<|aud:99999|>"), "gives <.aud:00031.> the id None, and vocab_map"),
        (lambda names: names.append(names[-1] | {"content": "new", "id": names[-1]["id"] + 1}), "has 1 tokens that"),
    ],
)
def test_check_finds_a_tokenizer_that_was_changed(tmp_path, bundles, change, message):
    merge(write_base("bare", tmp_path / "base"), bundles, tmp_path / "out")
    path = tmp_path / "out" / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content["added_tokens"])
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        check(tmp_path / "out")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("how", ["mean", "codebook"])
def test_a_model_is_widened_and_checked(tmp_path, bundles, how, tied):
    base = write_base("gpt2", tmp_path / "base")
    text = len(load_base(base))
    model = write_model(tmp_path / "model", text + 9, tied)  # models often have a few rows more than ids
    vocabulary = merge(base, bundles, tmp_path / "out", model=tmp_path / "model", how=how)
    with pytest.raises(ValueError, match=rf"has {text + 9} rows, and the vocabulary {vocabulary.size}. Widen it"):
        check(tmp_path / "out", tmp_path / "model")
    trained = model.get_input_embeddings().weight[:text].detach().clone()
    install(model, tmp_path / "out")
    model.save_pretrained(tmp_path / "wide")
    check(tmp_path / "out", tmp_path / "wide")
    rows = model.get_input_embeddings().weight.detach()
    torch.testing.assert_close(rows[:text], trained)
    norm = trained.square().sum(1).mean().sqrt()
    for place, spec in zip(vocabulary.places, vocabulary.specs, strict=True):
        block = rows[place.blocks[0] : place.blocks[0] + sum(spec.codebook_sizes)]
        torch.testing.assert_close(block.mean(0), trained.mean(0), atol=1e-4, rtol=0)
        wanted = norm if how == "codebook" else trained.mean(0).norm()
        torch.testing.assert_close(block.square().sum(1).mean().sqrt(), wanted, atol=1e-3, rtol=0)
    head = model.get_output_embeddings().weight.detach()
    assert (head.data_ptr() == rows.data_ptr()) == tied
    if not tied:
        wanted = head[:text].mean(0)
        torch.testing.assert_close(head[text:].mean(0), wanted, atol=1e-4, rtol=0)


def test_the_table_is_never_narrower_than_the_models(tmp_path, bundles):
    base = write_base("gpt2", tmp_path / "base")
    write_model(tmp_path / "model", 1000)
    assert merge(base, bundles, tmp_path / "out", model=tmp_path / "model").size == 1024
    write_model(tmp_path / "small", 200)
    with pytest.raises(ValueError, match=r"small has 200 rows, and .*base 301 ids: it is no tokenizer of this model"):
        merge(base, bundles, tmp_path / "out", model=tmp_path / "small")


@pytest.mark.parametrize(("dim", "hidden"), [(6, 32), (32, 32)])
def test_geometry_keeps_the_distances_of_standardised_codes(dim, hidden):
    generator = torch.Generator().manual_seed(1)
    codes = torch.randn(50, dim, generator=generator) * torch.arange(1, dim + 1) + 3
    rows = _geometry(codes, Rows.fresh(hidden), generator)
    standard = (codes - codes.mean(0)) / codes.std(0, correction=0)
    ratio = torch.pdist(rows) / torch.pdist(standard)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))


def test_codes_of_one_value_have_a_row(tmp_path):
    rows = _geometry(torch.ones(4, 3), Rows.fresh(8), torch.Generator().manual_seed(0))
    assert rows.isfinite().all()


def test_the_verb(tmp_path, bundles, capsys):
    base = write_base("gpt2", tmp_path / "base")
    out = tmp_path / "out"
    words = ["vocab", "merge", "--base", str(base), *map(str, bundles), "-o", str(out)]
    assert main([*words, "--hidden", "8", "--init", "codebook"]) == 0
    said = capsys.readouterr().out
    assert "309 ..       564  img level 0, <|img:00000|> .." in said  # after 301 ids of text and 8 specials
    assert "597 ids in 640 rows" in said
    assert main(["vocab", "check", str(out)]) == 0
    assert "is sound" in capsys.readouterr().out
    assert main(words) == 2
    assert "exists already. Give --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert not (out / "embed_init.safetensors").exists()  # of the width before
    assert Vocabulary.read(out).size == 640
    (bundles[0] / "codebook.safetensors").rename(bundles[0] / "away")
    assert main([*words, "--overwrite", "--hidden", "8", "--init", "codebook"]) == 2
    assert "has no codebook.safetensors with level_0 of 256 codes. Give --init mean" in capsys.readouterr().err
    (bundles[0] / "away").rename(bundles[0] / "codebook.safetensors")


def test_only_a_vocabulary_is_replaced(tmp_path, bundles, capsys):
    base, out = write_base("bare", tmp_path / "base"), tmp_path / "out"
    words = ["vocab", "merge", "--base", str(base), *map(str, bundles), "-o", str(out), "--overwrite"]
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    assert main(words) == 2
    assert f"{out} exists and is no vocabulary. Give another folder" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    (out / "thesis.tex").unlink()
    assert main(words) == 0  # an empty folder is nobody's
    for name in ("model.safetensors", "config.json"):
        (out / name).write_text("trained for days")  # as save_pretrained leaves a model beside its tokenizer
        assert main(words) == 2
        assert f"{out} holds {name} beside its vocabulary, which would be lost" in capsys.readouterr().err
        (out / name).unlink()
    assert main(words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]


def test_what_would_do_nothing_or_is_no_tokenizer_is_refused(tmp_path, bundles, capsys):
    base = write_base("bare", tmp_path / "base")
    words = ["vocab", "merge", str(bundles[0]), "-o", str(tmp_path / "out")]
    assert main([*words, "--base", str(base), "--init", "mean"]) == 2
    assert "--init=mean is of rows whose width nothing tells. Give --model DIR or --hidden N" in capsys.readouterr().err
    assert main([*words, "--base", str(bundles[0])]) == 2
    said = capsys.readouterr().err
    assert "loads: it has no tokenizer.json. Give the folder of one, which AutoTokenizer loads: hf download" in said
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "tokenizer.json").write_text("{")
    assert main([*words, "--base", str(tmp_path / "torn")]) == 2
    assert "loads: its tokenizer.json cannot be read (Expecting property name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_tokenizers_of_pictures_share_a_vocabulary_by_their_roles(tmp_path, capsys):  # Janus
    read = tiny.image_tokenizer(tmp_path / "read", seed=1)
    written = tiny.image_tokenizer(tmp_path / "written", seed=2)
    assert main(["export", read, str(tmp_path / "in"), "--role", "understanding", "--rows"]) == 0
    assert main(["export", written, str(tmp_path / "made"), "--role", "generation", "--rows"]) == 0
    out, base = tmp_path / "vocab", write_base("gpt2", tmp_path / "base")
    words = ["vocab", "merge", "--base", str(base), str(tmp_path / "in"), str(tmp_path / "made"), "-o", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "img_in level 0, <|img_in:00000|> .." in said
    assert "img level 0, <|img:00000|> .." in said
    vocabulary = Vocabulary.read(out)
    assert [spec.role for spec in vocabulary.specs] == ["understanding", "generation"]
    codes = mmtok.load(tmp_path / "in").encode(torch.zeros(1, 3, 16, 16))
    prompt = vocabulary.to_ids(codes, vocabulary.spec("img_in"))[0]
    start = vocabulary.find(vocabulary.spec("img")).start
    assert vocabulary.grammar().ranges(prompt) == [(0, vocabulary.text), (start, start + 1)]
    # Exported once more for the other role it has the other's usual name, and one that was chosen it keeps.
    assert main(["export", str(tmp_path / "in"), str(tmp_path / "again"), "--role", "generation"]) == 0
    assert TokenSpec.read(tmp_path / "again").prefix == "img"
    assert main(["export", read, str(tmp_path / "own"), "--prefix", "eye"]) == 0
    assert main(["export", str(tmp_path / "own"), str(tmp_path / "seen"), "--role", "understanding"]) == 0
    assert TokenSpec.read(tmp_path / "seen").prefix == "eye"
