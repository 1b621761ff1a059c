"""Methods that use a model's structure: forests, sums, support vectors, clusters, channels."""
