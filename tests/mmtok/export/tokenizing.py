"""Jobs of tokenizing in tests, and what they leave."""

from datamodules.shards import ShardSet
from mmtok.export.encoding import Settings
from mmtok.export.token_shards import TokenSet
from mmtok.export.tokenize_job import Part, tokenize

WHOLE = Part()
SIZES = ((16, 16), (16, 22), (9, 33))


def go(tokenizer, shards, out, devices=("cpu",), part=WHOLE, **more):
    settings = Settings(str(tokenizer), str(shards), out, **{"batch": 3, "workers": 0} | more)
    return tokenize(settings, list(devices), part, lambda line: None)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def read(folder):
    """Key -> codes, in the order of the set."""
    codes = TokenSet(ShardSet.open(folder))
    found = {}
    for shard, count in enumerate(codes.shards.counts):
        for sample in range(count):
            one = codes.shards.read(shard, sample)
            found[one.key] = codes.codes(one.members, one.key)
    return found
