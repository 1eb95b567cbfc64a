import math

import pytest
import torch

from mmtok.quantizers import build_quantizer
from mmtok.quantizers.usage import UsageConfig, UsageState, UsageWatch, UsageWindow, measure, measure_bits

SIZES = (256, 1024, 16384)
HEALTHY, OK, SKEWED, PARTIAL, COLLAPSED = (
    UsageState.HEALTHY,
    UsageState.OK,
    UsageState.SKEWED,
    UsageState.PARTIAL,
    UsageState.COLLAPSED,
)


def drawn(weights, tokens_per_code=32, seed=0):
    """Counts of tokens drawn from unnormalised probabilities."""
    generator = torch.Generator().manual_seed(seed)
    tokens = int(tokens_per_code * len(weights))
    ids = torch.multinomial(weights.double(), tokens, replacement=True, generator=generator)
    return torch.bincount(ids, minlength=len(weights))


def lognormal(size, deviation):
    return torch.exp(deviation * torch.randn(size, generator=torch.Generator().manual_seed(0)))


def zipf(size, exponent):
    return torch.arange(1, size + 1).double() ** -exponent


def part_live(size, fraction):
    return (torch.arange(size) < max(1, round(size * fraction))).double()


def hog(size):
    weights = torch.full((size,), 0.1 / (size - 1))
    weights[0] = 0.9
    return weights


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("uniform", torch.ones, {HEALTHY}),
        ("lognormal 0.5", lambda k: lognormal(k, 0.5), {HEALTHY}),
        ("lognormal 1", lambda k: lognormal(k, 1.0), {HEALTHY}),
        ("zipf 0.8", lambda k: zipf(k, 0.8), {HEALTHY}),
        ("zipf 1", lambda k: zipf(k, 1.0), {256: {HEALTHY}, 1024: {SKEWED}, 16384: {PARTIAL}}),
        ("zipf 1.2", lambda k: zipf(k, 1.2), {256: {SKEWED}, 1024: {PARTIAL}, 16384: {COLLAPSED}}),
        ("lognormal 1.5", lambda k: lognormal(k, 1.5), {SKEWED, PARTIAL}),
        ("lognormal 2", lambda k: lognormal(k, 2.0), {SKEWED, PARTIAL}),
        ("90 % live", lambda k: part_live(k, 0.9), {OK}),
        ("50 % live", lambda k: part_live(k, 0.5), {OK}),
        ("20 % live", lambda k: part_live(k, 0.2), {PARTIAL}),
        ("5 % live", lambda k: part_live(k, 0.05), {COLLAPSED}),
        ("1 % live", lambda k: part_live(k, 0.01), {COLLAPSED}),
        ("one code takes 90 %", hog, {COLLAPSED}),
    ],
)
def test_simulated_distributions_get_the_states_of_the_reference(size, name, weights, expected):
    """downstream.md section 2, the table at 32 tokens a code."""
    allowed = expected[size] if isinstance(expected, dict) else expected
    usage = measure(drawn(weights(size)))
    assert usage.state() in allowed, (name, usage)


@pytest.mark.parametrize("tokens_per_code", [4, 32, 128])
def test_uniform_use_measures_the_sampling_floor(tokens_per_code):
    usage = measure(drawn(torch.ones(4096), tokens_per_code))
    assert usage.gini == pytest.approx(0.564 / math.sqrt(tokens_per_code), rel=0.05)
    assert usage.active == pytest.approx(1 - math.exp(-tokens_per_code), abs=0.01)
    assert usage.active_expected == pytest.approx(1, abs=0.01)


def test_even_counts_measure_exactly_even():
    usage = measure(torch.full((1024,), 32))
    assert usage.gini == pytest.approx(0, abs=1e-12)
    assert usage.perplexity == pytest.approx(1024)
    assert (usage.active, usage.live, usage.tokens_per_code) == (1, 1, 32)


def test_all_tokens_in_one_code_measure_as_collapse():
    counts = torch.zeros(1024, dtype=torch.int64)
    counts[17] = 10**6
    usage = measure(counts)
    assert usage.gini == pytest.approx(1 - 1 / 1024)
    assert usage.evenness == pytest.approx(1 / 1024)
    assert usage.perplexity == 1
    assert usage.entropy_norm == 0
    assert usage.top1_share == 1
    assert usage.active == 1 / 1024
    assert usage.state() is COLLAPSED


def test_the_literal_gini_rule_would_flag_even_use_and_miss_a_collapse():
    """downstream.md section 2: why the survey's sentence is read as evenness."""
    assert measure(drawn(torch.ones(1024))).gini < 0.3
    assert measure(drawn(part_live(1024, 0.05))).gini > 0.3


@pytest.mark.parametrize("weights", [torch.ones(1024), hog(1024)])
def test_too_few_tokens_a_code_say_nothing(weights):
    assert measure(drawn(weights, tokens_per_code=31)).state() is UsageState.UNKNOWN


def test_an_empty_window_measures_zeros_and_says_nothing():
    usage = measure(torch.zeros(16))
    assert set(usage.scalars().values()) == {0.0, 16.0}
    assert usage.state() is UsageState.UNKNOWN


def test_a_codebook_of_one_code_can_be_measured():
    assert measure(torch.tensor([5])).entropy_norm == 1


def test_thresholds_are_configurable():
    usage = measure(drawn(part_live(1024, 0.2)))
    assert usage.state(UsageConfig(partial_active_min=0.1, evenness_min=0.1)) is OK
    assert usage.state(UsageConfig(active_min=0.3)) is COLLAPSED


