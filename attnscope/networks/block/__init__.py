"""The block of any attention: norm, attention, residual, norm, MLP, residual."""
