from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmtok.config import load_config
from mmtok.loading import load, read_checkpoint
from mmtok.networks.discriminators.patchgan import PatchGANConfig
from mmtok.training.adversary import Adversary, Judgement, adaptive_weight, check_discriminator, frozen
from mmtok.training.guard import FiniteGuard, NonFiniteError
from mmtok.training.module import TokenizerModule
from mmtok.training.run import train
from mmtok.training.settings import AdversaryConfig

QUIET = {"say": lambda line: None}
SMALL = {"discriminator": {"name": "patchgan", "channels": 8, "layers": 1}, "weight": 0.1, "lecam": 0.01}


def saved(run_dir):
    return read_checkpoint(run_dir / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_optimisers_count_as_one(tiny, accumulate):  # platform.md 2.1, image.md trap 21
    checkpoint = saved(train(tiny(adversary=SMALL, trainer={"accumulate": accumulate}), **QUIET))
    assert checkpoint["global_step"] == 6
    assert int(checkpoint["state_dict"]["tokenizer.quantizer.updates"]) == 6
    assert int(checkpoint["state_dict"]["adversary.lecam.updates"]) == 6
    steps = [next(iter(state["state"].values()))["step"] for state in checkpoint["optimizer_states"]]
    assert [int(step) for step in steps] == [6, 6]


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tiny, tmp_path, stop):
    blocks = {"adversary": SMALL | {"start": 3, "lead": 2, "warmup_steps": 2}}
    straight = saved(train(tiny(**blocks, run_dir=str(tmp_path / "straight")), **QUIET))
    train(tiny(**blocks, trainer={"max_steps": stop}), **QUIET)
    resumed = saved(train(tiny(**blocks), **QUIET))
    torch.testing.assert_close(resumed["state_dict"], straight["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(resumed["optimizer_states"], straight["optimizer_states"], rtol=0, atol=0)


def test_accumulated_batches_make_the_update_of_the_whole_batch(tiny, tmp_path):
    blocks = {"adversary": SMALL, "optim": {"eps": 1e-3}}
    whole = saved(train(tiny(**blocks), **QUIET))["state_dict"]
    halves = saved(train(tiny(**blocks, trainer={"accumulate": 2}, run_dir=str(tmp_path / "parts")), **QUIET))
    torch.testing.assert_close(halves["state_dict"], whole, rtol=1e-4, atol=1e-5)


def test_the_schedule_of_both_sides():
    config = AdversaryConfig(weight=0.4, start=10, lead=4, warmup_steps=4)
    adversary = Adversary(config, in_channels=3)
    assert [adversary.learns(step) for step in (0, 5, 6, 10)] == [False, False, True, True]
    assert [round(adversary.ramp(step), 3) for step in (9, 10, 11, 13, 14, 99)] == [0.0, 0.25, 0.5, 1.0, 1.0, 1.0]


def test_before_its_start_the_adversary_changes_nothing(tiny, tmp_path):
    plain = saved(train(tiny(), **QUIET))["state_dict"]
    late = tiny(adversary=SMALL | {"start": 6, "lead": 2}, run_dir=str(tmp_path / "late"))
    lines = []
    state = saved(train(late, say=lines.append))["state_dict"]
    for name, value in plain.items():
        assert torch.equal(state[name], value), name
    assert int(state["adversary.lecam.updates"]) == 2  # its lead
    assert any("adversary.start=6 is past the last update" in line for line in lines)


def test_each_side_gets_the_gradient_of_its_own_term():
    torch.manual_seed(0)
    adversary = Adversary(
        AdversaryConfig(discriminator=PatchGANConfig(channels=8, layers=1, norm="none"), weight=0.5), in_channels=3
    )
    x, fake = torch.rand(4, 3, 16, 16) * 2 - 1, (torch.rand(4, 3, 16, 16) * 2 - 1).requires_grad_()
    judged = adversary.judge(x, fake, 0, torch.zeros(()), torch.zeros(()))
    parameters = list(adversary.discriminator.parameters())
    judged.generator.backward()
    assert all(parameter.grad is None for parameter in parameters)  # frozen while the generator is judged
    assert all(parameter.requires_grad for parameter in parameters)
    expected = torch.autograd.grad(-0.5 * adversary.discriminator(fake).logits[0].mean(), fake)[0]
    torch.testing.assert_close(fake.grad, expected)
    fake.grad = None
    judged.discriminator.backward()
    assert fake.grad is None  # detached while the discriminator learns
    assert all(parameter.grad is not None for parameter in parameters)


def test_signals_are_not_rounded_to_what_the_decoder_gives():  # which is bf16 under autocast
    adversary = Adversary(AdversaryConfig(discriminator=PatchGANConfig(channels=8, layers=1)), in_channels=3)
    seen = []
    adversary.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x, fake = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16).bfloat16().requires_grad_()
    judged = adversary.judge(x, fake, 0, torch.zeros(()), torch.zeros(()))
    torch.testing.assert_close(seen[0], torch.cat([x, fake.detach().float()]), rtol=0, atol=0)
    judged.generator.backward()
    assert fake.grad.dtype == torch.bfloat16


def test_one_forward_of_the_generator_serves_both_sides(tiny, monkeypatch):
    calls, forward = [], TokenizerModule._forward
    monkeypatch.setattr(TokenizerModule, "_forward", lambda self, batch: calls.append(1) or forward(self, batch))
    train(tiny(adversary=SMALL), **QUIET)
    assert len(calls) == 6


def test_frozen_gives_back_what_it_took():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[0].weight.requires_grad_(False)
    with frozen(module):
        assert not any(parameter.requires_grad for parameter in module.parameters())
    assert [parameter.requires_grad for parameter in module.parameters()] == [False, True, True, True]


def test_an_adaptive_weight_makes_both_gradients_as_long():
    weight = torch.nn.Parameter(torch.randn(4, 3))
    pull, push = (weight * 3).square().sum(), (weight * 0.1).sum()
    factor = adaptive_weight(pull, push, weight, most=1e4)
    pulls, pushes = (torch.autograd.grad(term, weight, retain_graph=True)[0].norm() for term in (pull, push))
    torch.testing.assert_close(factor, pulls / (pushes + 1e-4))
    assert not factor.requires_grad
    assert weight.grad is None
    assert adaptive_weight(pull, 0 * push, weight, most=7.0) == 7.0


def test_an_adaptive_run_trains_and_resumes(tiny):
    state = saved(train(tiny(adversary=SMALL | {"adaptive": True}), **QUIET))["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())


@pytest.mark.slow
def test_compiled_networks_take_an_adaptive_weight(tiny, tmp_path):  # image.md trap 18: donated buffers
    # Without this eps Adam makes a full step of a gradient that is nothing but rounding.
    blocks = {"adversary": SMALL | {"adaptive": True}, "optim": {"eps": 1e-3}}
    plain = saved(train(tiny(**blocks, trainer={"max_steps": 2, "val_every": 2}), **QUIET))["state_dict"]
    short = {"max_steps": 2, "val_every": 2, "compile": True}
    compiled = tiny(**blocks, trainer=short, run_dir=str(tmp_path / "fast"))
    torch.testing.assert_close(saved(train(compiled, **QUIET))["state_dict"], plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("part", ["encoder", "quantizer", "decoder"])
def test_frozen_parts_keep_their_weights(tiny, tmp_path, part):
    first = train(tiny(), **QUIET)
    source = load(first).state_dict()
    config = tiny(adversary=SMALL, init_from=str(first), optim={"freeze": [part]}, run_dir=str(tmp_path / "fine"))
    state = saved(train(config, **QUIET))["state_dict"]
    prefix = "quantizer." if part == "quantizer" else f"networks.{part}."
    kept = {name: torch.equal(state[f"tokenizer.{name}"], value) for name, value in source.items()}
    assert all(same for name, same in kept.items() if name.startswith(prefix))
    assert not all(kept.values())


def test_a_run_with_an_adversary_loads_as_a_tokenizer_without_it(tiny):
    run = train(tiny(adversary=SMALL), **QUIET)
    assert not any("adversary" in name or "discriminator" in name for name in load(run).state_dict())
    torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"lead": 5, "start": 2}, r"adversary.lead=5 is more than adversary.start=2"),
        ({"weight": -1.0}, r"adversary.weight=-1"),
        ({"discriminator": {"name": "patchgan", "layrs": 2}}, r"adversary.discriminator.layrs.*layers"),
        ({"objective": "hing"}, r"adversary.objective.*hinge"),
        ({"adaptive_max": -1.0}, r"adversary.adaptive_max=-1.* must be above 0"),
    ],
)
def test_mistakes_are_named(tiny, fields, match):
    with pytest.raises(ValueError, match=match):
        tiny(adversary=SMALL | fields)