def test_an_alarm_needs_patience_and_reports_the_mildest_window():
    watch = UsageWatch(UsageConfig(patience=2))
    assert watch.observe("0", COLLAPSED) is None
    assert watch.observe("1", COLLAPSED) is None  # each codebook for itself
    assert watch.observe("0", UsageState.UNKNOWN) is None  # neither counts nor interrupts
    assert watch.observe("0", PARTIAL) is PARTIAL
    assert watch.observe("0", PARTIAL) is PARTIAL
    assert watch.observe("0", HEALTHY) is None
    assert watch.observe("0", COLLAPSED) is None
    assert watch.observe("0", COLLAPSED) is COLLAPSED


def test_patience_survives_a_checkpoint():
    watch, restored = UsageWatch(), UsageWatch()
    watch.observe("0", COLLAPSED)
    restored.load_state_dict(watch.state_dict())
    assert restored.observe("0", COLLAPSED) is COLLAPSED


def test_patience_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"usage\.patience must be at least 1"):
        UsageConfig(patience=0)


def test_a_window_adds_steps_and_orders_levels_by_number():
    window = UsageWindow()
    for _ in range(3):
        window.add({f"{level}.counts": torch.ones(4) * (level + 1) for level in (10, 2, 0)} | {"0.sums": torch.ones(4)})
    read = window.read()
    assert list(read) == ["0", "2", "10"]
    assert [level.usage.tokens for level in read.values()] == [12, 36, 132]
    assert window.sums["0.counts"].dtype == torch.int64
    assert "0.sums" not in window.sums
    window.clear()
    assert window.read() == {}


def test_a_window_does_not_change_with_the_stats_it_was_given():
    window, counts = UsageWindow(), torch.ones(4, dtype=torch.int64)
    window.add({"counts": counts})
    window.add({"counts": counts})
    assert counts.tolist() == [1, 1, 1, 1]
    assert window.read()[""].usage.tokens == 8


def test_ratios_of_summed_ranks_are_not_means_of_ratios():
    """Two ranks that use one half of the codes each: together all, on average half."""
    first, second = UsageWindow(), UsageWindow()
    first.add({"counts": torch.tensor([64, 64, 0, 0])})
    second.add({"counts": torch.tensor([0, 0, 64, 64])})
    total = {"counts": first.sums["counts"] + second.sums["counts"]}
    assert first.read(total)[""].usage.active == 1
    assert first.read(total)[""].usage.perplexity == pytest.approx(4)


def test_energies_give_the_gain_and_the_residual_ratio_of_each_level():
    window = UsageWindow()
    counts = {f"{level}.counts": torch.ones(4) for level in (0, 1)}
    energies = {"0.input_sq": 100.0, "0.residual_sq": 25.0, "1.input_sq": 20.0, "1.residual_sq": 5.0}
    window.add(counts | {key: torch.tensor(value) for key, value in energies.items()})
    first, second = window.read().values()
    assert first.energy.residual_ratio == pytest.approx(0.5)
    assert second.energy.residual_ratio == pytest.approx(0.25)
    assert first.energy.gain_db == second.energy.gain_db == pytest.approx(10 * math.log10(4))


@pytest.mark.parametrize(("name", "levels"), [("rq", ["0", "1"]), ("residual", ["0.0", "0.1", "1.0", "1.1"])])
def test_residual_quantizers_give_counts_and_energies_of_every_level(name, levels):
    torch.manual_seed(0)
    inner = {} if name == "rq" else {"inner": {"name": "pq", "codebook_size": 32}}
    quantizer = build_quantizer(name, dim=8, depth=2, **inner, **({"codebook_size": 32} if name == "rq" else {}))
    window = UsageWindow()
    window.add(quantizer(torch.randn(2, 50, 8)).stats)
    read = window.read()
    assert list(read) == levels
    for level in read.values():
        assert level.usage.tokens == 100
        assert 0 < level.energy.residual_ratio < 1.5
        assert {"gini", "gain_db", "residual_ratio"} <= set(level.scalars())


def test_binary_quantizers_give_measures_of_their_bits():
    torch.manual_seed(0)
    window = UsageWindow()
    window.add(build_quantizer("lfq", dim=8, bits=6)(torch.randn(2, 500, 8)).stats)
    assert window.read()[""].bits.entropy.shape == (6,)
    assert {"bit_entropy_min", "bit_correlation_max", "bits_dead"} <= set(window.read()[""].scalars())


def test_bits_that_copy_and_bits_that_never_change_are_seen():
    free = torch.randint(0, 2, (4096,), generator=torch.Generator().manual_seed(0))
    other = torch.randint(0, 2, (4096,), generator=torch.Generator().manual_seed(1))
    bits = torch.stack([free, 1 - free, other, torch.ones_like(free)], 1).double()
    measured = measure_bits(bits.T @ bits, 4096)
    assert measured.dead.tolist() == [False, False, False, True]
    assert measured.entropy[:3].min() > 0.99
    assert measured.entropy[3] == 0
    assert measured.correlation[0, 1] == pytest.approx(-1)
    assert measured.correlation[0, 2].abs() < 0.05
    assert measured.correlation[3].abs().max() == 0
    assert measured.scalars()["bits_dead"] == 1
    assert measured.scalars()["bit_correlation_max"] == pytest.approx(1)
