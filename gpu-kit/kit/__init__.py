"""The GPU kit: what only a card can say of gpuquota, in stages."""
