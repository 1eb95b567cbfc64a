import pytest
import torch

from benchmarks import ddp, sets
from mmtok.config import parse_config
from mmtok.loading import load, read_checkpoint
from mmtok.training.guard import NonFiniteError
from mmtok.training.module import TokenizerModule
from mmtok.training.run import build_module, train

QUIET = {"say": lambda line: None}


def weights(run_dir) -> dict[str, torch.Tensor]:
    return read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_step_counts_updates_whatever_the_accumulation(tiny, accumulate):
    # platform.md section 2, trap 1: max_steps must not mean batches, nor optimiser calls.
    run = train(tiny(trainer={"accumulate": accumulate}), **QUIET)
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 6
    assert int(checkpoint["state_dict"]["tokenizer.quantizer.updates"]) == 6
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["last.ckpt", "step-4.ckpt", "step-6.ckpt"]


def test_accumulated_batches_make_the_update_of_the_whole_batch(tiny, tmp_path):
    # A bias before a norm has no gradient but rounding, which Adam would blow up to a full step without this eps.
    whole = weights(train(tiny(optim={"eps": 1e-3}), **QUIET))
    halves = {"optim": {"eps": 1e-3}, "trainer": {"accumulate": 2}, "run_dir": str(tmp_path / "parts")}
    parts = weights(train(tiny(**halves), **QUIET))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("stop", [2, 4])  # step-2 is before a validation, step-4 after one
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tiny, tmp_path, stop):
    straight = train(tiny(run_dir=str(tmp_path / "straight")), **QUIET)
    train(tiny(trainer={"max_steps": stop}), **QUIET)
    resumed = train(tiny(), **QUIET)
    expected, got = weights(straight), weights(resumed)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(got[name], value), name
    assert steps(resumed) == steps(straight)


def steps(run_dir) -> list[str]:
    return [line.partition(",")[0] for line in (run_dir / "metrics.csv").read_text().splitlines()]


def test_a_loss_that_is_not_finite_stops_the_run_and_changes_nothing(tiny):
    # Slot 19 is in update 2: two updates are done, and saved.
    with pytest.raises(NonFiniteError, match=r"step 2 .*slot16.*Nothing was changed"):
        train(tiny(data={"poison": 19}), **QUIET)


def test_what_a_term_learns_is_clipped_with_the_rest(tmp_path, monkeypatch):  # the head of distill
    pytest.importorskip("soundfile")
    sets.write_sounds(tmp_path / "sounds")
    tree = ddp.tree("audio", 1, tmp_path, 2)
    tree["optim"]["clip"], seen, step = 1e-3, [], TokenizerModule._step

    def spy(module, number, lr):
        if number == 0:
            gradients = [p.grad for group in module.optimizers()[0].param_groups for p in group["params"]]
            seen.append(torch.stack([grad.norm() for grad in gradients if grad is not None]).norm())
        step(module, number, lr)

    monkeypatch.setattr(TokenizerModule, "_step", spy)
    train(parse_config(tree), **QUIET)
    torch.testing.assert_close(torch.stack(seen), torch.full((2,), 1e-3), rtol=1e-3, atol=0)


def test_the_weights_are_those_of_the_seed(tiny):
    torch.manual_seed(99)
    first = build_module(tiny()).state_dict()
    torch.manual_seed(1)
    second = build_module(tiny()).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_average_follows_parameters_and_copies_buffers(tiny):
    state = weights(train(tiny(), **QUIET))
    names = [name.removeprefix("ema.") for name in state if name.startswith("ema.")]
    assert names
    torch.testing.assert_close(state["ema.quantizer.codebook"], state["tokenizer.quantizer.codebook"], rtol=0, atol=0)
    weight = "networks.encoder.conv_in.weight"
    assert not torch.equal(state[f"ema.{weight}"], state[f"tokenizer.{weight}"])


def test_a_run_loads_as_a_tokenizer_with_its_average(tiny):
    run = train(tiny(), **QUIET)
    tokenizer, state = load(run), weights(run)
    weight = "networks.encoder.conv_in.weight"
    assert torch.equal(tokenizer.state_dict()[weight], state[f"ema.{weight}"])
    assert torch.equal(load(run, raw=True).state_dict()[weight], state[f"tokenizer.{weight}"])
    x = torch.rand(1, 3, 9, 7) * 2 - 1
    codes = tokenizer.encode(x)
    assert tokenizer.decode(codes).shape == x.shape
    assert not tokenizer.training


def test_another_experiment_is_not_written_over(tiny):
    train(tiny(), **QUIET)
    with pytest.raises(ValueError, match=r"another experiment, which differs in\n  optim.lr: 0.001 -> 0.01"):
        train(tiny(optim={"lr": 1e-2}), **QUIET)


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_sizes():
    from mmtok.config import RunConfig
    from mmtok.training.run import check_division

    assert RunConfig
    from types import SimpleNamespace as Space

    config = Space(trainer=Space(accumulate=2), data=Space(batch_size=100, items_per_sample=1))
    with pytest.raises(ValueError, match=r"8 ranks x 2 accumulation steps. Use 96 or 112"):
        check_division(config, 8)


def test_init_from_says_what_was_taken_resized_and_new(tiny, tmp_path):
    first = train(tiny(), **QUIET)
    lines: list[str] = []
    config = tiny(quantizer={"codebook_size": 24}, init_from=str(first), run_dir=str(tmp_path / "second"))
    train(config, say=lines.append)
    text = "\n".join(lines)
    assert "tensors taken" in text
    assert "resized: quantizer.codebook (16, 8) -> (24, 8)" in text


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no"):
        load(tmp_path / "nowhere")


def test_ctrl_c_comes_out_as_such(tiny, monkeypatch):  # Lightning would leave with status 1, in silence
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(TokenizerModule, "on_train_batch_start", interrupt, raising=False)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), **QUIET)


def test_a_gpu_that_is_not_there_is_a_message(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"trainer.accelerator=gpu.*mmtok doctor"):
        train(tiny(trainer={"accelerator": "gpu"}), **QUIET)


def test_a_file_is_no_run_directory(tiny, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match=r"taken is a file\. Give a folder"):
        train(tiny(run_dir=str(tmp_path / "taken")), **QUIET)


def test_float32_parts_have_float32_gradients_in_a_half_precision_run(tiny, monkeypatch):
    # Autocast that is still on in backward casts the products of every part that forward had kept in float32.
    seen = []
    step = TokenizerModule._objective

    def objective(self, out, batch):
        terms = step(self, out, batch)
        for term in terms.values():
            if term.requires_grad:
                term.register_hook(lambda grad: seen.append(torch.is_autocast_enabled("cpu")))
        assert torch.is_autocast_enabled("cpu")
        return terms

    monkeypatch.setattr(TokenizerModule, "_objective", objective)
    train(tiny(trainer={"precision": "bf16-mixed", "max_steps": 1}), **QUIET)
    assert seen
    assert not any(seen)
