"""Benches of brainscan: ratios measured in one run, beside their peers. See bench/README.md."""
