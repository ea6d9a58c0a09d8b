"""The live page and its API: one model, asked by many at once, watched and edited as it writes."""
