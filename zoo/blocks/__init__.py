"""What architectures of a family share, one file a family: blocks, and backbones that return their stages by name."""
