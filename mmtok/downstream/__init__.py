"""What ids of items are good for: small models that recommend and retrieve by writing them, beside plain baselines."""
