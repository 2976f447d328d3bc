"""Parts of fused Gromov-Wasserstein transport: what is minimised, two ways down, and the gradient at the end."""