def test_a_discriminator_too_deep_for_the_pictures_is_refused_at_once(tiny):
    deep = {"discriminator": {"name": "patchgan", "channels": 8, "layers": 4}}
    config = tiny(adversary=deep).adversary
    with pytest.raises(ValueError, match=r"cannot judge training items of 8 x 8: they are too small for its layers"):
        check_discriminator(config, 3, (8, 8))
    check_discriminator(config, 3, (64, 64))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"weight": 0.0}, "the generator is never judged"),
        ({"lecam": 0.0, "lecam_decay": 0.9}, "lecam_decay has no effect"),
        ({"adaptive_max": 10.0}, "adaptive_max has no effect"),
        ({"start": 2, "warmup_steps": 9}, "warmup_steps=9 is not over"),
    ],
)
def test_a_setting_without_effect_gets_a_line(tiny, fields, line):
    assert any(line in said for said in tiny(adversary=SMALL | fields).adversary.without_effect(6))
    assert not tiny(adversary=SMALL).adversary.without_effect(6)


def test_the_generator_wants_what_the_discriminator_does_unless_told():
    torch.manual_seed(0)
    config = AdversaryConfig(discriminator=PatchGANConfig(channels=8, layers=1), objective="nonsaturating", weight=1.0)
    adversary = Adversary(config, in_channels=3)
    x, fake = torch.rand(2, 2, 3, 16, 16)
    term = adversary.judge(x, fake, 0, torch.zeros(()), torch.zeros(())).generator
    torch.testing.assert_close(term, torch.nn.functional.softplus(-adversary.discriminator(fake).logits[0]).mean())


