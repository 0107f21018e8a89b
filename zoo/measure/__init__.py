"""What measures: times on the GPU, rivals, costs of layers, profiles by layer."""
