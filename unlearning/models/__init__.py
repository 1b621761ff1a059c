"""Models whose state is arrays: trees, kernels, clusters, linear systems, heads and parts."""
