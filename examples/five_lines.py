"""A tokenizer for language models where mmtok is not installed: torch, transformers, safetensors, and Pillow for files.

  python examples/five_lines.py BUNDLE VOCABULARY picture.png again.png

BUNDLE is what `mmtok export` wrote, VOCABULARY what `mmtok vocab merge` wrote. Sounds work alike (talk.wav again.wav).
"""

import sys

from transformers import AutoModel

bundle, vocabulary, source, target = sys.argv[1:]

tok = AutoModel.from_pretrained(bundle, trust_remote_code=True).eval()
codes = tok.encode(tok.preprocess(source))
ids = tok.to_ids(codes, vocab=vocabulary)
again = tok.from_ids(ids, vocab=vocabulary, grid=codes.grid)
x = tok.decode(again)

print(f"codes {tuple(codes.ids.shape)}: {codes.ids[0, :, :6].tolist()} ...")
print(f"ids   {tuple(ids[0].shape)}: {ids[0].flatten()[:8].tolist()} ...")
print(f"x     {tuple(x.shape)} from {'the same' if again.ids.equal(codes.ids) else 'other'} codes")
tok.tokenizer.write(x, target)
