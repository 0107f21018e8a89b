"""Custom ops: what TensorRT has no layer for, one file each, used in a definition as any other op.

A definition calls the function (`deform_conv2d(net / "dcn", x, …)`) and never says how; `--plugins` chooses between
layers of the network, kernels of our own and NVIDIA's plugins. docs/adding-a-plugin.md is the way in.
"""
