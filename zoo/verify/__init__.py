"""Proof that a definition is its PyTorch reference: the reference, the comparison, the report.

references/          published models
calibration.py       sane random weights for them, and images
running.py           a reference run in any precision, layer by layer
compare.py           our tensors against the reference's own rounding error
report.py            the verdict for a terminal, as JSON, as a page
torchvision_shim.py  torchvision beside a CPU build of PyTorch
"""
