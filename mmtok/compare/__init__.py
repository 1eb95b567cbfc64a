"""One honest bench: arms that differ in one thing, over seeds, measured alike, with error bars.

An arm is what a row of the table stands for (a quantizer's preset, say); a cell is one arm with one seed, a run
directory of its own. Cells are trained and measured one by one, each in a process of its own, and may be made here, on
a cluster, or before.
"""
