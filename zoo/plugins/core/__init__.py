"""What every custom op is made with: its declaration, its kernels, and the one TensorRT plugin that runs them all."""
