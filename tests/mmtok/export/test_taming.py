"""Runs of taming-transformers: a YAML and a Lightning checkpoint, with the names its code gives, are tokenizers."""

import pytest
import torch
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

import mmtok
from mmtok.cli import main
from mmtok.export.folder import read_model

yaml = pytest.importorskip("yaml")

NETWORK = {"double_z": False, "z_channels": 8, "resolution": 12, "in_channels": 3, "out_ch": 3, "ch": 32,
           "ch_mult": [1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [3], "dropout": 0.0}  # fmt: skip
PARAMS = {"embed_dim": 4, "n_embed": 32, "lossconfig": {"target": "taming.modules.losses.vqperceptual.X", "params": {}}}


class ModelCheckpoint:
    """As Lightning's, whose class and state lie in its checkpoints."""

    def __init__(self):
        self.best = 1.0


def theirs(seed=0):
    """A network that transformers took over from taming, with the decoder's levels in another order."""
    torch.manual_seed(seed)
    config = JanusVQVAEConfig(base_channels=32, channel_multiplier=[1, 2, 2], num_res_blocks=1, latent_channels=8,
                              embed_dim=4, num_embeddings=32, num_patches=3)  # fmt: skip
    model = JanusVQVAE(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.quantize.embedding.weight.normal_(std=0.1)
    return model


def checkpoint_of(model):
    state = {}
    for name, value in model.state_dict().items():
        part = name.split(".")
        if name.startswith("decoder.up."):
            part[2] = str(2 - int(part[2]))
        state[".".join(part)] = value
    state |= {
        "loss.discriminator.main.0.weight": torch.ones(3),
        "loss.perceptual_loss.lin0.model.1.weight": torch.ones(2),
    }
    return {
        "epoch": 3, "global_step": 100, "pytorch-lightning_version": "1.0.8",
        "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(1.0), "kept": ModelCheckpoint()}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": []}], "lr_schedulers": [],
        "state_dict": state,
    }  # fmt: skip


def recipe(target="taming.models.vqgan.VQModel", params=None, network=None):
    ddconfig = NETWORK | (network or {})
    params = PARAMS | {"ddconfig": ddconfig} | (params or {})
    model = {"base_learning_rate": 4.5e-6, "target": target, "params": params}
    return {"model": model, "data": {"target": "main.DataModuleFromConfig"}}


@pytest.fixture
def run(tmp_path):
    """A run directory as taming leaves it: two recipes, of which one is Lightning's, and a checkpoint."""
    folder = tmp_path / "run"
    for name in ("configs", "checkpoints"):
        (folder / name).mkdir(parents=True)
    (folder / "configs" / "2021-04-23T18-11-19-project.yaml").write_text(yaml.safe_dump(recipe()))
    (folder / "configs" / "2021-04-23T18-11-19-lightning.yaml").write_text("lightning: {trainer: {gpus: 1}}")
    torch.save(checkpoint_of(theirs()), folder / "checkpoints" / "last.ckpt")
    torch.save({}, folder / "checkpoints" / "epoch=000001.ckpt")
    return folder


@torch.no_grad()
def assert_same(ours, model):
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(3)) * 2 - 1
    z = model.quant_conv(model.encoder(x))
    torch.testing.assert_close(ours.embed(x).z, z.flatten(2).mT, atol=1e-5, rtol=0)
    values, _, ids = model.quantize(z)
    codes = ours.encode(x)
    best = torch.cdist(z.flatten(2).mT, ours.quantizer.codebook).square().topk(2, largest=False).values
    clear = best[..., 1] - best[..., 0] > 1e-4
    assert ids.unique().numel() > 3
    assert torch.equal(codes.ids[:, 0][clear], ids.view(2, -1)[clear])
    y = model.decoder(model.post_quant_conv(values))
    torch.testing.assert_close(ours.decode(codes), y, atol=1e-5, rtol=0)


def test_a_run_of_taming_is_a_tokenizer(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["import", "taming", str(run), "-o", str(out)]) == 0
    ours = mmtok.load(out)
    assert_same(ours, theirs())
    assert (ours.config.image_size, ours.networks.downsample, ours.spec.codebook_sizes) == (12, 4, (32,))
    assert read_model(run, "taming").fingerprint() == ours.fingerprint()


def test_a_checkpoint_with_its_recipe_beside_it_is_one_too(run):
    (run / "model.yaml").write_text(yaml.safe_dump(recipe("ldm.models.autoencoder.VQModelInterface")))
    (run / "other.yaml").write_text(yaml.safe_dump(recipe(params={"n_embed": 64})))
    torch.save(checkpoint_of(theirs()), run / "model.ckpt")
    assert_same(read_model(run / "model.ckpt", "taming"), theirs())
    with pytest.raises(ValueError, match=r"more than one YAML file with a model.target: .*Leave one"):
        read_model(run, "taming")


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"target": "taming.models.vqgan.GumbelVQ"}, "GumbelVQ cannot be expressed; .* by logits"),
     ({"target": "ldm.models.autoencoder.AutoencoderKL"}, "AutoencoderKL cannot be expressed.* has no codes"),
     ({"target": "a.B"}, "target=a.B cannot be expressed; only VQModel and VQModelInterface can.$"),
     ({"network": {"double_z": True}}, "ddconfig.double_z=True"),
     ({"network": {"attn_type": "none"}}, "attn_type='none'"),
     ({"network": {"out_ch": 1}}, "out_ch=1 cannot be expressed; only in_channels=3"),
     ({"network": {"ch": None}}, "channels must be an int"), ({"params": {"remap": "used.npy"}}, "remap='used.npy'"),
     ({"params": {"ddconfig": None}}, "no mapping 'ddconfig'"),
     ({"network": {"num_res_blocks": 2}}, "have no 'encoder.down.0.block.1.norm1.weight'"),
     ({"network": {"attn_resolutions": []}}, "attn.*, for which the configuration has no place"),
     ({"params": {"n_embed": 64}}, r"codebook is \[32, 4\], and should be \[64, 4\]")],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_name(fields, said, run):
    (run / "configs" / "2021-04-23T18-11-19-project.yaml").write_text(yaml.safe_dump(recipe(**fields)))
    with pytest.raises(ValueError, match=said):
        read_model(run, "taming")


def test_a_folder_that_is_no_run_says_what_is_missing(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["import", "taming", str(tmp_path / "empty"), "-o", str(tmp_path / "out")]) == 2
    assert "there is no YAML file with a model.target in" in capsys.readouterr().err
    torch.save({"model": {}}, run / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match="has no state_dict: it is no checkpoint of PyTorch Lightning"):
        read_model(run, "taming")
    assert main(["import", str(run), "-o", str(tmp_path / "out")]) == 2
    assert "say what it is: mmtok import taming PATH" in capsys.readouterr().err


def test_a_kind_that_is_not_what_the_folder_says_is_refused(tmp_path):
    theirs().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"this is no MimiModel, but 'janus_vqgan'. Leave hf-mimi out"):
        read_model(tmp_path, "hf-mimi")
