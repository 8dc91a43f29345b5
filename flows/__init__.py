"""The methods: each flow says the order of the stages, nothing else."""
