"""What a bundle brings to transformers. These modules run there, flattened; they need transformers, and not mmtok."""
