"""What only a GPU can show, in sections that are measured once each: `python -m benchmarks.gpu`."""
