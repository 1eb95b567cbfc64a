"""One self-contained HTML page of runs and comparisons: nothing in it asks the network for anything.

Python reads (`sources`), computes what only a tokenizer can tell (`looking`) and writes plain data and plain HTML, one
file a section (`sections/`); the scripts and styles of `assets/` draw them.
"""
