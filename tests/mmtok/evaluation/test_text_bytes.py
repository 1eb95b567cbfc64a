"""What is measured of texts that come back in part, against counts by hand."""

from math import log2

import pytest
import torch

from mmtok.evaluation.byte_metrics import PIECE, ByteMetrics
from mmtok.evaluation.modalities import MODALITIES
from mmtok.evaluation.text_baselines import measure_compressors, sizes_beside, texts_of
from mmtok.evaluation.text_bytes import evaluate_text_bytes
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.vq_bytes import to_bytes


def logits_of(texts, length):
    """Logits that are sure of these bytes."""
    x, _ = to_bytes(texts)
    x = torch.nn.functional.pad(x, (0, length - x.shape[2]))
    return 50.0 * torch.nn.functional.one_hot(x[:, 0].long(), 256).transpose(1, 2).float()


def test_bytes_pieces_and_texts_are_counted_apart_and_padding_not_at_all():
    texts = ["a" * (2 * PIECE + 3), "b" * PIECE, ""]
    back = ["a" * PIECE + "x" + "a" * (PIECE + 2), "b" * PIECE, ""]
    x, lengths = to_bytes(texts)
    metrics = ByteMetrics("cpu")
    metrics.update(x, logits_of(back, x.shape[2]), lengths)
    found = metrics.result()
    assert found["byte_accuracy"] == pytest.approx(1 - 1 / (3 * PIECE + 3))
    assert found["exact_pieces"] == pytest.approx(3 / 4)  # three of the first text, of which one broke, and one
    assert found["exact"] == pytest.approx(2 / 3)
    assert found["nll_bits_per_byte"] == pytest.approx(50 * log2(2.718281828) / (3 * PIECE + 3), rel=1e-3)


def test_sums_of_two_batches_are_those_of_one():
    torch.manual_seed(0)
    x, lengths = to_bytes(["some text", "more of it", "x", ""])
    logits = torch.randn(4, 256, x.shape[2])
    whole, parts = ByteMetrics("cpu"), ByteMetrics("cpu")
    whole.update(x, logits, lengths)
    for part in (slice(0, 1), slice(1, 4)):
        parts.update(x[part], logits[part], lengths[part])
    assert parts.result() == pytest.approx(whole.result())


def test_nothing_measured_is_no_number():
    assert all(value != value for value in ByteMetrics("cpu").result().values())


def tokenizer(quantizer="rq", **fields):
    torch.manual_seed(0)
    encoder = {"name": "bytes1d", "channels": 8}
    return build_tokenizer({"name": "vq_bytes", "dim": 8, "encoder": encoder}, {"name": quantizer, **fields})


def batches(*groups):
    for texts in groups:
        x, lengths = to_bytes(texts)
        yield {"x": x, "lengths": lengths, "language": ["en"] * len(texts)}


def test_rates_are_of_the_codes_and_do_not_depend_on_batches():
    subject = tokenizer(codebook_size=16, depth=3)
    texts = ["four", "fives", "", "a text of several positions"]
    one = evaluate_text_bytes(subject, batches(texts))
    other = evaluate_text_bytes(subject, batches(texts[:1], texts[1:]))
    speed = {"encode_mb_per_second", "decode_mb_per_second"}
    assert {k: v for k, v in one.metrics.items() if k not in speed} == pytest.approx(
        {k: v for k, v in other.metrics.items() if k not in speed}
    )
    assert one.metrics["bits_per_byte"] == pytest.approx((1 + 2 + 7) * 3 * 4 / 36)
    assert one.metrics["unigram_bits_per_byte"] < one.metrics["bits_per_byte"]
    assert one.metrics["exact_bits_per_byte"] > one.metrics["unigram_bits_per_byte"]
    assert [row["levels"] for row in one.by_levels] == [1, 2, 3]
    assert [round(row["bits_per_byte"] * 36 / 40, 6) for row in one.by_levels] == [1, 2, 3]
    assert one.choices["round_trip_bytes_that_differ"] == 0
    assert one.choices["by_language"]["en"]["documents"] == one.samples == 4


def test_without_codes_there_are_no_rates():
    report = evaluate_text_bytes(tokenizer("none"), batches(["text"]))
    assert not {"bits_per_byte", "unigram_bits_per_byte"} & set(report.metrics)
    assert report.metrics["quantization_gap"] == 0


def test_validation_measures_what_evaluate_does():
    subject = tokenizer("vq", codebook_size=16).eval()
    texts = ["some text", "and more of it, longer"]
    x, lengths = to_bytes(texts)
    meter = MODALITIES["text"].meter(subject.spec, torch.device("cpu"))
    with torch.inference_mode():
        out = subject(x, lengths)
        meter.update(x, out.x, subject.bypass(out.latents, tuple(x.shape[2:])), lengths)
    report = evaluate_text_bytes(subject, batches(texts))
    used = report.usage[0]["entropy_norm"] * 4
    found = meter.result(used)
    assert found == pytest.approx({name: report.metrics[name] for name in found})


def test_nothing_to_evaluate_is_said():
    with pytest.raises(ValueError, match="gave no text"):
        evaluate_text_bytes(tokenizer(), [])


def test_compressors_are_exact_and_take_less_for_what_repeats():
    texts = texts_of(batches(["again and again, "] * 50))
    assert texts == ["again and again, "] * 50
    assert all(row["metrics"]["exact_bits_per_byte"] < 1 for row in measure_compressors(texts))


def test_vocabularies_beside_codes_have_as_many_tokens_within_reason():
    assert sizes_beside((4096,)) == [4096, 32768]
    assert sizes_beside((32, 32)) == [512, 32768]
    assert sizes_beside((1 << 20,)) == [32768, 32768]
    assert sizes_beside(()) == [32768]


def test_texts_are_shown_beside_what_came_back():
    x, lengths = to_bytes(["Grüße", "b"])
    exhibit = MODALITIES["text"].exhibit(
        x, {"": logits_of(["Grüsse", "b"], 8)[..., : x.shape[2]]}, tokenizer().spec, lengths=lengths, title="step 1"
    )
    assert exhibit.picture is None
    assert "step 1" in exhibit.text
    assert "Grüße" in exhibit.text
    assert "Grüss" in exhibit.text