def test_half_precision_is_refused_with_the_reason(tiny):  # platform.md 2.7
    with pytest.raises(ValueError, match=r"16-mixed scales the loss.*Use bf16-mixed"):
        tiny(trainer={"precision": "16-mixed"})


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: reading a scalar, or a shape that depends on values."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.names or (name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("quantizer", ["vq", "rq", "fsq", "lfq"])
def test_a_step_between_two_lines_of_the_log_reads_nothing(tiny, monkeypatch, quantizer):
    # The same loop as on a GPU, where the guard does not wait; its checks are at step 1 and 6, on lines of the log.
    look = FiniteGuard.look
    monkeypatch.setattr(FiniteGuard, "look", lambda self, *args, wait: look(self, *args, wait=False))
    found = {}

    def watch(module, batch, batch_idx):
        if module.trainer.global_step in (2, 3, 4):
            reads[module.trainer.global_step] = mode = Reads()
            mode.__enter__()

    def unwatch(module, outputs, batch, batch_idx):
        mode = reads.pop(module.trainer.global_step - 1, None)
        if mode is not None:
            mode.__exit__(None, None, None)
            found[module.trainer.global_step - 1] = mode.found

    reads = {}
    monkeypatch.setattr(TokenizerModule, "on_train_batch_start", watch)
    monkeypatch.setattr(TokenizerModule, "on_train_batch_end", unwatch)
    blocks = {"adversary": SMALL | {"adaptive": True}, "quantizer": {"name": quantizer}}
    rare = {"log": {"every_steps": 6, "usage_every_steps": 6}, "trainer": {"val_every": 6}}
    train(tiny(**blocks, **rare, checkpoint={"every_steps": 6}), **QUIET)
    assert found == {2: [], 3: [], 4: []}


def test_a_guard_that_does_not_wait_names_the_first_bad_batch():
    guard = FiniteGuard("Lower optim.lr.")
    for step, norm in enumerate([1.0, float("nan"), float("inf"), float("nan")]):
        guard.look(torch.tensor(norm), step, 0, {"key": [f"s{step}"]}, wait=False)
    with pytest.raises(NonFiniteError, match=r"step 1 .*samples s1.*2 updates since are lost"):
        guard.check()
    guard.check()  # it starts anew


def test_what_a_decoder_makes_of_padding_is_not_judged(monkeypatch):
    # Behind a short clip its crop is silent, and a decoder does not fall silent at once.
    words = [
        "tokenizer.encoder.channels=2", "tokenizer.encoder.strides=[4,5]", "quantizer.depth=2", "data.seconds=0.1",
        "adversary.discriminator.name=mpd", "adversary.discriminator.channels=1",
    ]  # fmt: skip
    module = TokenizerModule(load_config(["audio/soundstream"], words).config)
    module._trainer = SimpleNamespace(global_step=0)
    seen = []
    monkeypatch.setattr(module.adversary, "judge", lambda *args: seen.append(args) or Judgement(None, None, {}))
    batch = {"x": torch.rand(2, 1, 400), "lengths": torch.tensor([400, 150])}
    out = module.tokenizer(batch["x"], batch["lengths"])
    assert out.x[1, :, 150:].any()
    module._judge(out, batch, dict.fromkeys(module.terms, torch.zeros(())))
    for given, whole in zip(seen[0][:2], (batch["x"], out.x), strict=True):
        assert torch.equal(given[0], whole[0])
        assert torch.equal(given[1, :, :150], whole[1, :, :150])
        assert not given[1, :, 150:].any()


def test_feature_matching_takes_the_real_features_the_discriminator_learned_from(tiny):
    config = tiny(adversary=SMALL | {"weight": 0.0, "feature_weight": 2.0, "feature_norm": "relative"}).adversary
    adversary = Adversary(config, in_channels=3)
    x, fake = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16, requires_grad=True)
    judged = adversary.judge(x, fake, 5, pull=fake.sum(), last_layer=fake)
    real, seen = adversary.discriminator(x).features[0], adversary.discriminator(fake).features[0]
    expected = torch.stack([(a - b).abs().mean() / a.abs().mean() for a, b in zip(real, seen, strict=True)]).mean()
    torch.testing.assert_close(judged.generator, 2 * expected)
    judged.generator.backward()
    assert fake.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in adversary.parameters())  # audio.md trap 15


def test_the_share_of_updates_in_which_the_discriminator_learns_is_drawn_from_their_numbers(tiny):  # audio.md trap 5
    adversary = Adversary(tiny(adversary=SMALL | {"share": 0.67}).adversary, in_channels=3)
    learned = [adversary.learns(step) for step in range(600)]
    assert learned == [adversary.learns(step) for step in range(600)]
    assert 0.6 < sum(learned) / 600 < 0.74
